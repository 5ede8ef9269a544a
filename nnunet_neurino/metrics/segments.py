"""Exact distances from points to a set of line segments, fast enough for trees of a million nodes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_neurino.swc import Tree

Floats = NDArray[np.float64]

_PIECE = 2.0  # longest piece that a segment is cut into, in units of the file
_MOST_PIECES = 200_000  # longer ones in trees with more cable than that
_UNLIKE, _MOST_GROUPS = 16.0, 8  # pieces are in one group if one is not so many times as long as another
_FIRST = 3
_CHUNK = 50_000  # points that a thread handles at a time
_PAIRS = 300_000  # of points and pieces, in each thread


def tree_segments(tree: Tree) -> tuple[Floats, Floats]:
    """Ends of all edges of ``tree``: (child (m, 3), parent (m, 3)), x, y, z, in the tree's unit.

    Nodes without an edge (a lone root, an orphan) are in no segment.
    """
    edges = tree.edges()
    return tree.xyz[edges[:, 0]].astype(np.float64), tree.xyz[edges[:, 1]].astype(np.float64)


def point_segment_distance(points: Floats, starts: Floats, ends: Floats) -> Floats:
    """Distances between points and segments, element by element with broadcasting over leading axes."""
    direction = ends - starts
    offset = points - starts
    squared = np.einsum("...i,...i->...", direction, direction)
    along = np.einsum("...i,...i->...", offset, direction)
    fraction = np.divide(along, squared, out=np.zeros_like(along), where=squared > 0)
    np.clip(fraction, 0.0, 1.0, out=fraction)
    offset = offset - fraction[..., None] * direction
    return np.sqrt(np.einsum("...i,...i->...", offset, offset))


def cut(starts: Floats, ends: Floats, longest: float) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Cut segments into equal pieces no longer than ``longest``: (piece starts, piece ends, index of segment)."""
    lengths = np.linalg.norm(ends - starts, axis=1)
    counts = np.maximum(np.ceil(lengths / longest), 1).astype(np.int64)
    owner = np.repeat(np.arange(len(starts)), counts)
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    direction = (ends - starts)[owner]
    share = counts[owner][:, None]
    return (
        starts[owner] + direction * (rank[:, None] / share),
        starts[owner] + direction * ((rank[:, None] + 1) / share),
        owner,
    )


class SegmentIndex:
    """Answers "how far is this point from the nearest segment?" exactly.

    Segments are cut into short pieces whose middles fill k-d trees. A point's distance to the k pieces with the nearest
    middles is computed exactly; k grows until the next middle is so far away that no piece beyond it can be nearer.
    Pieces of very different length are in different trees: one long edge would else make every piece a candidate.

    Args:
        starts: (m, 3) one end of each segment, m >= 1.
        ends: (m, 3) the other end.
    """

    def __init__(self, starts: Floats, ends: Floats) -> None:
        total = float(np.linalg.norm(ends - starts, axis=1).sum())
        longest = max(_PIECE, total / _MOST_PIECES)
        starts, ends, _ = cut(starts, ends, longest)
        relative = np.linalg.norm(ends - starts, axis=1) / longest
        group = np.minimum(np.floor(-np.log(np.maximum(relative, 1e-12)) / np.log(_UNLIKE)), _MOST_GROUPS)
        numbers, counts = np.unique(group, return_counts=True)
        self._groups = [_Group(starts[group == g], ends[group == g]) for g in numbers[np.argsort(-counts)]]

    def distance(self, points: Floats) -> Floats:
        """Distance of each point (n, 3) to the nearest segment."""
        parts = [points[first : first + _CHUNK] for first in range(0, len(points), _CHUNK)]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, max(len(parts), 1))) as pool:
            return np.concatenate([np.empty(0), *pool.map(self._distance, parts)])

    def _distance(self, points: Floats) -> Floats:
        best = np.full(len(points), np.inf)
        for group in self._groups:
            group.lower(best, points)
        return best


class _Group:
    """Pieces of segments of similar length."""

    def __init__(self, starts: Floats, ends: Floats) -> None:
        self._starts, self._ends = starts, ends
        self._reach = 0.5 * float(np.linalg.norm(ends - starts, axis=1).max())
        self._middles = cKDTree(0.5 * (starts + ends), balanced_tree=False)

    def lower(self, best: Floats, points: Floats) -> None:
        """Lower the distances ``best`` of points (n, 3), in place, to those of the nearest piece."""
        waiting = np.arange(len(points))
        k = min(_FIRST, len(self._starts))
        while len(waiting):
            parts = np.array_split(waiting, -(-len(waiting) * k // _PAIRS))
            waiting = np.concatenate([rows[~self._proven(best, points, rows, k)] for rows in parts])
            k = min(4 * k, len(self._starts))

    def _proven(self, best: Floats, points: Floats, rows: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
        """Lower ``best`` of some points by the k pieces with the nearest middles; whether no other can be nearer."""
        to_middle, nearest = self._middles.query(points[rows], k=np.arange(1, k + 1))
        exact = point_segment_distance(points[rows, None], self._starts[nearest], self._ends[nearest])
        best[rows] = np.minimum(best[rows], exact.min(axis=1))
        return (to_middle[:, -1] >= best[rows] + self._reach) | (k == len(self._starts))
