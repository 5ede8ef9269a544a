"""Exact distances from points to a set of line segments, fast enough for trees of a million nodes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_neurino.swc import Tree

Floats = NDArray[np.float64]

_PIECE = 2.0  # longest piece that a segment is cut into for the KD-tree, in units of the file
_MOST_PIECES = 4_000_000
_FIRST = (3, 6, 12, 24)
_CHUNK = 100_000  # points that a thread handles at a time


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

    Segments are cut into short pieces whose midpoints fill a KD-tree. A point's distance to the k pieces with the
    nearest midpoints is computed exactly; k grows until the next midpoint is so far away that no piece beyond it
    can be nearer.

    Args:
        starts: (m, 3) one end of each segment, m >= 1.
        ends: (m, 3) the other end.
    """

    def __init__(self, starts: Floats, ends: Floats) -> None:
        total = float(np.linalg.norm(ends - starts, axis=1).sum())
        longest = max(_PIECE, total / _MOST_PIECES)
        self._starts, self._ends, self.owner = cut(starts, ends, longest)
        self._reach = 0.5 * float(np.linalg.norm(self._ends - self._starts, axis=1).max())
        self._tree = cKDTree(
            0.5 * (self._starts + self._ends), balanced_tree=False, compact_nodes=len(self.owner) < 200_000
        )

    def nearest(self, points: Floats) -> tuple[Floats, NDArray[np.int64]]:
        """Distance of each point (n, 3) to the nearest segment, and that segment's index."""
        distance = np.full(len(points), np.inf)
        piece = np.zeros(len(points), dtype=np.int64)
        parts = [slice(first, first + _CHUNK) for first in range(0, len(points), _CHUNK)]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, max(len(parts), 1))) as pool:
            first = self._enough(points[:: max(len(points) // 300, 1)])
            found_parts = pool.map(lambda part: self._nearest(points[part], first), parts)
            for part, found in zip(parts, found_parts, strict=True):
                distance[part], piece[part] = found
        return distance, self.owner[piece]

    def _enough(self, points: Floats) -> int:
        """A number of pieces that proves most points at the first go: far from all segments, many are equally near."""
        for k in _FIRST:
            if self._ask(points, min(k, len(self.owner)))[2].mean() >= 0.6:
                return k
        return _FIRST[-1]

    def _nearest(self, points: Floats, first: int) -> tuple[Floats, NDArray[np.int64]]:
        best = np.full(len(points), np.inf)
        winner = np.zeros(len(points), dtype=np.int64)
        open_points = np.arange(len(points))
        k = min(first, len(self.owner))
        while len(open_points):
            best[open_points], winner[open_points], proven = self._ask(points[open_points], k)
            open_points = open_points[~proven]
            k = min(4 * k, len(self.owner))
        return best, winner

    def _ask(self, points: Floats, k: int) -> tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]:
        """Distance to the nearest of the k pieces with the nearest middles, which it is, and whether that is proven."""
        to_middle, candidates = self._tree.query(points, k=np.arange(1, k + 1))
        exact = point_segment_distance(points[:, None], self._starts[candidates], self._ends[candidates])
        column = np.argmin(exact, axis=1)
        rows = np.arange(len(points))
        best = exact[rows, column]
        proven = (to_middle[:, -1] >= best + self._reach) | (k == len(self.owner))
        return best, candidates[rows, column], proven
