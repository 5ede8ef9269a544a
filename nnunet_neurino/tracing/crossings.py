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

from nnunet_neurino.tracing.arms import Arm, Network, arms_of, bend
from nnunet_neurino.tracing.lines import Floats, path_length

_LINK = 3.0, 5.0  # forks nearer than this times the radius plus this may be one crossing
_MOST_FORKS = 3
_MOST_ARMS = 6
_LEAST_ODDS = -2.0, -1.05  # of a neurite that ends on another one, and of two that cross

# Logarithms of odds, fitted to 16,000 zones of generated neurons whose truth is known; bends in degrees.
_BASE = {4: -0.35, 5: -2.1, 6: -3.05}
_BEND, _MARGIN, _RADIUS, _LENGTH = -0.023, 0.020, -0.55, 0.17
_END_BASE, _END_BEND, _END_ANGLE, _END_LENGTH = -4.5, -0.029, 0.051, 0.1


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
    """

    forks: frozenset[int]
    zone: list[int]
    inner: frozenset[int]
    arms: list[Arm]
    through: tuple[int, int]
    rest: tuple[int, ...]
    odds: float


def crossings_in(network: Network) -> list[Crossing]:
    """All ways to take zones apart that are not out of the question."""
    found = []
    for forks, zone, inner in _zones(network):
        arms = arms_of(network, zone, inner)
        if len({arm.branch for arm in arms}) < len(arms):
            continue
        bends = np.zeros((len(arms), len(arms)))
        if 3 <= len(arms) <= _MOST_ARMS:
            for i, j in combinations(range(len(arms)), 2):
                bends[i, j] = bends[j, i] = bend(arms[i], arms[j])
        for through, rest in _ways(len(arms)):
            odds = (
                _end_odds(arms, bends, through, rest[0]) if len(rest) == 1 else _cross_odds(arms, bends, through, rest)
            )
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


def _ways(count: int) -> Iterator[tuple[tuple[int, int], tuple[int, ...]]]:
    """Ways to let two of ``count`` arms run through."""
    if not 3 <= count <= _MOST_ARMS:
        return
    for through in combinations(range(count), 2):
        if count == 4 and through[0] > 0:  # the other pair's turn has been
            return
        yield through, tuple(i for i in range(count) if i not in through)


def _cross_odds(arms: list[Arm], bends: Floats, through: tuple[int, int], rest: tuple[int, ...]) -> float:
    """Two pairs that go straight on, and no other two of the same four arms nearly as straight."""
    i, j = through
    a, b = min(combinations(rest, 2), key=lambda pair: float(bends[pair]))
    both = float(bends[i, j] + bends[a, b])
    alternative = float(min(bends[i, a] + bends[j, b], bends[i, b] + bends[j, a]))
    unlike = abs(math.log(arms[i].radius / arms[j].radius)) + abs(math.log(arms[a].radius / arms[b].radius))
    shortest = min(arms[k].length for k in (i, j, a, b))
    return (
        _BASE[len(arms)]
        + _BEND * both
        + _MARGIN * (alternative - both)
        + _RADIUS * unlike
        + _LENGTH * min(shortest, 8.0)
    )


def _end_odds(arms: list[Arm], bends: Floats, through: tuple[int, int], stem: int) -> float:
    """A neurite that ends on another one comes from the side; a branch leaves forwards."""
    i, j = through
    aside = float(min(bends[stem, i], bends[stem, j]))
    return _END_BASE + _END_BEND * float(bends[i, j]) + _END_ANGLE * aside + _END_LENGTH * min(arms[stem].length, 12.0)
