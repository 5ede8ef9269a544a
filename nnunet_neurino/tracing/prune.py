"""Remove what is not a branch: spurs, and forks so close together that they are one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from nnunet_neurino.tracing.lines import Lines, path_length

_ROUNDS = 20
_JAGGED = 3.0  # the surface of a mask is rough: what sticks out by less, in voxels of the finest axis, means nothing
_SLICE = 1.25  # and by less than this times a thick slice
_THICK = 4.0  # in neurites of this radius and more
_OVAL, _SURFACE = 1.15, 1.0  # the surface may be this times the radius, plus the last, away from the middle
_BLUNT = 5.0  # the tips of a flat end are shorter


def prune_spurs(lines: Lines, scale: float, coarsest: float = 1.0) -> Lines:
    """Cut side branches that stick out of their parent by less than ``scale`` times their own radius.

    What sticks out by less than the roughness of the mask's surface is cut, too; ``coarsest`` is the longest edge of a
    voxel in the unit of the lines.

    A side branch starts in the middle of its parent, so that its length less the parent's radius is what sticks out.
    Of a fork's spurs the shortest goes first; the other may then be the end of the parent.
    """
    jagged = max(_JAGGED, _SLICE * coarsest) * min(scale, 1.0)
    for _ in range(_ROUNDS):
        doomed: list[tuple[float, list[int]]] = []
        for path in _side_branches(lines):
            length = path_length(lines.points[path])
            own = float(np.median(lines.radii[path[1:]]))
            sticks_out = length - lines.radii[path[0]]
            if sticks_out < max(scale * own, jagged) or length < own:
                doomed.append((sticks_out, path))
        if not doomed:
            return lines
        lines = _without_first(lines, doomed)
    return lines


def prune_inside(lines: Lines) -> Lines:
    """Cut side branches that run inside the thick neurite or cell body that they leave.

    There the first and the last fronts of a wave break into patches, and a fork between these is itself near the
    surface and thin. What is inside follows from the balls around all other points of the piece. The thinnest branch
    of a fork goes first.
    """
    for _ in range(_ROUNDS):
        if not (lines.radii >= _THICK).any():
            return lines
        balls = _Balls(lines)
        inside = [path for path in _side_branches(lines) if balls.hold(path[1:])]
        if not inside:
            return lines
        lines = _without_first(lines, [(float(lines.radii[path[1:]].max()), path) for path in inside])
    return lines


class _Balls:
    """The balls around the points of thick neurites and cell bodies, as far as these reach."""

    def __init__(self, lines: Lines) -> None:
        self._points, self._piece = lines.points, lines.pieces()
        self._thick = np.flatnonzero(lines.radii >= _THICK)
        self._reach = _OVAL * lines.radii + _SURFACE
        self._furthest = float(self._reach[self._thick].max())
        self._tree = cKDTree(lines.points[self._thick])

    def hold(self, branch: list[int]) -> bool:
        """Whether each point of a branch is in the ball of a point of its piece that is not on the branch."""
        return all(self._holds(point, branch) for point in reversed(branch))

    def _holds(self, point: int, branch: list[int]) -> bool:
        near = self._thick[self._tree.query_ball_point(self._points[point], self._furthest)]
        near = near[(self._piece[near] == self._piece[point]) & ~np.isin(near, branch)]
        distance = np.linalg.norm(self._points[near] - self._points[point], axis=1)
        return bool((distance <= self._reach[near]).any())


def _side_branches(lines: Lines) -> Iterator[list[int]]:
    """Paths from a fork to a tip."""
    degree = lines.degree()
    for path in lines.branches():
        if degree[path[0]] == 1:
            path = path[::-1]
        if degree[path[0]] >= 3 and degree[path[-1]] == 1:
            yield path


def _without_first(lines: Lines, doomed: list[tuple[float, list[int]]]) -> Lines:
    """Cut of the branches (a number and a path from a fork) at each fork the one with the least number."""
    first: dict[int, tuple[float, list[int]]] = {}
    for number, path in doomed:
        if path[0] not in first or number < first[path[0]][0]:
            first[path[0]] = (number, path[1:])
    wanted = np.ones(len(lines.points), dtype=bool)
    for _, path in first.values():
        wanted[path] = False
    return lines.keep(wanted)


def blunt_ends(lines: Lines) -> list[list[list[int]]]:
    """Where a neurite ends in several short tips: for each such end the paths to its tips, without the fork.

    A wave reaches the corners of a flat end one by one.
    """
    degree = lines.degree()
    tips: dict[int, list[list[int]]] = {}
    for path in _side_branches(lines):
        if path_length(lines.points[path]) < max(_BLUNT, lines.radii[path[0]] + 0.5 * _BLUNT):
            tips.setdefault(path[0], []).append(path[1:])
    return [paths for fork, paths in tips.items() if len(paths) >= degree[fork] - 1]


def trim_blunt_ends(lines: Lines, ends: list[list[list[int]]]) -> Lines:
    """Of the tips of each of ``ends`` keep those that have been bridged since, or else the longest."""
    degree = lines.degree()
    wanted = np.ones(len(lines.points), dtype=bool)
    for paths in ends:
        free = sorted((path for path in paths if degree[path[-1]] == 1), key=len)
        for path in free[: len(free) - (len(free) == len(paths))]:
            wanted[path] = False
    return lines.keep(wanted)


def merge_close_forks(lines: Lines) -> Lines:
    """Make one fork of two that are joined by a stretch shorter than its radius."""
    for _ in range(_ROUNDS):
        degree = lines.degree()
        touched: set[int] = set()
        wanted = np.ones(len(lines.points), dtype=bool)
        goes_to = np.arange(len(lines.points))
        points = lines.points.copy()
        for path in sorted(lines.branches(), key=len):
            first, last = path[0], path[-1]
            if min(degree[first], degree[last]) < 3 or {first, last} & touched:
                continue
            if path_length(lines.points[path]) >= float(lines.radii[path].mean()):
                continue
            touched |= {first, last}
            wanted[path[1:]] = False
            goes_to[last] = first
            points[first] = 0.5 * (lines.points[first] + lines.points[last])
        if not touched:
            return lines
        edges = goes_to[lines.edges]
        edges = edges[edges[:, 0] != edges[:, 1]]
        lines = Lines(points, lines.radii, edges).keep(wanted)
    return lines
