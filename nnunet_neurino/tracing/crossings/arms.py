"""Arms: the neurites that leave a fork or a few forks close together, and how straight two of them go on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_neurino.tracing.lines import Floats, Lines, lengths_along, path_length

REACHES = 6.0, 24.0  # lengths of an arm that tell its direction here and at large, in voxels of the finest axis
_NEAR = 1.5, 1.0  # arms begin this times the radius plus this from the middle of the forks
_LOOK_BACK = 5  # points that tell a neurite's direction at a fork
_ONWARD = 0.3  # cosine of the greatest bend of a neurite that goes on through a fork


@dataclass(frozen=True)
class Network:
    """Lines as branches between forks.

    Attributes:
        lines: centre lines.
        neighbours: of each point.
        branches: paths of points from fork or tip to fork or tip.
        leaving: for each fork its branches, as (number, path that leads away from the fork).
        bodies: points in cell bodies.
    """

    lines: Lines
    neighbours: list[list[int]]
    branches: list[list[int]]
    leaving: dict[int, list[tuple[int, list[int]]]]
    bodies: frozenset[int]

    @classmethod
    def of(cls, lines: Lines, bodies: frozenset[int]) -> Network:
        """The network of ``lines`` whose points ``bodies`` are cell bodies."""
        branches = lines.branches()
        degree = lines.degree()
        leaving: dict[int, list[tuple[int, list[int]]]] = {fork: [] for fork in np.flatnonzero(degree >= 3).tolist()}
        for number, path in enumerate(branches):
            for way in (path, path[::-1]):
                if way[0] in leaving:
                    leaving[way[0]].append((number, way))
        return cls(lines, lines.neighbours(), branches, leaving, bodies)


@dataclass(frozen=True)
class Arm:
    """A neurite that leaves a zone.

    Attributes:
        branch: number of the branch that it begins with.
        path: points of that branch up to where the arm is out of the zone; leads away from the zone.
        start: where its directions are taken from.
        directions: for each of ``REACHES`` the unit vector away from the zone, zero where the arm is too short for one.
        radius: typical radius.
        length: length of its neurite, through forks straight on, as far as it matters for its direction.
    """

    branch: int
    path: list[int]
    start: Floats
    directions: tuple[Floats, ...]
    radius: float
    length: float


def arms_of(network: Network, zone: list[int], inner: frozenset[int]) -> list[Arm]:
    """The arms of a zone.

    Args:
        network: branches.
        zone: points of the zone: its forks and what lies between them.
        inner: branches inside the zone.
    """
    lines = network.lines
    centre = lines.points[zone].mean(axis=0)
    spread = float(np.linalg.norm(lines.points[zone] - centre, axis=1).max())
    near = spread + _NEAR[0] * float(np.median(lines.radii[zone])) + _NEAR[1]
    return [
        _arm(network, number, path, centre, near)
        for fork in zone
        for number, path in network.leaving.get(fork, ())
        if number not in inner
    ]


def _arm(network: Network, branch: int, first: list[int], centre: Floats, near: float) -> Arm:
    points, radii = network.lines.points, network.lines.radii
    path, own = _onward(network, first, near + REACHES[-1])
    away = np.linalg.norm(points[path] - centre, axis=1)
    out = away >= near
    begin = int(np.argmax(out)) if out.any() else len(path) - 1
    outer = points[path[begin:]]
    length = path_length(points[path])
    walked = lengths_along(outer)
    directions = []
    for reach in REACHES:
        upto = int(np.searchsorted(walked, reach, side="right"))
        if upto > 2 and walked[upto - 1] >= 2.0:
            direction = outer[1:upto].mean(axis=0) - outer[0]
        else:  # a stub: where its end lies is all that it tells
            direction = points[path[-1]] - centre
        norm = float(np.linalg.norm(direction))
        directions.append(direction / norm if norm > 1e-9 and length >= 1.0 else np.zeros(3))
    last = min(begin, own - 1)
    typical = float(np.median(radii[path[1:]]))
    return Arm(branch, path[: max(last, 1) + 1], points[path[begin]], tuple(directions), typical, length)


def _onward(network: Network, first: list[int], length: float) -> tuple[list[int], int]:
    """A branch and what goes straight on behind it, up to ``length``; how many points of it are the branch's."""
    points = network.lines.points
    path, walked, own = [first[0]], 0.0, 0
    way = first
    while True:
        for point in way[1:]:
            walked += float(np.linalg.norm(points[point] - points[path[-1]]))
            path.append(point)
            if walked >= length:
                return path, own or len(path)
        own = own or len(path)
        fork = path[-1]
        if fork not in network.leaving or fork in network.bodies or len(path) > 200:
            return path, own
        came = points[fork] - points[path[-min(_LOOK_BACK, len(path))]]
        best, way = _ONWARD, []
        for _, after in network.leaving[fork]:
            if after[1] == path[-2]:
                continue
            goes = points[after[min(_LOOK_BACK, len(after)) - 1]] - points[fork]
            cosine = float(came @ goes) / max(float(np.linalg.norm(came) * np.linalg.norm(goes)), 1e-12)
            if cosine > best:
                best, way = cosine, after
        if not way:
            return path, own


def bend(a: Arm, b: Arm, reach: int) -> float:
    """Bend in degrees of a line that comes in along ``a`` and leaves along ``b``; 90 where that is not known.

    ``reach`` is the number of the length over which directions are taken, in ``REACHES``.
    """
    into, away = a.directions[reach], b.directions[reach]
    if not (into.any() and away.any()):
        return 90.0
    across = b.start - a.start
    across = across / max(float(np.linalg.norm(across)), 1e-12)
    cosines = (-into @ away, -into @ across, away @ across)
    return float(np.mean(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))))
