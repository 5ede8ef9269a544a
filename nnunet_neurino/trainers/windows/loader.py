"""Batches of volumes as windows: the same ones, whether their tokens are kept or computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from torch import Tensor

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import DINOWindow
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.networks.window_grid import Region, WindowGrid
from nnunet_neurino.trainers.windows.copies import CopyRecipe, VolumeCopy, padded_shape
from nnunet_neurino.trainers.windows.token_cache import TokenCache


@dataclass(frozen=True)
class CachedWindows:
    """Windows of a batch whose tokens are read when they are asked for."""

    grid: WindowGrid  # of each volume of the batch, or of the block of it that is used
    # tokens (windows, channels of a token, d, y', x') of all of the volume, for each sample
    arrays: Sequence[np.ndarray]
    numbers: Sequence[Sequence[int]]  # which of them the windows of the grid are, for each sample
    upside_down: Sequence[bool]  # whether the slices of a window follow in reverse, for each sample
    device: torch.device | str = "cpu"  # of the tokens that are given

    def tokens(self, number: int) -> Tensor:
        """Of window ``number``: (N, channels of a token, d, y', x') float32."""
        samples = zip(self.arrays, self.numbers, self.upside_down, strict=True)
        found = [array[numbers[number]][:, :: -1 if flipped else 1] for array, numbers, flipped in samples]
        tokens = torch.from_numpy(np.stack(found))
        if torch.device(self.device).type == "cuda":
            tokens = tokens.pin_memory()
        return tokens.to(self.device, non_blocking=True).float()  # half as much goes to the GPU

    def to(self, device: torch.device | str, non_blocking: bool = False) -> CachedWindows:
        """The same for another device; only the tokens of one window at a time are ever there."""
        return replace(self, device=device)


class ComputedWindows:
    """Windows of a batch whose tokens are computed when they are asked for.

    Args:
        network: whose encoder is used.
        grid: of the volumes.
        image: brightness from 0 to 1, (N, C, z, y, x).
    """

    def __init__(self, network: DINOWindow, grid: WindowGrid, image: Tensor) -> None:
        self.grid = grid
        self._network = network
        self._image = image
        self._last: tuple[int, Tensor] | None = None

    def tokens(self, number: int) -> Tensor:
        """Of window ``number``: (N, channels of a token, d, y', x')."""
        # Both passes ask for every window; where there is only one, it need not be computed twice.
        if self._last is None or self._last[0] != number:
            self._last = None
            self._last = number, self._network.tokens(self.grid.cut(self._image, number))
        return self._last[1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ComputedWindows:
        """The same with the image on another device."""
        return ComputedWindows(self._network, self.grid, self._image.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class _Sample:
    """What is drawn: a copy of a case, and its windows from ``start`` (z, y, x) on, counted in windows."""

    volume: VolumeCopy
    start: Triple
    case: tuple[Any, Any]
    """Its image and labels."""


@dataclass
class WindowLoader:
    """Endless batches ``{"data": windows, "target": labels, "keys": cases}``, as nnU-Net's loaders give them.

    Cases come in shuffled passes over all of them, each as a copy that is drawn, upside down or not. Where a volume has
    more windows than a patch, a block of neighbouring windows is drawn. What is drawn depends on the seed alone.
    """

    dataset: Any  # nnU-Net's, of preprocessed cases
    names: Sequence[str]  # cases
    network: DINOWindow  # without the wrappers of DDP
    patch: Triple  # voxels (z, y, x), rounded up to whole windows
    batch_size: int  # samples
    recipe: CopyRecipe  # of the copies; for validation ``PLAIN``
    cache: TokenCache | None  # of the tokens, prepared; None computes them
    seed: int | Sequence[int]  # what is drawn from; several numbers are one seed
    oversample_foreground: float  # share of the samples that hold foreground for certain, if the case has any
    labels: Any  # nnU-Net's label manager

    def __post_init__(self) -> None:
        self.names = sorted(self.names)
        if not self.names:
            raise NeurinoError("there is no case to load; look at splits_final.json of the preprocessed data set")
        if self.cache is not None and self.recipe.distinct > 1 and self.recipe != self.cache.recipe:
            raise ValueError(f"copies of {self.recipe}, but a cache of {self.cache.recipe}")
        self._random = np.random.default_rng(self.seed)
        self._to_come: list[str] = []
        self.grid = self.network.grid(padded_shape((1, 1, 1), self.patch, self.network.window))
        self._regions = None
        if self.labels.has_regions:
            regions = list(self.labels.foreground_regions)
            ignored = [] if self.labels.ignore_label is None else [self.labels.ignore_label]
            self._regions = ConvertSegmentationToRegionsTransform(regions=regions + ignored, channel_in_seg=0)
        if self.cache is not None:  # what is not there is missed now, and what is there stays
            for name, copy in product(self.names, range(self.recipe.distinct)):
                self.cache.open(name, copy)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        samples = [self._draw() for _ in range(self.batch_size)]
        return {
            "data": self._computed(samples) if self.cache is None else self._cached(samples, self.cache),
            "target": torch.stack([self._target(sample) for sample in samples]),
            "keys": [sample.volume.case for sample in samples],
        }

    # ---- drawing ----------------------------------------------------------------------------------------------------

    def _draw(self) -> _Sample:
        if not self._to_come:
            self._to_come = [self.names[place] for place in self._random.permutation(len(self.names))]
        name = self._to_come.pop()
        image, labels, _, properties = self.dataset.load_case(name)
        copy = int(self._random.integers(self.recipe.distinct))
        volume = VolumeCopy.of(name, copy, self.recipe, image.shape[1:], self.patch, self.network.window)
        if self.recipe.mirroring and self._random.random() < 0.5:
            volume = volume.turned_over()
        return _Sample(volume, self._start(volume, properties["class_locations"]), (image, labels))

    def _start(self, volume: VolumeCopy, class_locations: dict[Any, Any]) -> Triple:
        voxel = self._voxel(volume, class_locations)
        start = []
        counts = self.network.grid(volume.shape).counts
        for axis, (there, wanted) in enumerate(zip(counts, self.grid.counts, strict=True)):
            first, last = 0, there - wanted
            if voxel is not None:
                holds = int(voxel[axis]) // self.network.window[axis]
                first, last = max(first, holds - wanted + 1), min(last, holds)
            start.append(int(self._random.integers(first, last + 1)))
        return start[0], start[1], start[2]

    def _voxel(self, volume: VolumeCopy, class_locations: dict[Any, Any]) -> np.ndarray | None:
        """A voxel that the block must hold, z, y, x; drawn like nnU-Net's: first a class, then one of its voxels."""
        forced = self._random.random() < self.oversample_foreground
        there = [key for key, places in class_locations.items() if len(places) > 0]
        # nnU-Net keeps places of all classes together, ignored voxels left out: for cases without foreground.
        anywhere = (-1, *self.labels.all_labels)
        if forced:
            there = [key for key in there if key != anywhere] or there
        elif self.labels.ignore_label is not None:
            there = [key for key in there if key == anywhere]
        else:
            return None
        if not there:
            return None
        places = np.asarray(class_locations[there[int(self._random.integers(len(there)))]])[:, -3:]
        found: np.ndarray = volume.voxels(places)
        found = found[((found >= 0) & (found < volume.shape)).all(1)]  # a copy that was moved may have lost some
        return found[int(self._random.integers(len(found)))] if len(found) else None

    # ---- giving -----------------------------------------------------------------------------------------------------

    def _region(self, sample: _Sample) -> Region:
        z, y, x = (
            slice(first * window, first * window + length)
            for first, window, length in zip(sample.start, self.network.window, self.grid.shape, strict=True)
        )
        return z, y, x

    def _target(self, sample: _Sample) -> Tensor:
        labels = torch.from_numpy(sample.volume.labels(sample.case[1], self._region(sample)))
        return labels if self._regions is None else self._regions(segmentation=labels)["segmentation"]

    def _computed(self, samples: list[_Sample]) -> ComputedWindows:
        blocks = [sample.volume.image(sample.case[0])[(slice(None), *self._region(sample))] for sample in samples]
        return ComputedWindows(self.network, self.grid, torch.from_numpy(np.stack(blocks)))

    def _cached(self, samples: list[_Sample], cache: TokenCache) -> CachedWindows:
        arrays = [cache.open(sample.volume.case, sample.volume.number) for sample in samples]
        numbers = [self._numbers(sample) for sample in samples]
        return CachedWindows(self.grid, arrays, numbers, [sample.volume.upside_down for sample in samples])

    def _numbers(self, sample: _Sample) -> list[int]:
        """Which windows of the upright volume the windows of the block are."""
        counts = self.network.grid(sample.volume.shape).counts
        found = []
        for place in product(*map(range, self.grid.counts)):
            z, y, x = (first + n for first, n in zip(sample.start, place, strict=True))
            z = counts[0] - 1 - z if sample.volume.upside_down else z
            found.append((z * counts[1] + y) * counts[2] + x)
        return found
