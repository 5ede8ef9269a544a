"""Zones: where neurites touch, as a fork or some forks close together, and the arms that leave them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nnunet_neurino.skeleton.graph import components
from nnunet_neurino.tracing.lines import Floats, Lines, lengths_along
from nnunet_neurino.tracing.soma import in_body

_LINK = 3.0, 3.0  # forks nearer than this times their radius plus this are one zone
_MOST_ARMS = 6  # more leave a tangle in which no strand can be followed
_REACH = 12.0  # length of an arm that tells its direction
_SKIP = 1.0, 1.0  # not counting this times the radius plus this at the zone, where neurites are mixed
_STUB = 4.0  # a shorter arm with a free end tells nothing


@dataclass(frozen=True)
class Zone:
    """A place where two neurites may run past each other.

    Attributes:
        points: its forks and what lies between them.
        strands: two groups of arms (numbers of branches and the point of the zone that each leaves): those that run
            through, and the rest.
        bends: how much each strand bends at the least, in degrees.
    """

    points: list[int]
    strands: tuple[list[tuple[int, int]], list[tuple[int, int]]]
    bends: tuple[float, float]

    def numbers(self, strand: int) -> list[int]:
        """The branches of a strand."""
        return [number for number, _ in self.strands[strand]]


def find_zones(lines: Lines, branches: Sequence[list[int]], bodies: frozenset[int]) -> list[Zone]:
    """All zones with at least four arms but those in cell bodies (around the points ``bodies``)."""
    in_any = np.zeros(len(lines.points), dtype=bool)
    for body in bodies:
        in_any |= in_body(lines, body)
    forks = np.flatnonzero((lines.degree() >= 3) & ~in_any)
    number = np.full(len(lines.points), -1)
    number[forks] = np.arange(len(forks))
    ends = number[np.array([(path[0], path[-1]) for path in branches], dtype=np.int64).reshape(-1, 2)]
    joining = (ends >= 0).all(axis=1) & np.array([_short(lines, path) for path in branches], dtype=bool)
    group = components(len(forks), ends[joining])
    found = []
    for of in range(int(group.max(initial=-1)) + 1):
        mine = np.append(group == of, False)[ends]
        inner = set(np.flatnonzero(mine.all(axis=1) & joining).tolist())
        points = sorted({*forks[group == of].tolist(), *(point for k in inner for point in branches[k])})
        arms = [
            (k, branches[k] if side == 0 else branches[k][::-1])
            for k, side in np.argwhere(mine).tolist()
            if k not in inner
        ]
        zone = _zone(lines, points, arms)
        if zone:
            found.append(zone)
    return found


def _short(lines: Lines, path: list[int]) -> bool:
    length = float(lengths_along(lines.points[path])[-1])
    return length <= _LINK[0] * float(lines.radii[[path[0], path[-1]]].mean()) + _LINK[1]


def _zone(lines: Lines, points: list[int], arms: list[tuple[int, list[int]]]) -> Zone | None:
    looks = ((k, _direction(lines, points, way)) for k, (_, way) in enumerate(arms))
    known = {k: direction for k, direction in looks if direction is not None}
    if not 4 <= len(known) <= _MOST_ARMS or len({arms[k][0] for k in known}) < len(known):
        return None
    bend = {(i, j): _bend(known[i], known[j]) for i, j in combinations(known, 2)}

    def bends(through: tuple[int, int]) -> tuple[float, float]:
        return bend[through], min(bend[pair] for pair in bend if not set(pair) & set(through))

    best = min(bend, key=lambda pair: max(bends(pair)))
    rest = [k for k in range(len(arms)) if k not in best]
    strands = [[(arms[k][0], arms[k][1][0]) for k in side] for side in (best, rest)]
    return Zone(points, (strands[0], strands[1]), bends(best))


def _direction(lines: Lines, zone: list[int], way: list[int]) -> tuple[Floats, Floats] | None:
    """Where the clear part of an arm begins, and the unit vector away from the zone there; ``None`` of a stub."""
    centre = lines.points[zone].mean(axis=0)
    near = float(np.linalg.norm(lines.points[zone] - centre, axis=1).max())
    near += _SKIP[0] * float(np.median(lines.radii[zone])) + _SKIP[1]
    points = lines.points[way]
    walked = lengths_along(points)
    begin = int(np.argmax(np.linalg.norm(points - centre, axis=1) >= near))
    outer = points[begin:][walked[begin:] - walked[begin] <= _REACH]
    if walked[-1] < _STUB or len(outer) < 2:
        return None
    direction = outer[1:].mean(axis=0) - outer[0]
    return outer[0], direction / max(float(np.linalg.norm(direction)), 1e-12)


def _bend(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> float:
    """Bend in degrees of a line that comes in along ``a`` and leaves along ``b``."""
    (start, into), (end, away) = a, b
    across = (end - start) / max(float(np.linalg.norm(end - start)), 1e-12)
    cosines = (-into @ away, -into @ across, away @ across)
    return float(np.mean(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))))
