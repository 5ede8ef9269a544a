"""One cell body, one neuron: neurites that run through another neuron's cell body, and what joins two cell bodies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import combinations

import numpy as np

from nnunet_neurino.tracing.crossings.arms import Network, arms_of, bend
from nnunet_neurino.tracing.crossings.candidates import Crossing
from nnunet_neurino.tracing.crossings.plausible import Piece
from nnunet_neurino.tracing.lines import Floats, Lines, lengths_along, way_between

# Logarithms of odds, from 11,000 pairs of neurites at cell bodies of generated neurons; bend in degrees, over 6 voxels.
_BASE, _BEND, _LEAST = -3.9, -0.035, -7.0

_MOST_LOOKS, _MOST_WORK = 100, 100_000  # sets of crossings that are looked at, and times the branches of the piece
_REACH = 8.0  # length of neurite before and behind a place that tells how much it bends there
_HERE = 2.0  # the same for how thin it is
_OUTSIDE = 1.3, 2.0  # a cell body ends at this times its radius plus this
_THIN = 20.0  # degrees that a place half as thick as the neurite around it counts for
_CUT_GAIN = 0.5  # what is better than a mere cut by less is not done
_LEAST_BEND = 30.0  # where it bends by less two neurites hardly meet
_FEW = 6  # points that tell how thick a neurite is


def crossings_at_bodies(network: Network) -> Iterator[Crossing]:
    """Ways to take a neurite of another neuron that runs through a cell body from it."""
    for body in sorted(network.bodies & network.leaving.keys()):
        arms = arms_of(network, [body], frozenset())
        own = [arm.branch for arm in arms]
        arms = [arm for arm in arms if own.count(arm.branch) == 1]
        for i, j in combinations(range(len(arms)), 2):
            rest = tuple(k for k in range(len(arms)) if k not in (i, j))
            odds = _BASE + _BEND * bend(arms[i], arms[j], 0)
            if rest and odds > _LEAST:
                yield Crossing(frozenset([body]), [body], frozenset(), arms, (i, j), rest, odds, True)


def with_bodies_apart(piece: Piece, crossings: list[Crossing], made: list[Crossing]) -> list[Crossing]:
    """Take more crossings apart, or others, until no two cell bodies are joined, if that leaves likelier neurons.

    One crossing alone may not part two cell bodies that are joined in several places, and then is not worth it.

    Args:
        piece: a connected piece.
        crossings: all that may be taken apart.
        made: those that are.

    Returns:
        The best set that was found; ``made`` if none is better.
    """
    best, value = made, piece.worth(made) + _CUT_GAIN
    waiting = [(-sum(crossing.odds for crossing in made), 0, made)]
    seen: set[frozenset[int]] = set()
    for _ in range(min(_MOST_LOOKS, _MOST_WORK // max(len(piece.branches), 1))):
        if not waiting:
            break
        now = heappop(waiting)[2]
        then = piece.worth(now)
        if then > value:
            best, value = now, then
        joining = _joining(piece, now)
        for crossing in crossings if joining else ():
            if crossing.forks.isdisjoint(joining) or any(crossing is other for other in now):
                continue
            after = [*(other for other in now if other.forks.isdisjoint(crossing.forks)), crossing]
            if (key := frozenset(map(id, after))) not in seen:
                seen.add(key)
                heappush(waiting, (-sum(crossing.odds for crossing in after), len(seen), after))
    return best


def _joining(piece: Piece, made: list[Crossing]) -> frozenset[int]:
    """The forks on a way between two cell bodies if the crossings ``made`` are taken apart."""
    links = piece.links(made)
    at: dict[int, list[int]] = {}
    for number, link in enumerate(links):
        for branch in link.branches:
            at.setdefault(branch, []).append(number)

    # Links have the numbers from 0 up, branches those from -1 down.
    def around(place: int) -> list[int]:
        return [-1 - branch for branch in links[place].branches] if place >= 0 else at.get(-1 - place, [])

    bodies = [number for number, link in enumerate(links) if link.body]
    bodies += [-1 - branch for branch in piece.branches if piece.somata[branch]]
    return frozenset(fork for place in way_between(bodies, around) if place >= 0 for fork in links[place].forks)


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
