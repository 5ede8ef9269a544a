"""Tiny generated data sets in nnU-Net's raw format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from nnunet_neurino.synth import BlobSettings, generate, generate_blob, preset


@dataclass(frozen=True)
class RawDataset:
    """What to generate: training cases of one shape, a held-out one, channels, labels; neurons, or a blob as in MR."""

    name: str
    shape: tuple[int, int, int] = (32, 64, 64)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: int = 1
    labels: int = 1
    regions: bool = False
    cases: int = 5
    blob: bool = False

    def write(self, raw_folder: Path) -> Path:
        """Write the data set below nnU-Net's raw folder and return its own."""
        folder = raw_folder / self.name
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (folder / part).mkdir(parents=True)
        for number in range(self.cases + 1):
            suffix = "Tr" if number < self.cases else "Ts"
            images, labels = self._case(number)
            for channel, image in enumerate(images):
                self._write(folder / f"images{suffix}" / f"case{number:02d}_{channel:04d}", image)
            self._write(folder / f"labels{suffix}" / f"case{number:02d}", labels)
            for stem in (f"images{suffix}/case{number:02d}", f"labels{suffix}/case{number:02d}"):
                (folder / f"{stem}.json").write_text(json.dumps({"spacing": self.spacing}))
        (folder / "dataset.json").write_text(json.dumps(self._description()))
        return folder

    def _case(self, number: int) -> tuple[list[np.ndarray], np.ndarray]:
        if self.blob:
            volume = generate_blob(BlobSettings(self.shape, self.spacing), seed=number)
        else:
            volume = generate(preset("demo", self.shape, self.spacing), seed=number)
        images = [volume.image]
        for channel in range(1, self.channels):
            noise = np.random.default_rng([number, channel]).integers(0, 40, self.shape)
            images.append((noise + 60 * volume.mask).astype(np.uint8))
        labels = volume.mask.astype(np.uint8)
        # Further labels: slabs of the neuron, so that each is found by where it is.
        for label in range(2, self.labels + 1):
            part = np.s_[:, (label - 1) * self.shape[1] // self.labels :]
            labels[part][volume.mask[part] > 0] = label
        return images, labels

    def _description(self) -> dict[str, Any]:
        labels: dict[str, Any] = {"background": 0}
        if self.regions:
            labels |= {f"from{n}": list(range(n, self.labels + 1)) for n in range(1, self.labels + 1)}
        else:
            labels |= {f"label{n}": n for n in range(1, self.labels + 1)}
        description = {
            "channel_names": {str(channel): f"channel {channel}" for channel in range(self.channels)},
            "labels": labels,
            "numTraining": self.cases,
            "file_ending": ".tif",
            "overwrite_image_reader_writer": "Tiff3DIO",
        }
        return description | ({"regions_class_order": list(range(1, self.labels + 1))} if self.regions else {})

    @staticmethod
    def _write(path: Path, array: np.ndarray) -> None:
        tifffile.imwrite(path.with_name(path.name + ".tif"), array)
