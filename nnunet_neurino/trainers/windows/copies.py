"""Augmented copies of a case that are the same whenever they are made, so that their tokens can be kept.

Copy 0 is the case as it is. The others are flipped and turned in plane, moved by parts of a window and changed in
intensity, each drawn from the case's name and the copy's number. A frozen 2D network sees another image in each: each
has tokens of its own. Only turning the volume upside down leaves the slices as they are, and is drawn anew at every
step.

Intensities are changed after ``brightness`` has brought them to 0 to 1: it would undo most of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.networks.slice_encoder import brightness
from nnunet_neurino.networks.window_grid import Region

# As strong as nnU-Net's: its noise has up to 0.1 of an image's standard deviation, of which brightness spans some four.
GAMMA = (0.7, 1.5)
CONTRAST = (0.75, 1.25)
MULTIPLIER = (0.75, 1.25)
NOISE = 0.03
_SHARE = 0.5
"""Of the copies, for each change but gamma, which every one has."""


@dataclass(frozen=True)
class CopyRecipe:
    """How copies differ."""

    copies: int = 4  # how many, the case itself included
    mirroring: bool = True  # flips; without them there are no turns either
    quarter_turns: bool = True  # turns by 90 degrees in plane, for images as fine along y as along x and square patches
    intensity: bool = True  # gamma, contrast, brightness and noise
    # moves by up to half a window along each axis, and no more than a quarter of the volume; what leaves the volume is
    # lost. Without them the decoder learns where in its window a structure of fixed place lies, and fails in
    # prediction, where windows that overlap lie elsewhere
    shifts: bool = True

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise NeurinoError(f"copies {self.copies}: expected 1 or more (1: the volumes as they are)")

    @property
    def distinct(self) -> int:
        """How many copies there are that differ from one another."""
        return self.copies if self.intensity or self.shifts else min(self.copies, len(self.poses))

    @property
    def poses(self) -> list[Pose]:
        """The flips and turns there are, none of them first."""
        if not self.mirroring:
            return [Pose()]
        both = (False, True)
        return [Pose(t, y, x) for t in (both if self.quarter_turns else both[:1]) for y in both for x in both]

    def pose(self, case: str, copy: int) -> Pose:
        """Of a copy: each case goes through all poses, in an order of its own, before one comes again."""
        poses = self.poses
        turn, place = divmod(copy, len(poses))
        if turn == 0:
            poses = [poses[0], *_shuffled(poses[1:], case, turn)]
        else:
            poses = _shuffled(poses, case, turn)
        return poses[place]


PLAIN = CopyRecipe(copies=1, mirroring=False, quarter_turns=False, intensity=False, shifts=False)
"""Cases as they are, for validation: not even upside down."""


@dataclass(frozen=True)
class Pose:
    """In plane: first y and x may change places, then each may be flipped. Quarter turns are among the eight."""

    swapped: bool = False
    flip_y: bool = False
    flip_x: bool = False


@dataclass(frozen=True)
class VolumeCopy:
    """One copy of a case: how it lies, and its image and labels.

    The volume is flipped and turned, then continued on all sides to the size that it must have, and at last, perhaps,
    turned upside down.
    """

    case: str  # its name
    number: int  # of the copy; 0 is the case as it is
    source: Triple  # voxels (z, y, x) of the case
    shape: Triple  # voxels (z, y, x) of the copy
    pose: Pose  # how it lies in plane
    recipe: CopyRecipe  # of all copies
    shift: Triple = (0, 0, 0)  # voxels (z, y, x) by which it lies off the middle
    upside_down: bool = False  # whether z is flipped

    @classmethod
    def of(
        cls, case: str, number: int, recipe: CopyRecipe, source: Sequence[int], patch: Triple, window: Triple
    ) -> VolumeCopy:
        """Copy ``number`` of a case of ``source`` (z, y, x) voxels: at least a patch, and whole windows."""
        pose = recipe.pose(case, number)
        z, y, x = (int(n) for n in source)
        turned = (z, x, y) if pose.swapped else (z, y, x)
        shape = padded_shape(turned, patch, window)
        shift = _shift(case, number, shape, window) if number and recipe.shifts else (0, 0, 0)
        return cls(case, number, (z, y, x), shape, pose, recipe, shift)

    def turned_over(self) -> VolumeCopy:
        """The same upside down."""
        return replace(self, upside_down=not self.upside_down)

    def image(self, image: Any) -> np.ndarray:
        """Brightness from 0 to 1, (C, z, y, x) float32, of the copy of an image (C, z, y, x).

        Args:
            image: as nnU-Net preprocessed it, an array or anything that gives one when sliced.
        """
        upright = replace(self, upside_down=False).place(image, dtype=np.dtype(np.float32))
        found: np.ndarray = brightness(torch.from_numpy(upright)[None])[0].numpy()
        if self.number and self.recipe.intensity:
            found = change_intensity(found, upright != 0, _generator(self.case, "intensity", self.number))
        return np.ascontiguousarray(found[:, ::-1]) if self.upside_down else found

    def labels(self, labels: Any, region: Region | None = None) -> np.ndarray:
        """Labels (c, z, y, x) int16 of the copy or a region of it; nnU-Net's -1 (outside) is background."""
        return np.maximum(self.place(labels, region, np.dtype(np.int16)), 0)

    def voxels(self, places: np.ndarray) -> np.ndarray:
        """Where voxels (n, 3) z, y, x of the case lie in the copy; some may have left it."""
        z, y, x = np.asarray(places).T
        if self.pose.swapped:
            y, x = x, y
        low = self._before
        y = self._turned[1] - 1 - y if self.pose.flip_y else y
        x = self._turned[2] - 1 - x if self.pose.flip_x else x
        z = z + low[0]
        return np.stack([self.shape[0] - 1 - z if self.upside_down else z, y + low[1], x + low[2]], axis=1)

    def place(self, volume: Any, region: Region | None = None, dtype: np.dtype | None = None) -> np.ndarray:
        """The copy (c, z, y, x), or a region of it, of a volume (c, z, y, x): moved only, with zeros around it.

        Only the part of the volume that is needed is read.
        """
        wanted = [(0, n) for n in self.shape] if region is None else [(place.start, place.stop) for place in region]
        target = np.zeros((volume.shape[0], *(stop - start for start, stop in wanted)), dtype or volume.dtype)
        if self.upside_down:
            start, stop = wanted[0]
            wanted[0] = (self.shape[0] - stop, self.shape[0] - start)
        known, into = [], []
        for (start, stop), before, length in zip(wanted, self._before, self._turned, strict=True):
            first, last = max(start - before, 0), min(stop - before, length)
            if first >= last:
                return target
            known.append((first, last))
            into.append(slice(first + before - start, last + before - start))
        for axis, flipped in ((1, self.pose.flip_y), (2, self.pose.flip_x)):
            if flipped:
                first, last = known[axis]
                known[axis] = (self._turned[axis] - last, self._turned[axis] - first)
        if self.pose.swapped:
            known[1], known[2] = known[2], known[1]
        piece = np.asarray(volume[(slice(None), *(slice(*ends) for ends in known))])
        if self.pose.swapped:
            piece = piece.swapaxes(2, 3)
        piece = piece[:, :, :: -1 if self.pose.flip_y else 1, :: -1 if self.pose.flip_x else 1]
        # A view of the target that is upright.
        upright = target[:, ::-1] if self.upside_down else target
        upright[(slice(None), *into)] = piece
        return target

    @property
    def _turned(self) -> Triple:
        z, y, x = self.source
        return (z, x, y) if self.pose.swapped else (z, y, x)

    @property
    def _before(self) -> Triple:
        """Zeros in front of the volume; as in nnU-Net's prediction, an odd one lies behind it. Negative: lost ones."""
        sizes = zip(self.shape, self._turned, self.shift, strict=True)
        z, y, x = ((wide - n) // 2 + moved for wide, n, moved in sizes)
        return z, y, x


def padded_shape(shape: Sequence[int], patch: Sequence[int], window: Sequence[int]) -> Triple:
    """The smallest (z, y, x) that is no smaller than the volume and the patch along any axis, and whole windows."""
    z, y, x = (-(-max(n, p) // w) * w for n, p, w in zip(shape, patch, window, strict=True))
    return z, y, x


def change_intensity(image: np.ndarray, known: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Gamma, contrast, brightness and noise of each channel, as drawn.

    Args:
        image: (C, z, y, x) from 0 to 1.
        known: of the same shape; elsewhere there is no image, and therefore no noise.
        random: what is drawn from.

    Returns:
        (C, z, y, x) float32 from 0 to 1.
    """
    changed = np.empty(image.shape, np.float32)
    spread = random.uniform(0, NOISE)
    noisy = random.random() < _SHARE
    for channel, (values, inside) in enumerate(zip(image, known, strict=True)):
        # Half of the exponents brighten.
        exponent = random.uniform(GAMMA[0], 1) if random.random() < 0.5 else random.uniform(1, GAMMA[1])
        found = np.power(values, np.float32(exponent), dtype=np.float32)
        if random.random() < _SHARE:
            mean = np.float32(found[inside].mean(dtype=np.float64) if inside.any() else 0)
            found = (found - mean) * np.float32(random.uniform(*CONTRAST)) + mean
        if random.random() < _SHARE:
            found = found * np.float32(random.uniform(*MULTIPLIER))
        if noisy:
            noise = random.standard_normal(found.shape, dtype=np.float32) * np.float32(spread)
            found = found + np.where(inside, noise, np.float32(0))
        np.clip(found, 0, 1, out=changed[channel])
    return changed


def _shift(case: str, number: int, shape: Triple, window: Triple) -> Triple:
    random = _generator(case, "shift", number)
    most = [min(w // 2, n // 4) for n, w in zip(shape, window, strict=True)]
    z, y, x = (int(random.integers(-m, m + 1)) for m in most)
    return z, y, x


def _generator(case: str, *purpose: str | int) -> np.random.Generator:
    text = "\0".join(map(str, (case, *purpose)))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def _shuffled(poses: list[Pose], case: str, turn: int) -> list[Pose]:
    return [poses[place] for place in _generator(case, "poses", turn).permutation(len(poses))]
