"""Generated volumes: neurons, their image and the exact mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.swc import Tree, rasterise
from nnunet_neurino.swc.tree import join_trees
from nnunet_neurino.synth.growth import grow_trees
from nnunet_neurino.synth.microscope import render
from nnunet_neurino.synth.settings import SynthSettings


@dataclass(frozen=True)
class SynthVolume:
    """A generated volume and its truth."""

    image: NDArray[np.uint8] | NDArray[np.uint16]  # uint8 or uint16, (z, y, x)
    mask: NDArray[np.uint8]  # the neurons (or the structure), uint8 0 and 1, (z, y, x)
    # one for each neuron, in voxels of the image (x, y, z), radii in in-plane voxels; none for the MR-like kind
    trees: tuple[Tree, ...]
    spacing: tuple[float, float, float]  # voxel size z, y, x in micrometres (millimetres for the MR-like kind)

    @property
    def tree(self) -> Tree:
        """All neurons as one tree with several roots, the content of one SWC file."""
        return join_trees(self.trees)


def generate(settings: SynthSettings | None = None, seed: int | Sequence[int] = 0) -> SynthVolume:
    """Grow neurons and take their picture. The same settings and seed give the same bytes.

    Args:
        settings: what to generate; see ``preset`` for named ones.
        seed: one or several whole numbers from 0 up, for example (seed of the data set, number of the case).

    Examples:
        >>> volume = generate(SynthSettings(shape=(16, 32, 32)), seed=1)
        >>> volume.image.shape, volume.image.dtype.name, int(volume.mask.max())
        ((16, 32, 32), 'uint8', 1)
    """
    settings = settings or SynthSettings()
    # Growth and microscope have streams of their own: another microscope takes pictures of the same neurons.
    growth, _ = _streams(seed)
    return photograph(grow_trees(settings, growth), settings, seed)


def photograph(trees: Sequence[Tree], settings: SynthSettings, seed: int | Sequence[int] = 0) -> SynthVolume:
    """Take the picture of given neurons, in voxels of the volume (x, y, z), radii in in-plane voxels."""
    _, microscope = _streams(seed)
    mask = rasterise(join_trees(trees), settings.shape, spacing=settings.voxel_size, mode="capsule")
    return SynthVolume(
        image=render(trees, settings, microscope),
        mask=mask.astype(np.uint8),
        trees=tuple(trees),
        spacing=settings.spacing,
    )


def _streams(seed: int | Sequence[int]) -> tuple[np.random.Generator, np.random.Generator]:
    growth, microscope = np.random.SeedSequence(seed).spawn(2)
    return np.random.default_rng(growth), np.random.default_rng(microscope)
