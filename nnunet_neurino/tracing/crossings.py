"""Take neurites apart that cross: in a mask they are one component, in the tissue they are not.

Where four arms meet within about a neurite's thickness and form two pairs that each go straight on, two neurites cross.
A fork never looks like that: its daughters leave at an angle to the parent and to each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_neurino.tracing.lines import Floats, Lines, path_length

_ARM = 12.0  # length of an arm that tells its direction, in voxels of the finest axis
_SHORTEST_ARM = 6.0
_STRAIGHT = 35.0  # greatest bend of a neurite that goes straight on through a crossing, degrees
_CLEARLY = 15.0  # by this much the second-best pairing of the arms must be more bent, degrees


@dataclass(frozen=True)
class _Arm:
    """One neurite that leaves a crossing: ``path`` leads away from it; ``direction`` points away from it."""

    path: list[int]
    start: Floats
    direction: Floats


def split_crossings(lines: Lines) -> Lines:
    """Replace each crossing of two neurites by two lines that run past each other."""
    degree = lines.degree()
    if not (degree >= 3).any():
        return lines
    neighbours = lines.neighbours()
    gone = np.zeros(len(lines.points), dtype=bool)
    new_points: list[Floats] = []
    new_radii: list[float] = []
    new_edges: list[tuple[int, int]] = []
    count = len(lines.points)
    for zone in _fork_zones(lines, degree):
        if gone[zone].any():
            continue
        arms = _arms(lines, neighbours, zone)
        pairs = _straight_pairs(arms)
        if pairs is None or any(gone[arm.path].any() for arm in arms):
            continue
        gone[zone] = True
        for arm in arms:
            gone[arm.path[:-1]] = True
        for a, b in pairs:
            first, last = arms[a].path[-1], arms[b].path[-1]
            between = _straight(lines.points[first], lines.points[last])
            chain = [first, *range(count, count + len(between)), last]
            new_edges.extend(zip(chain[:-1], chain[1:], strict=True))
            new_points.extend(between)
            new_radii.extend([0.5 * float(lines.radii[first] + lines.radii[last])] * len(between))
            count += len(between)
    if not new_edges:
        return lines
    old = lines.edges[~gone[lines.edges].any(axis=1)]
    joined = Lines(
        np.concatenate([lines.points, np.array(new_points).reshape(-1, 3)]),
        np.concatenate([lines.radii, new_radii]),
        np.concatenate([old, np.array(new_edges, dtype=np.int64)]),
    )
    return joined.keep(np.concatenate([~gone, np.ones(len(new_points), dtype=bool)]))


def _fork_zones(lines: Lines, degree: np.ndarray) -> list[list[int]]:
    """Forks that are so close together that they may be one crossing, with the points between them."""
    leader = {int(fork): int(fork) for fork in np.flatnonzero(degree >= 3)}

    def top(fork: int) -> int:
        while leader[fork] != fork:
            fork = leader[fork]
        return fork

    inner: list[list[int]] = []
    for path in sorted(lines.branches(), key=len):
        first, last = path[0], path[-1]
        if min(degree[first], degree[last]) < 3:
            continue
        if path_length(lines.points[path]) <= 3.0 * float(lines.radii[[first, last]].max()) + 4.0:
            leader[top(first)] = top(last)
            inner.append(path)
    zones: dict[int, set[int]] = {}
    for fork in leader:
        zones.setdefault(top(fork), set()).add(fork)
    for path in inner:
        zones[top(path[0])].update(path)
    return [sorted(zone) for zone in zones.values() if sum(degree[p] - 2 for p in zone) == 2]


def _arms(lines: Lines, neighbours: list[list[int]], zone: list[int]) -> list[_Arm]:
    """The neurites that leave a zone of forks, each with its direction a little way out."""
    members = set(zone)
    centre = lines.points[zone].mean(axis=0)
    near = float(np.linalg.norm(lines.points[zone] - centre, axis=1).max()) + 1.2 * float(lines.radii[zone].max())
    arms = []
    for fork in zone:
        for following in neighbours[fork]:
            if following in members:
                continue
            path = [fork, following]
            while len(neighbours[path[-1]]) == 2 and path_length(lines.points[path[1:]]) < near + _ARM:
                a, b = neighbours[path[-1]]
                path.append(b if a == path[-2] else a)
            path = path[1:]
            far = np.linalg.norm(lines.points[path] - centre, axis=1) >= near
            begin = int(np.argmax(far)) if far.any() else len(path) - 1
            outer = lines.points[path[begin:]]
            if len(outer) > 1 and path_length(outer) >= 0.5 * _SHORTEST_ARM:
                direction = outer[1:].mean(axis=0) - outer[0]
            else:
                direction = outer[0] - centre
            direction = direction / max(float(np.linalg.norm(direction)), 1e-12)
            enough = path_length(lines.points[[fork, *path]]) >= _SHORTEST_ARM
            arms.append(_Arm(path[: begin + 1], outer[0], direction if enough else np.zeros(3)))
    return arms


def _straight_pairs(arms: list[_Arm]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The two pairs of arms that go straight on, or ``None`` if this is no crossing."""
    if len(arms) != 4 or any(not arm.direction.any() for arm in arms):
        return None
    pairings = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    bends = [max(_bend(arms[a], arms[b]) for a, b in pairing) for pairing in pairings]
    best, second = np.argsort(bends)[:2]
    if bends[best] > _STRAIGHT or bends[second] < bends[best] + _CLEARLY:
        return None
    return pairings[best]


def _bend(a: _Arm, b: _Arm) -> float:
    """Bend in degrees of a line that comes in along ``a`` and leaves along ``b``."""
    across = b.start - a.start
    across = across / max(float(np.linalg.norm(across)), 1e-12)
    cosines = (-a.direction @ b.direction, -a.direction @ across, b.direction @ across)
    return float(np.mean(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))))


def _straight(start: Floats, end: Floats) -> Floats:
    """Points about two voxels apart strictly between two positions."""
    n = max(round(float(np.linalg.norm(end - start)) / 2.0), 1)
    return start + np.linspace(0, 1, n + 1)[1:-1, None] * (end - start)
