"""One cell body, one neuron: what joins two cell bodies is cut."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nnunet_neurino.tracing.lines import Floats, Lines, lengths_along, way_between

_REACH = 8.0  # length of neurite before and behind a place that tells how much it bends there
_HERE = 2.0  # the same for how thin it is
_OUTSIDE = 1.3, 2.0  # a cell body ends at this times its radius plus this
_THIN = 20.0  # degrees that a place half as thick as the neurite around it counts for
_LEAST_BEND = 30.0  # where it bends by less two neurites hardly meet
_FEW = 6  # points that tell how thick a neurite is


def part_bodies(lines: Lines, bodies: Iterable[int]) -> Lines:
    """Cut the ways between cell bodies where they bend most, or where they enter the one whose end is thinner.

    Args:
        lines: centre lines.
        bodies: points in cell bodies.
    """
    bodies = sorted(bodies)
    neighbours = lines.neighbours()
    cut: set[tuple[int, int]] = set()
    while way := way_between(bodies, neighbours.__getitem__):
        a, b = _weakest(lines, neighbours, way)
        neighbours[a].remove(b)
        neighbours[b].remove(a)
        cut |= {(a, b), (b, a)}
    if not cut:
        return lines
    return Lines(lines.points, lines.radii, lines.edges[[(a, b) not in cut for a, b in lines.edges.tolist()]])


def _weakest(lines: Lines, neighbours: list[list[int]], way: list[int]) -> tuple[int, int]:
    """The edge of a way between two bodies at which to cut it."""
    points, radii = lines.points[way], lines.radii[way]
    walked = lengths_along(points)
    margin = _OUTSIDE[0] * radii + _OUTSIDE[1]
    inner = np.flatnonzero((walked > margin[0]) & (walked[-1] - walked > margin[-1]))
    if not len(inner):
        middle = len(way) // 2
        return way[middle - 1], way[middle]
    weak = [_bend(points, walked, i) + _THIN * _thin(radii, walked, i) for i in inner.tolist()]
    if max(weak) < _LEAST_BEND:
        starts, ends = (radii[near].mean() for near in (inner[:_FEW], inner[-_FEW:]))
        return (way[0], way[1]) if starts < ends else (way[-2], way[-1])
    at = int(inner[int(np.argmax(weak))])
    before, here, after = way[at - 1], way[at], way[at + 1]
    aside = [lines.points[p] - lines.points[here] for p in neighbours[here] if p not in (before, after)]
    # At a fork the two that go straight on stay together.
    back, onward = (_heading(points, walked, at, side) for side in (-1, 1))
    if aside and min(float(arm @ back) for arm in aside) < min(float(arm @ onward) for arm in aside):
        return here, after
    return before, here


def _heading(points: Floats, walked: Floats, at: int, side: int) -> Floats:
    """Unit vector from a point of a way to its mean over ``_REACH`` before (-1) or behind (1) it."""
    ahead = side * (walked - walked[at])
    near = points[(ahead > 0) & (ahead <= _REACH)]
    vector = (near.mean(axis=0) if len(near) else points[at + side]) - points[at]
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def _bend(points: Floats, walked: Floats, at: int) -> float:
    cosine = -float(_heading(points, walked, at, -1) @ _heading(points, walked, at, 1))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _thin(radii: Floats, walked: Floats, at: int) -> float:
    """How much thinner a place is than the neurite around it: 1 for half as thick."""
    away = np.abs(walked - walked[at])
    here, around = (float(np.median(radii[away <= reach])) for reach in (_HERE, _REACH))
    return float(np.log2(max(around, 0.1) / max(here, 0.1)))
