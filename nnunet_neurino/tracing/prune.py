"""Remove what is not a branch: spurs, and forks so close together that they are one."""

from __future__ import annotations

import numpy as np

from nnunet_neurino.tracing.lines import Lines, path_length

_ROUNDS = 20
_JAGGED = 3.0  # the surface of a mask is rough: what sticks out by less, in voxels of the finest axis, means nothing
_BLUNT = 5.0  # the tips of a flat end are shorter


def prune_spurs(lines: Lines, scale: float) -> Lines:
    """Cut side branches that stick out of their parent by less than ``scale`` times their own radius.

    A side branch starts in the middle of its parent, so that its length less the parent's radius is what sticks out.
    Of a fork's spurs the shortest goes first; the other may then be the end of the parent.
    """
    for _ in range(_ROUNDS):
        degree = lines.degree()
        doomed: dict[int, tuple[float, list[int]]] = {}
        for path in lines.branches():
            if degree[path[0]] == 1:
                path = path[::-1]
            if degree[path[0]] < 3 or degree[path[-1]] != 1:
                continue
            length = path_length(lines.points[path])
            own = float(np.median(lines.radii[path[1:]]))
            sticks_out = length - lines.radii[path[0]]
            if sticks_out < max(scale * own, _JAGGED * min(scale, 1.0)) or length < own:
                shortest = doomed.get(path[0])
                if shortest is None or sticks_out < shortest[0]:
                    doomed[path[0]] = (sticks_out, path[1:])
        if not doomed:
            return lines
        wanted = np.ones(len(lines.points), dtype=bool)
        for _, path in doomed.values():
            wanted[path] = False
        lines = lines.keep(wanted)
    return lines


def blunt_ends(lines: Lines) -> list[list[list[int]]]:
    """Where a neurite ends in several short tips: for each such end the paths to its tips, without the fork.

    A wave reaches the corners of a flat end one by one.
    """
    degree = lines.degree()
    tips: dict[int, list[list[int]]] = {}
    for path in lines.branches():
        if degree[path[0]] == 1:
            path = path[::-1]
        short = path_length(lines.points[path]) < max(_BLUNT, lines.radii[path[0]] + 0.5 * _BLUNT)
        if short and degree[path[0]] >= 3 and degree[path[-1]] == 1:
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
