"""Centre lines of a mask as cheapest paths through its voxels (in the manner of TEASAR, Sato et al. 2000).

From the deepest voxel of each component the cheapest paths to all others are found, where a step costs its length
divided by the third power of the depth: cheap paths run along the middle. Of the voxels that no line covers, the one
that is the longest walk away gives the next path, up to where it meets a line. A voxel is covered if it lies in the
ball around a point of a line that reaches one voxel beyond the surface. A path that ends little beyond its parent's
surface is a spur and is left out. Where paths meet that came around a wide loop, the loop is closed. At last every
free end is cut back from the surface to the middle of its cap.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from nnunet_neurino.skeleton.neighbours import HALF_NEIGHBOURHOOD
from nnunet_neurino.tracing.lines import WIDE, Floats, Ints, Lines, onward, with_wide_loops
from nnunet_neurino.tracing.voxels import VoxelGraph

_POWER = 3  # of the depth by which a step is divided; 2 to 4 give the same lines
_BEYOND = 1.25  # how far the balls that cover voxels reach beyond the surface, in voxels (their middle edge)
_STEP = 1.75  # a step into the next thick slice is no longer than one across the corner of a cube
_NEIGHBOURHOOD = [*map(tuple, np.concatenate([HALF_NEIGHBOURHOOD, -HALF_NEIGHBOURHOOD]).tolist())]


def centre_lines(graph: VoxelGraph, prune: float, root: Floats | None = None) -> Lines:
    """The centre lines of every component of a voxel graph.

    Args:
        graph: the foreground.
        prune: a path that sticks out of its parent by less than this times its own radius is a spur.
        root: position (3,) near which the paths of its component begin.

    Returns:
        Lines whose points are voxels; wide loops are kept.
    """
    if not len(graph.voxels):
        return Lines(np.empty((0, 3)), np.empty(0), np.empty((0, 2), dtype=np.int64))
    seeds = _seeds(graph, root)
    weights = graph.lengths / graph.depth[graph.links].mean(axis=1) ** _POWER
    _, parent, _ = dijkstra(
        graph.weighted(weights), directed=False, indices=seeds, min_only=True, return_predecessors=True
    )
    parent = np.where(parent < 0, -1, parent).astype(np.int64)
    paths = _Paths(graph, parent, prune)
    for seed in seeds.tolist():
        paths.take([seed])
    is_end = np.ones(len(parent), dtype=bool)
    is_end[parent[parent >= 0]] = False
    ends = np.flatnonzero(is_end)
    for end in ends[np.argsort(-paths.walked[ends], kind="stable")].tolist():
        paths.add(end)
    paths.close_loops()
    return paths.lines(seeds)


def _seeds(graph: VoxelGraph, root: Floats | None) -> Ints:
    """The deepest voxel of each component; in that of the root the voxel nearest to it."""
    component = graph.components()
    order = np.lexsort((-graph.depth, component))
    seeds = order[np.searchsorted(component[order], np.arange(int(component.max()) + 1))].astype(np.int64)
    if root is not None:
        nearest = int(np.argmin(((graph.positions() - root) ** 2).sum(axis=1)))
        seeds[component[nearest]] = nearest
    return seeds


class _Paths:
    """The paths that were taken so far, and the voxels that they cover.

    Attributes:
        walked: (n,) length of the cheapest path from each voxel to its seed.
    """

    def __init__(self, graph: VoxelGraph, parent: Ints, prune: float) -> None:
        self._graph, self._parent, self._prune = graph, parent, prune
        self._beyond = _BEYOND * float(np.median(graph.spacing))
        self._positions = graph.positions()
        self._tree = cKDTree(self._positions)
        self._covered = np.zeros(len(parent), dtype=bool)
        self._taken = np.zeros(len(parent), dtype=bool)
        self._at: dict[tuple[int, ...], int] = {}  # the voxels that are taken, by their indices
        self._edges: list[tuple[int, int]] = []
        up = np.where(parent < 0, np.arange(len(parent)), parent)
        self.walked = _sum_up(up, np.linalg.norm(self._positions - self._positions[up], axis=1))

    def add(self, end: int) -> None:
        """Take the path from a voxel to the lines that are there, if it is no spur."""
        if self._covered[end]:
            return
        path = self._alongside_left_out(self._path(end))
        depth = self._graph.depth[path]
        step = float(np.linalg.norm(np.subtract(*self._positions[path[-2:]])))
        length = self.walked[end] - self.walked[path[-2]] + min(step, _STEP)
        if length - depth[-1] < self._prune * float(np.median(depth[:-1])):
            self._cover([end])
        else:
            self.take(path)

    def take(self, path: list[int]) -> None:
        """Make a path, whose last voxel may be taken already, part of the lines."""
        self._taken[path] = True
        self._at.update(zip(map(tuple, self._graph.voxels[path].tolist()), path, strict=True))
        self._edges += pairwise(path)
        self._cover(path)

    def _path(self, end: int) -> list[int]:
        path = [end]
        while not self._taken[path[-1]]:
            path.append(int(self._parent[path[-1]]))
        return path

    def _alongside_left_out(self, path: list[int]) -> list[int]:
        """A path that ends where it begins to run beside a line: in a neurite of even width two voxels are deepest."""
        last, beside = len(path) - 2, path[-1]
        while last > 0 and (other := self._beside(path[last - 1])) is not None:
            last, beside = last - 1, other
        return [*path[: last + 1], beside]

    def _beside(self, voxel: int) -> int | None:
        """A voxel of the lines that touches ``voxel``."""
        z, y, x = self._graph.voxels[voxel].tolist()
        for i, j, k in _NEIGHBOURHOOD:
            if (other := self._at.get((z + i, y + j, x + k))) is not None:
                return other
        return None

    def _cover(self, path: list[int]) -> None:
        """Cover the balls around a path, one each half radius."""
        depth = self._graph.depth
        centres, next_at = [], np.inf
        for voxel in path:
            if self.walked[voxel] <= next_at:
                centres.append(voxel)
                next_at = self.walked[voxel] - 0.5 * depth[voxel]
        for ball in self._tree.query_ball_point(self._positions[centres], depth[centres] + self._beyond):
            self._covered[ball] = True

    def close_loops(self) -> None:
        """Join paths that meet behind a wide loop, where they touch over the deepest voxels."""
        graph = self._graph
        points, edges = self._as_arrays()
        up = np.arange(len(points))
        up[edges[:, 0]] = edges[:, 1]
        _, self._parent, nearest = dijkstra(
            graph.weighted(graph.lengths), directed=False, indices=points, min_only=True, return_predecessors=True
        )
        number = np.empty(len(nearest), dtype=np.int64)
        number[points] = np.arange(len(points))
        ends = number[nearest][graph.links]
        rows = np.flatnonzero(ends[:, 0] != ends[:, 1])
        keys = ends[rows].min(axis=1) * len(points) + ends[rows].max(axis=1)
        pair, of_row = np.unique(keys, return_inverse=True)
        far = _distances(up, self._positions[points], np.stack(np.divmod(pair, len(points)), axis=1)) > WIDE
        rows, keys = rows[far[of_row]], keys[far[of_row]]
        deepest = np.argsort(-graph.depth[graph.links[rows]].min(axis=1), kind="stable")
        rows = rows[deepest[np.sort(np.unique(keys[deepest], return_index=True)[1])]]
        closed = with_wide_loops(self._positions[points], graph.depth[points], edges, ends[rows])[len(edges) :]
        links = {tuple(pair): row for pair, row in zip(ends[rows].tolist(), rows.tolist(), strict=True)}
        for pair in closed.tolist():
            a, b = graph.links[links[tuple(pair)]].tolist()
            self.take(self._path(a))
            self.take(self._path(b))
            self._edges.append((a, b))

    def lines(self, seeds: Ints) -> Lines:
        """The lines, each free end but ``seeds``, which are deep already, cut back to the middle of its cap."""
        graph = self._graph
        points, edges = self._as_arrays()
        lines = Lines(self._positions[points], np.maximum(graph.depth[points] - 0.5, 0.5), edges)
        voxels = graph.voxels[points]
        at_surface = (lines.degree() == 1) & ((voxels > 0) & (voxels < graph.size - 1)).all(axis=1)
        at_surface[np.searchsorted(points, seeds)] = False
        return lines.keep(~_caps(lines, np.flatnonzero(at_surface)))

    def _as_arrays(self) -> tuple[Ints, Ints]:
        """The voxels of the lines, and pairs of their rows that are joined."""
        points = np.flatnonzero(self._taken)
        return points, np.searchsorted(points, np.array(self._edges, dtype=np.int64).reshape(-1, 2))


def _caps(lines: Lines, tips: Ints) -> NDArray[np.bool_]:
    """The points between each of ``tips`` and the middle of its cap, which lies a radius behind it."""
    cap = np.zeros(len(lines.points), dtype=bool)
    neighbours = lines.neighbours()
    for tip in tips.tolist():
        walked, before = 0.0, tip
        for here in onward(neighbours, tip, neighbours[tip][0]):
            if len(neighbours[here]) != 2 or walked >= lines.radii[before]:
                break
            cap[before] = True
            walked += float(np.linalg.norm(lines.points[here] - lines.points[before]))
            before = here
    return cap


def _sum_up(up: Ints, values: Floats) -> Floats:
    """Sum of the values on the way from each row to its root, which is its own parent and has the value 0."""
    while (further := values[up]).any():  # pointer jumping: each round doubles the reach
        values = values + further
        up = up[up]
    return values


def _distances(up: Ints, points: Floats, pairs: Ints) -> Floats:
    """Distance along a forest, given by the parent of each row (roots: themselves), of pairs (m, 2) of rows."""
    height = _sum_up(up, np.linalg.norm(points - points[up], axis=1))
    level = _sum_up(up, (up != np.arange(len(up))).astype(np.float64))
    jumps = [up]
    while (jumps[-1][jumps[-1]] != jumps[-1]).any():
        jumps.append(jumps[-1][jumps[-1]])
    a = np.where(level[pairs[:, 0]] >= level[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    b = pairs.sum(axis=1) - a
    for k in reversed(range(len(jumps))):
        a = np.where(level[a] - level[b] >= 2**k, jumps[k][a], a)
    for jump in reversed(jumps):
        apart = jump[a] != jump[b]
        a, b = np.where(apart, jump[a], a), np.where(apart, jump[b], b)
    meeting = np.where(a == b, a, up[a])
    return height[pairs].sum(axis=1) - 2 * height[meeting]
