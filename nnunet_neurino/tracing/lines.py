"""The form a neuron has while it is traced: points joined by undirected edges, without cycles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BORDER = 4.0  # a tip is this much more than its radius away from the border when it ends there


@dataclass(frozen=True)
class Lines:
    """Centre lines of neurites.

    Attributes:
        points: (n, 3) positions z, y, x in voxels of the finest axis.
        radii: (n,) in the same unit.
        edges: (m, 2) indices of joined points; no cycles.
    """

    points: Floats
    radii: Floats
    edges: Ints

    def degree(self) -> Ints:
        """Number of neighbours of each point."""
        return np.bincount(self.edges.ravel(), minlength=len(self.points))

    def neighbours(self) -> list[list[int]]:
        """Neighbours of each point."""
        lists: list[list[int]] = [[] for _ in range(len(self.points))]
        for a, b in self.edges.tolist():
            lists[a].append(b)
            lists[b].append(a)
        return lists

    def pieces(self) -> Ints:
        """Number of the connected piece of each point."""
        n = len(self.points)
        links = coo_array((np.ones(len(self.edges)), (self.edges[:, 0], self.edges[:, 1])), shape=(n, n))
        return connected_components(links, directed=False)[1].astype(np.int64)

    def lengths(self) -> Floats:
        """Length of each edge."""
        return np.linalg.norm(self.points[self.edges[:, 0]] - self.points[self.edges[:, 1]], axis=1)

    def branches(self) -> list[list[int]]:
        """Paths of points between points that do not have exactly two neighbours, both ends included."""
        neighbours = self.neighbours()
        paths = []
        for start, around in enumerate(neighbours):
            if len(around) == 2:
                continue
            for following in around:
                path = [start, following]
                while len(neighbours[path[-1]]) == 2:
                    a, b = neighbours[path[-1]]
                    path.append(b if a == path[-2] else a)
                if path[0] < path[-1]:
                    paths.append(path)
        return paths

    def keep(self, wanted: NDArray[np.bool_]) -> Lines:
        """Only the wanted points and the edges between them."""
        number = np.cumsum(wanted) - 1
        edges = self.edges[wanted[self.edges].all(axis=1)]
        return Lines(self.points[wanted], self.radii[wanted], number[edges].reshape(-1, 2))

    def parents(self, roots: Ints) -> tuple[Ints, Ints]:
        """Direct all edges away from ``roots`` (one a piece): (points in order, parents first; parent or -1)."""
        n = len(self.points)
        from_all = np.stack([np.full(len(roots), n), roots], axis=1)  # an extra point that joins all roots
        both = np.concatenate([self.edges, from_all])
        links = coo_array((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(n + 1, n + 1)).tocsr()
        order, parents = breadth_first_order(links, n, directed=False)
        parent = np.where(parents[:n] == n, -1, parents[:n]).astype(np.int64)
        return order[1:].astype(np.int64), parent


def tips_at_border(lines: Lines, size: Floats) -> NDArray[np.bool_]:
    """Which points are tips at the border of an image of ``size`` (3,) in the unit of the lines."""
    from_border = np.minimum(lines.points, size - 1 - lines.points).min(axis=1)
    return (lines.degree() <= 1) & (from_border <= lines.radii + _BORDER)


def path_length(points: Floats) -> float:
    """Length of a polyline (n, 3)."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
