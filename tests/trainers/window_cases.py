"""Small preprocessed cases in nnU-Net's own files, and a network for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_neurino.networks import DINOWindow

WINDOW = (4, 16, 16)
PATCH = (8, 32, 32)
SHAPES = {"a": (9, 20, 33), "b": (3, 15, 40), "c": (8, 32, 32)}
"""Odd, smaller than a window along z, and a patch exactly."""


def network(**changes: Any) -> DINOWindow:
    torch.manual_seed(0)
    return DINOWindow(**{"vit": "atto_v3", "window": WINDOW, "channels": 16} | changes)


def label_manager(regions: bool = False, ignore: bool = False) -> LabelManager:
    labels: dict[str, Any] = {"background": 0, "one": 1, "two": 2}
    if regions:
        labels = {"background": 0, "whole": (1, 2), "core": 2}
    if ignore:
        labels["ignore"] = 3
    return LabelManager(labels, [1, 2] if regions else None)


def write_case(
    folder: Path,
    name: str,
    shape: tuple[int, int, int],
    manager: LabelManager,
    channels: int = 1,
    seed: int = 0,
    broken: float | None = None,
) -> None:
    """A noisy image in which each label is a step brighter, with nnU-Net's -1 along an edge.

    A case that is there is replaced. ``broken`` is the value of one voxel.
    """
    random = np.random.default_rng([seed, *name.encode()])
    seg = np.zeros((1, *shape), np.int8)
    for label in (1, 2, 3) if manager.has_ignore_label else (1, 2):
        corner = [int(random.integers(0, max(1, n - 5))) for n in shape]
        seg[(0, *(slice(c, c + 5) for c in corner))] = label
    image = random.normal(0, 0.1, (channels, *shape)).astype(np.float32) + 3 * seg
    # As nnU-Net samples them: of the labels or regions, and of everything annotated.
    of = list(manager.foreground_regions if manager.has_regions else manager.foreground_labels)
    if manager.has_ignore_label:
        of.append([-1, *manager.all_labels])
    locations = DefaultPreprocessor._sample_foreground_locations(seg, of)
    seg[:, :, :1, :1] = -1
    image[:, :, :1, :1] = 0
    if broken is not None:
        image[0, 1, 2, 3] = broken
    folder.mkdir(parents=True, exist_ok=True)
    for ending in (".b2nd", "_seg.b2nd"):  # blosc2 refuses to replace them
        (folder / (name + ending)).unlink(missing_ok=True)
    size = {"chunks": image[:1].shape, "blocks": image[:1].shape}
    nnUNetDatasetBlosc2.save_case(image, seg, {"class_locations": locations}, str(folder / name), **size)


def dataset(
    folder: Path,
    names: Iterable[str] = SHAPES,
    manager: LabelManager | None = None,
    shapes: dict[str, tuple[int, int, int]] | None = None,
    channels: int = 1,
) -> nnUNetDatasetBlosc2:
    """nnU-Net's data set of the cases, which are written first."""
    shapes = shapes or SHAPES
    for name in names:
        write_case(folder, name, shapes[name], manager or label_manager(), channels)
    return nnUNetDatasetBlosc2(str(folder), list(names))
