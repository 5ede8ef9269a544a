"""Where two neurites may cross: every way to take a fork, or some forks close together, apart, with its odds.

In a mask neurites that cross are one component. Where they do, four arms meet within about a neurite's thickness and
form two pairs that each go straight on; beside a fork five arms meet; where a neurite ends on another one, three. Each
way to take such a zone apart lets one pair of arms run through and leaves the rest together. What it looks like there
gives it odds; whether it is done depends on what it makes of the neurons (see ``parting``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nnunet_neurino.tracing.crossings.arms import REACHES, Arm, Network, arms_of, bend
from nnunet_neurino.tracing.lines import Floats, path_length

_LINK = 3.0, 12.0  # forks nearer than this times the radius plus this may be one crossing
_BRIDGE = 3.0, 1.5  # a longer step is a bridge, and all but this is no part of what two neurites share
_MOST_FORKS = 3
_STUB = 5.0  # a shorter free arm of a crossing of four others is its roughness
_MOST_ARMS = 6
_LEAST_ODDS = -2.0, -2.0  # of a neurite that ends on another one, and of two that cross

# Logarithms of odds, fitted to 54,000 ways of generated neurons whose truth is known; bends in degrees, here (over 6
# voxels) and at large (over 24).
_BASE = {4: -0.75, 5: -2.15, 6: -2.65}
_BEND, _MARGIN = (-0.007, -0.019), (0.014, 0.015)
_RADIUS, _LENGTH, _SHARED = -1.25, 0.2, -0.15
_MOST_SHARED = 12.0
_STEEPEST = 0.15  # sine of half the least angle at which neurites cross and not run side by side
_END_BASE, _END_BEND, _END_ANGLE = -3.76, -0.032, (0.044, 0.021)
_END_THICK, _END_RADIUS = 0.93, -1.66


@dataclass(frozen=True)
class Crossing:
    """A way to take a zone apart.

    Attributes:
        forks: forks of the zone.
        zone: points of the zone.
        inner: branches inside the zone.
        arms: what leaves the zone.
        through: numbers of the two arms that run through.
        rest: numbers of the other arms.
        odds: logarithm of the odds that the two are another neuron than the rest, by what it looks like here.
        body: whether the zone is a cell body, which the rest belongs to.
    """

    forks: frozenset[int]
    zone: list[int]
    inner: frozenset[int]
    arms: list[Arm]
    through: tuple[int, int]
    rest: tuple[int, ...]
    odds: float
    body: bool = False


def crossings_in(network: Network) -> list[Crossing]:
    """All ways to take zones outside cell bodies apart that are not out of the question."""
    found = []
    for forks, zone, inner in _zones(network):
        arms, zone, inner = _without_stubs(network, arms_of(network, zone, inner), zone, inner)
        if len({arm.branch for arm in arms}) < len(arms):
            continue
        if not 3 <= len(arms) <= _MOST_ARMS:
            continue
        bends = np.zeros((len(REACHES), len(arms), len(arms)))
        for reach in range(len(REACHES)):
            for i, j in combinations(range(len(arms)), 2):
                bends[reach, i, j] = bends[reach, j, i] = bend(arms[i], arms[j], reach)
        shared = sum(_shared(network.lines.points[network.branches[number]]) for number in inner)
        for through, rest in _ways(len(arms)):
            if len(rest) == 1:
                odds = _end_odds(arms, bends, through, rest[0])
            else:
                odds = _cross_odds(arms, bends, shared, through, rest)
            if odds > _LEAST_ODDS[len(rest) > 1]:
                found.append(Crossing(forks, zone, inner, arms, through, rest, odds))
    return found


def _zones(network: Network) -> Iterator[tuple[frozenset[int], list[int], frozenset[int]]]:
    """Connected sets of up to three forks close together, outside cell bodies: (forks, points, inner branches)."""
    lines = network.lines
    near: dict[int, list[tuple[int, int]]] = {}
    for number, path in enumerate(network.branches):
        first, last = path[0], path[-1]
        if not (first in network.leaving and last in network.leaving) or {first, last} & network.bodies:
            continue
        if path_length(lines.points[path]) <= _LINK[0] * float(np.median(lines.radii[path])) + _LINK[1]:
            near.setdefault(first, []).append((last, number))
            near.setdefault(last, []).append((first, number))
    seen = set()
    waiting = [(frozenset([fork]), frozenset[int]()) for fork in network.leaving if fork not in network.bodies]
    while waiting:
        forks, inner = waiting.pop()
        if (forks, inner) in seen:
            continue
        seen.add((forks, inner))
        if sum(len(network.leaving[fork]) for fork in forks) - 2 * len(inner) > _MOST_ARMS:
            continue
        yield forks, sorted({point for number in inner for point in network.branches[number]} | forks), inner
        if len(forks) < _MOST_FORKS:
            for fork in forks:
                waiting += [(forks | {other}, inner | {by}) for other, by in near.get(fork, ()) if other not in forks]


def _without_stubs(
    network: Network, arms: list[Arm], zone: list[int], inner: frozenset[int]
) -> tuple[list[Arm], list[int], frozenset[int]]:
    """Arms, zone and inner branches, with what merely sticks out of a crossing counted to the zone."""
    lines = network.lines
    stubs = {}
    for arm in arms:
        path = network.branches[arm.branch]
        if path_length(lines.points[path]) < _STUB and 1 in (len(network.neighbours[p]) for p in (path[0], path[-1])):
            stubs[arm.branch] = path
    if not stubs or len(arms) - len(stubs) < 4:
        return arms, zone, inner
    zone = sorted({*zone, *(point for path in stubs.values() for point in path)})
    return [arm for arm in arms if arm.branch not in stubs], zone, inner | set(stubs)


def _ways(count: int) -> Iterator[tuple[tuple[int, int], tuple[int, ...]]]:
    """Ways to let two of ``count`` arms run through."""
    for through in combinations(range(count), 2):
        if count == 4 and through[0] > 0:  # the other pair's turn has been
            return
        yield through, tuple(i for i in range(count) if i not in through)


def _shared(points: Floats) -> float:
    """Length of a line without bridges."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return float(np.where(steps > _BRIDGE[0], _BRIDGE[1], steps).sum())


def _cross_odds(
    arms: list[Arm], bends: Floats, shared: float, through: tuple[int, int], rest: tuple[int, ...]
) -> float:
    """Two pairs that go straight on, and no other two of the same four arms nearly as straight.

    Two neurites share no more than the length over which, at their angle, their masks touch.
    """
    i, j = through
    a, b = min(combinations(rest, 2), key=lambda pair: float(bends[:, pair[0], pair[1]].sum()))
    both = bends[:, i, j] + bends[:, a, b]
    alternative = np.minimum(bends[:, i, a] + bends[:, j, b], bends[:, i, b] + bends[:, j, a])
    radii = [arms[k].radius for k in (i, j, a, b)]
    unlike = abs(math.log(radii[0] / radii[1])) + abs(math.log(radii[2] / radii[3]))
    expected = (0.5 * sum(radii) + 1.0) / max(_half_angle(arms, i, j, a, b), _STEEPEST)
    return (
        _BASE[len(arms)]
        + float(_BEND @ both)
        + float(_MARGIN @ (alternative - both))
        + _RADIUS * unlike
        + _LENGTH * min(min(arms[k].length for k in (i, j, a, b)), 8.0)
        + _SHARED * min(max(shared - expected, 0.0), _MOST_SHARED)
    )


def _half_angle(arms: list[Arm], i: int, j: int, a: int, b: int) -> float:
    """Sine of half the angle between a neurite that runs along two arms and one that runs along two others."""
    one, other = (arms[p].directions[-1] - arms[q].directions[-1] for p, q in ((i, j), (a, b)))
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = min(abs(float(one @ other)) / lengths, 1.0) if lengths > 1e-9 else 1.0
    return math.sqrt((1.0 - cosine) / 2.0)


def _end_odds(arms: list[Arm], bends: Floats, through: tuple[int, int], stem: int) -> float:
    """A neurite that ends on another one comes from the side; a branch leaves forwards, and is thinner."""
    i, j = through
    aside = np.minimum(bends[:, stem, i], bends[:, stem, j])
    thick = math.log(2.0 * arms[stem].radius / (arms[i].radius + arms[j].radius))
    unlike = abs(math.log(arms[i].radius / arms[j].radius))
    return (
        _END_BASE
        + _END_BEND * float(bends[-1, i, j])
        + float(_END_ANGLE @ aside)
        + _END_THICK * thick
        + _END_RADIUS * unlike
    )
