"""Graphs as arrays: ``pairs`` (m, 2) of points 0 to n - 1 that are joined; and forests as the row of each parent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

Ints = NDArray[np.int64]


def adjacency(n: int, pairs: NDArray, weights: NDArray | None = None) -> sparse.csr_matrix:
    """Symmetric matrix (n, n) of undirected pairs, each given once, with a weight each or 1."""
    both = np.concatenate([pairs, pairs[:, ::-1]])
    values = np.ones(len(both), np.int8) if weights is None else np.concatenate([weights, weights])
    return sparse.csr_matrix((values, (both[:, 0], both[:, 1])), shape=(n, n))


def components(n: int, pairs: NDArray) -> Ints:
    """Number (n,), from 0, of the connected component of each point."""
    half = sparse.csr_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return csgraph.connected_components(half, directed=False)[1].astype(np.int64)


def search(links: sparse.csr_matrix, starts: NDArray) -> tuple[Ints, Ints]:
    """Breadth-first search from all of ``starts`` (rows) at once.

    Args:
        links: symmetric adjacency matrix (n, n).
        starts: rows, each once.

    Returns:
        The rows that are reached, nearest first, and for each row (n,) the one from which it is, -1 for the starts and
        for what is not reached.
    """
    n = links.shape[0]
    # A point n from which the starts are one step away makes one search of many.
    indices = np.concatenate([links.indices, starts]).astype(np.int32)
    indptr = np.append(links.indptr, len(indices)).astype(np.int32)
    rooted = sparse.csr_matrix((np.ones(len(indices), np.int8), indices, indptr), shape=(n + 1, n + 1))
    order, before = csgraph.breadth_first_order(rooted, n, directed=True, return_predecessors=True)
    before = before[:n].astype(np.int64)
    return order[1:].astype(np.int64), np.where((before < 0) | (before == n), -1, before)


def depths(parents: NDArray) -> Ints:
    """Number of edges (n,) between every row and its root, for rows of parents (-1 for a root) without a cycle."""
    jump = np.where(parents < 0, np.arange(len(parents)), parents)
    depth = (parents >= 0).astype(np.int64)
    while (further := depth[jump]).any():  # pointer jumping: each round doubles the reach
        depth = depth + further
        jump = jump[jump]
    return depth


def tops(parents: NDArray) -> Ints:
    """Root (n,) of every row; rows that lead into a cycle end on some row of the cycle."""
    top = np.where(parents < 0, np.arange(len(parents)), parents)
    for _ in range(max(len(parents), 1).bit_length()):
        following = top[top]
        if np.array_equal(following, top):
            break
        top = following
    return top
