"""The form a neuron has while it is traced: points joined by undirected edges, without cycles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree

from nnunet_neurino.skeleton.graph import components

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WIDE = 24.0  # a loop of this length is no mere hole in a neurite, in voxels of the finest axis
_GIRTH = 6.3  # of a neurite, in its radii
_BORDER = 4.0  # a tip is this much more than its radius away from the border when it ends there


@dataclass(frozen=True)
class Lines:
    """Centre lines of neurites.

    Attributes:
        points: (n, 3) positions z, y, x in voxels of the finest axis.
        radii: (n,) in the same unit.
        edges: (m, 2) indices of joined points, each once. Wide loops (of neurites that cross twice) stay until
            crossings are taken apart; then :func:`without_cycles` breaks those that are left.
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
        return components(len(self.points), self.edges)

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
                path = [start, *onward(neighbours, start, following)]
                if path[0] < path[-1]:
                    paths.append(path)
        return paths

    def first_stretch(
        self, neighbours: Sequence[Sequence[int]], start: int, following: int, reach: float
    ) -> tuple[list[int], float]:
        """The points of :func:`onward` from ``start`` on until ``reach`` is walked, and the length walked."""
        path, walked = [start], 0.0
        for point in onward(neighbours, start, following):
            walked += float(np.linalg.norm(self.points[point] - self.points[path[-1]]))
            path.append(point)
            if walked >= reach:
                break
        return path, walked

    def keep(self, wanted: NDArray[np.bool_]) -> Lines:
        """Only the wanted points and the edges between them."""
        number = np.cumsum(wanted) - 1
        edges = self.edges[wanted[self.edges].all(axis=1)]
        return Lines(self.points[wanted], self.radii[wanted], number[edges].reshape(-1, 2))


def onward(neighbours: Sequence[Sequence[int]], start: int, following: int) -> Iterator[int]:
    """Points of a line that leaves ``start`` by ``following``, up to the first without exactly two neighbours."""
    before, here = start, following
    yield here
    while len(neighbours[here]) == 2:
        a, b = neighbours[here]
        before, here = here, b if a == before else a
        yield here


def tips_at_border(lines: Lines, size: Floats) -> NDArray[np.bool_]:
    """Which points are tips at the border of an image of ``size`` (3,) in the unit of the lines."""
    from_border = np.minimum(lines.points, size - 1 - lines.points).min(axis=1)
    return (lines.degree() <= 1) & (from_border <= lines.radii + _BORDER)


def without_cycles(lines: Lines) -> Lines:
    """Break every loop where it is thinnest."""
    thinnest = lines.radii[lines.edges].min(axis=1) if len(lines.edges) else np.empty(0)
    cost = 1.0 / np.maximum(thinnest, 1e-3) + np.arange(len(lines.edges)) * 1e-12
    return Lines(lines.points, lines.radii, lines.edges[cheapest_forest(lines.edges, cost, len(lines.points))])


def cheapest_forest(pairs: Ints, cost: Floats, n_points: int) -> NDArray[np.bool_]:
    """Which pairs (m, 2), each given once, to join so that all is connected without a cycle at the least cost."""
    low, high = np.sort(pairs, axis=1).T.astype(np.int64)
    forest = minimum_spanning_tree(csr_array((cost, (low, high)), shape=(n_points, n_points)))
    rows, columns = forest.nonzero()
    kept = np.minimum(rows, columns).astype(np.int64) * n_points + np.maximum(rows, columns)
    return np.isin(low * n_points + high, kept)


def with_wide_loops(points: Floats, radii: Floats, tree: Ints, closers: Ints) -> Ints:
    """The edges of a forest and those of ``closers`` (first come, first served) that close a wide loop.

    Narrow loops are holes and rough places of one neurite; a wide one means two ways from one place to another. Inside
    a thick neurite or a cell body there are no two ways: there a loop must also be longer than the girth.
    """
    neighbours: list[list[int]] = [[] for _ in range(len(points))]
    for a, b in tree.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    kept = []
    for (a, b), width in zip(closers.tolist(), _wide(points, radii, closers).tolist(), strict=True):
        if not _reaches(points, neighbours, a, b, width):
            neighbours[a].append(b)
            neighbours[b].append(a)
            kept.append((a, b))
    return np.concatenate([tree, np.array(kept, dtype=np.int64).reshape(-1, 2)])


def _wide(points: Floats, radii: Floats, closers: Ints) -> Floats:
    """From which length on a loop that each of ``closers`` (m, 2) closes is wide."""
    width = np.full(len(closers), WIDE)
    thick = np.flatnonzero(_GIRTH * radii > WIDE)
    if len(thick) and len(closers):
        tree, most = cKDTree(points[thick]), float(radii[thick].max())
        for row, ends in enumerate(points[closers]):
            for end in ends:
                near = thick[tree.query_ball_point(end, most + 1.0)]
                near = near[np.linalg.norm(points[near] - end, axis=1) <= radii[near] + 1.0]
                width[row] = max(width[row], _GIRTH * float(radii[near].max(initial=0.0)))
    return width


def _reaches(points: Floats, neighbours: list[list[int]], start: int, goal: int, limit: float) -> bool:
    """Whether a way along the lines from ``start`` to ``goal`` is shorter than ``limit``."""
    done: set[int] = set()
    waiting = [(0.0, start)]
    while waiting:
        walked, here = heappop(waiting)
        if here == goal:
            return True
        if here in done:
            continue
        done.add(here)
        for following in neighbours[here]:
            further = walked + math.dist(points[here], points[following])
            if further < limit and following not in done:
                heappush(waiting, (further, following))
    return False


def lengths_along(points: Floats) -> Floats:
    """Length of a polyline (n, 3) up to each of its points."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
