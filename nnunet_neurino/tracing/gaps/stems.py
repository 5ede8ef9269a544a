"""Stems: neurites that lead into another one and stop there, as if what lies behind it had been cut off.

Where two neurites cross and a gap lies beside the crossing, one of them ends on the other, and the piece behind the gap
faces not a tip but a fork; where the gap lies on the crossing itself, what is left may be a sharp corner of an arm of
each. A stem gets an end of its own at the fork or corner, so that bridges can lead there as to any other tip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_neurino.tracing.lines import Floats, Lines, lengths_along

_REACH = 10.0  # length of a stem that tells its direction, in voxels of the finest axis
_SKIP = 1.0, 1.0  # not counting this times the radius plus this beside the fork, where neurites are mixed
_STUB = 4.0  # a shorter free branch is the roughness of a surface
_ONWARD = 50.0  # degrees: a neurite that bends by less goes on
_CORNER = 55.0  # degrees
_ROUGHLY = 0.7


@dataclass(frozen=True)
class Stems:
    """Lines with an additional tip for each stem.

    Attributes:
        lines: the lines, the additional points last.
        at: of each additional point, the fork or corner.
        tangents: of each additional point, the direction in which its stem would go on.
    """

    lines: Lines
    at: list[int]
    tangents: dict[int, Floats]

    @property
    def first(self) -> int:
        """Number of the first additional point."""
        return len(self.lines.points) - len(self.at)

    def unused_left_out(self, lines: Lines, used: set[int]) -> Lines:
        """``lines``, which began as ours, without the additional tips that nothing was joined to."""
        wanted = np.ones(len(lines.points), dtype=bool)
        wanted[[tip for tip in self.tangents if tip not in used]] = False
        return lines.keep(wanted)


def with_stems(lines: Lines, bodies: frozenset[int]) -> Stems:
    """Give every stem of ``lines`` a tip; ``bodies`` are points in cell bodies."""
    neighbours = lines.neighbours()
    places: list[tuple[int, list[list[int]]]] = []
    for point, around in enumerate(neighbours):
        if point in bodies or len(around) < 3:
            continue
        arms = [_walk(lines, neighbours, point, following) for following in around]
        places.append((point, [arm for arm in arms if arm]))
    for path in lines.branches():
        places += _corners(lines, path)
    count = len(lines.points)
    points: list[Floats] = []
    edges: list[tuple[int, int]] = []
    tangents: dict[int, Floats] = {}
    for point, arms in places:
        ways = [_direction(lines, arm) for arm in arms]
        for k, (start, way) in enumerate(ways):
            turns = [float(-way @ other) for j, (_, other) in enumerate(ways) if j != k]
            if turns and max(turns) < np.cos(np.radians(_ONWARD)):
                reach = float(np.linalg.norm(lines.points[point] - start))
                tangents[count + len(points)] = -way
                edges.append((point, count + len(points)))
                points.append(start - reach * way)
    if not points:
        return Stems(lines, [], {})
    radii = lines.radii[[point for point, _ in edges]]
    added = Lines(
        np.concatenate([lines.points, points]),
        np.concatenate([lines.radii, radii]),
        np.concatenate([lines.edges, np.array(edges, dtype=np.int64)]),
    )
    return Stems(added, [point for point, _ in edges], tangents)


def _walk(lines: Lines, neighbours: list[list[int]], start: int, following: int) -> list[int]:
    """The arm that leaves ``start`` by ``following``, as far as it matters; nothing if it is a stub."""
    reach = _REACH + _SKIP[0] * lines.radii[start] + _SKIP[1]
    path, walked = lines.first_stretch(neighbours, start, following, reach)
    return path if walked >= _STUB or len(neighbours[path[-1]]) > 2 else []


def _direction(lines: Lines, arm: list[int]) -> tuple[Floats, Floats]:
    """Where the clear part of an arm begins, and the unit vector away from the fork there."""
    points = lines.points[arm]
    away = np.linalg.norm(points - points[0], axis=1)
    begin = int(np.argmax(away >= min(_SKIP[0] * lines.radii[arm[0]] + _SKIP[1], 0.6 * float(away[-1]))))
    outer = points[begin:]
    way = outer[1:].mean(axis=0) - outer[0] if len(outer) > 1 else points[-1] - points[0]
    return outer[0], way / max(float(np.linalg.norm(way)), 1e-12)


def _bent(points: Floats, walked: Floats) -> list[int]:
    """Places of a path, away from its ends, where it may have a corner by a rough look: few have."""
    inner = np.flatnonzero((walked >= _STUB) & (walked <= walked[-1] - _STUB))
    before = points[inner] - points[np.searchsorted(walked, np.maximum(walked[inner] - _REACH, 0.0))]
    after = points[np.searchsorted(walked, np.minimum(walked[inner] + _REACH, walked[-1]))] - points[inner]
    cosine = np.einsum("ij,ij->i", before, after)
    straight = np.cos(np.radians(_ROUGHLY * _CORNER)) * np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return inner[cosine < straight].tolist()


def _corners(lines: Lines, path: list[int]) -> list[tuple[int, list[list[int]]]]:
    """Sharp corners of a branch that has arms on both sides: (point, its two arms)."""
    points = lines.points[path]
    walked = lengths_along(points)
    if walked[-1] < 3 * _STUB:
        return []
    found: list[tuple[float, int, list[list[int]]]] = []
    for i in _bent(points, walked):
        reach = _REACH + _SKIP[0] * lines.radii[path[i]] + _SKIP[1]
        arms = [
            [path[k] for k in range(i, -1, -1) if walked[i] - walked[k] <= reach],
            [path[k] for k in range(i, len(path)) if walked[k] - walked[i] <= reach],
        ]
        (_, a), (_, b) = (_direction(lines, arm) for arm in arms)
        turn = float(-a @ b)
        if turn < np.cos(np.radians(_CORNER)):
            found.append((turn, i, arms))
    kept: list[tuple[int, list[list[int]]]] = []
    taken: list[float] = []
    for _, i, arms in sorted(found, key=lambda corner: corner[0]):
        if all(abs(walked[i] - other) > _REACH for other in taken):
            taken.append(walked[i])
            kept.append((path[i], arms))
    return kept
