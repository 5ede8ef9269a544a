"""Which voxels of a sparse set touch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HALF_NEIGHBOURHOOD = np.array(
    [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0)]
)
"""The 13 steps (z, y, x) that, with their opposites, are the 26 neighbours."""


def neighbour_pairs(voxels: NDArray) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """All pairs of 26-neighbours in a set of voxels, each once.

    Args:
        voxels: distinct voxel positions (n, 3) in z, y, x.

    Returns:
        pairs (m, 2) of rows of ``voxels``, and (m,) which of the steps of ``HALF_NEIGHBOURHOOD`` leads from the first
        to the second.
    """
    if not len(voxels):
        return np.empty((0, 2), np.int32), np.empty(0, np.int8)
    low = voxels.min(axis=0) - 1
    padded = voxels.max(axis=0) + 2 - low
    strides = np.array([padded[1] * padded[2], padded[2], 1])
    flat = (voxels - low) @ strides
    row_of = np.full(int(padded.prod()), -1, np.int32)
    row_of[flat] = np.arange(len(voxels))
    pairs, steps = [], []
    for number, step in enumerate(HALF_NEIGHBOURHOOD @ strides):  # one by one: a tenth of the memory
        other = row_of[flat + step]
        first = np.flatnonzero(other >= 0).astype(np.int32)
        pairs.append(np.stack([first, other[first]], axis=1))
        steps.append(np.full(len(first), number, np.int8))
    return np.concatenate(pairs), np.concatenate(steps)
