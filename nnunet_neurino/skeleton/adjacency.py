"""Which voxels of a sparse set touch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

HALF_NEIGHBOURHOOD = np.array(
    [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) > (0, 0, 0)]
)
"""The 13 steps (z, y, x) that, with their opposites, are the 26 neighbours."""


def neighbour_pairs(voxels: NDArray, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pairs of 26-neighbours in a set of voxels, each once.

    Args:
        voxels: distinct voxel positions (n, 3) in z, y, x.
        shape: shape (z, y, x) of the volume.

    Returns:
        pairs (m, 2) of rows of ``voxels`` and the step (m, 3) from the first to the second.
    """
    padded = tuple(s + 2 for s in shape)
    strides = np.array([padded[1] * padded[2], padded[2], 1])
    flat = (voxels + 1) @ strides
    row_of = np.full(int(np.prod(padded)), -1, np.int32)
    row_of[flat] = np.arange(len(voxels))
    others = row_of[flat[None, :] + (HALF_NEIGHBOURHOOD @ strides)[:, None]]  # (13, n)
    which, first = np.nonzero(others >= 0)
    return np.stack([first, others[which, first].astype(np.int64)], 1), HALF_NEIGHBOURHOOD[which]


def sparse_adjacency(n: int, pairs: NDArray, weights: NDArray | None = None) -> sparse.csr_matrix:
    """Symmetric adjacency matrix (n, n) of undirected ``pairs`` (m, 2), with weights (m,) or ones."""
    weights = np.ones(len(pairs)) if weights is None else np.asarray(weights, float)
    rows = np.concatenate([pairs[:, 0], pairs[:, 1]])
    columns = np.concatenate([pairs[:, 1], pairs[:, 0]])
    return sparse.csr_matrix((np.concatenate([weights, weights]), (rows, columns)), shape=(n, n))


def drop_shortcuts(n: int, pairs: NDArray, steps: NDArray) -> NDArray[np.bool_]:
    """Which pairs stay when each triangle of touching voxels loses its longest side.

    Diagonal contacts beside a face contact (every corner and crossing has them) are no branches. Ties go to the later
    pair, so that exactly one side of every triangle goes and no component falls apart.

    Args:
        n: number of voxels.
        pairs: (m, 2) from :func:`neighbour_pairs`.
        steps: (m, 3) from :func:`neighbour_pairs`.

    Returns:
        Boolean array (m,), true for the pairs to keep.
    """
    rank = np.empty(len(pairs), np.int64)
    rank[np.argsort((steps**2).sum(1), kind="stable")] = np.arange(1, len(pairs) + 1)
    ranks = sparse_adjacency(n, pairs, rank)
    ranks.sort_indices()
    keep = np.ones(len(pairs), bool)
    degree = np.diff(ranks.indptr)
    most = int(degree[pairs[:, 0]].max(initial=0))  # of those that come first: without any the matrix gives no array
    for slot in range(most):  # at most 26 rounds: the slot-th neighbour w of u, for all pairs
        has = np.flatnonzero(degree[pairs[:, 0]] > slot)
        at = ranks.indptr[pairs[has, 0]] + slot
        between, left = ranks.indices[at], ranks.data[at]
        right = np.asarray(ranks[pairs[has, 1], between]).ravel()
        keep[has[(right > 0) & (np.maximum(left, right) < rank[has])]] = False
    return keep
