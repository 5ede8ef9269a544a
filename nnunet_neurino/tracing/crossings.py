"""Take neurites apart that cross: in a mask they are one component, in the tissue they are not.

Where four arms meet within about a neurite's thickness and form two pairs that each go straight on, two neurites cross.
A fork never looks like that: its daughters leave at an angle to the parent and to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.tracing.lines import Floats, Ints, Lines, path_length, tips_at_border
from nnunet_neurino.tracing.soma import find_somata

_ARM = 12.0  # length of an arm that tells its direction, in voxels of the finest axis
_SHORTEST_ARM = 4.0
_STRAIGHT = 50.0  # greatest bend of a neurite that goes straight on through a crossing, degrees
_CERTAIN = 36.0
_NEAR = 1.5, 1.0  # arms begin this times the radius plus this from the middle of the forks
_ZONE = 4.0, 6.0  # forks nearer than this times the radius plus this may be one crossing
_MOST_ARMS = 8
_CLEARLY = 10.0  # by this much the second-best pairing of the arms must be more bent, degrees


@dataclass(frozen=True)
class _Arm:
    """One neurite that leaves a crossing: ``path`` leads away from it; ``direction`` points away from it."""

    path: list[int]
    start: Floats
    direction: Floats


@dataclass(frozen=True)
class Crossings:
    """Places where two neurites were taken apart.

    Attributes:
        zones: (k,) what :func:`split_crossings` calls each crossing.
        links: (k, 2) a point of the one and a point of the other neurite, in the middle of each crossing.
        certain: (k,) whether both go on so straight that there is no doubt.
    """

    zones: Ints
    links: Ints
    certain: NDArray[np.bool_]


def split_crossings(lines: Lines, leave: frozenset[int] = frozenset()) -> tuple[Lines, Crossings]:
    """Replace each crossing of two neurites by two lines that run past each other.

    Args:
        lines: centre lines.
        leave: crossings (by their names in ``Crossings.zones``) that stay as they are.
    """
    degree = lines.degree()
    neighbours = lines.neighbours()
    somata = find_somata(lines)
    gone = np.zeros(len(lines.points), dtype=bool)
    points, radii = lines.points.tolist(), lines.radii.tolist()
    edges: list[tuple[int, int]] = []
    zones: list[int] = []
    links: list[tuple[int, int]] = []
    certain: list[bool] = []
    for zone in _fork_zones(lines, degree):
        if zone[0] in leave or gone[zone].any() or _at_cell_body(lines, zone, somata):
            continue
        arms = _arms(lines, neighbours, zone)
        passing = _straight_pairs(arms)
        if passing is None or any(gone[arm.path].any() for arm in arms):
            continue
        gone[zone] = True
        for arm in arms:
            gone[arm.path[:-1]] = True
        chains = []
        for a, b in passing.pairs:
            first, last = arms[a].path[-1], arms[b].path[-1]
            between = _straight(lines.points[first], lines.points[last])
            chain = [first, *range(len(points), len(points) + len(between)), last]
            points.extend(between.tolist())
            radii.extend([0.5 * float(lines.radii[first] + lines.radii[last])] * len(between))
            edges.extend(pairwise(chain))
            chains.append(chain)
        for i, arm in enumerate(arms):  # a fork beside the crossing stays with the nearer of the two
            if i not in {*passing.pairs[0], *passing.pairs[1]}:
                both = [p for chain in chains for p in chain]
                away = np.linalg.norm(np.array([points[p] for p in both]) - lines.points[arm.path[-1]], axis=1)
                edges.append((arm.path[-1], both[int(np.argmin(away))]))
        zones.append(zone[0])
        links.append((chains[0][len(chains[0]) // 2], chains[1][len(chains[1]) // 2]))
        certain.append(len(arms) == 4 and passing.bend <= _CERTAIN)
    wanted = np.concatenate([~gone, np.ones(len(points) - len(gone), dtype=bool)])
    number = np.cumsum(wanted) - 1
    old = lines.edges[~gone[lines.edges].any(axis=1)]
    new = np.array(edges, dtype=np.int64).reshape(-1, 2)
    joined = Lines(np.array(points).reshape(-1, 3), np.array(radii), np.concatenate([old, new])).keep(wanted)
    places = number[np.array(links, dtype=np.int64).reshape(-1, 2)]
    return joined, Crossings(np.array(zones, dtype=np.int64), places, np.array(certain, dtype=bool))


def doubtful(lines: Lines, crossings: Crossings, size: Floats) -> frozenset[int]:
    """Crossings that left pieces which are hardly two neurons.

    Two pieces are two neurons if one of them is an unbranched fibre, and the crossing is straight or the fibre runs
    from border to border of the image; or if both can be neurons of their own (a cell body, or two ends at the border)
    and at least one has a cell body.

    Args:
        lines: the lines of :func:`split_crossings`, possibly with more points and edges behind.
        crossings: what was taken apart.
        size: (3,) extent of the image in the unit of the lines.
    """
    piece = lines.pieces()
    count = int(piece.max()) + 1
    tips = np.bincount(piece[lines.degree() <= 1], minlength=count)
    ends = np.bincount(piece[tips_at_border(lines, size)], minlength=count)
    somata = np.bincount(piece[find_somata(lines)], minlength=count) > 0
    alone = somata | (ends >= 2)
    found = []
    for zone, both, certain in zip(crossings.zones, piece[crossings.links], crossings.certain, strict=True):
        fibre = ((tips[both] == 2) & (certain | (ends[both] == 2))).any()
        if both[0] != both[1] and not fibre and not (alone[both].all() and somata[both].any()):
            found.append(int(zone))
    return frozenset(found)


def _at_cell_body(lines: Lines, zone: list[int], somata: Ints) -> bool:
    """Whether a zone is near a cell body, whose neurites leave it on opposite sides without crossing."""
    away = lines.points[zone][:, None] - lines.points[somata]
    return bool((np.linalg.norm(away, axis=2) < 2.0 * lines.radii[somata] + 3.0).any())


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
        if path_length(lines.points[path]) <= _ZONE[0] * float(lines.radii[[first, last]].max()) + _ZONE[1]:
            leader[top(first)] = top(last)
            inner.append(path)
    zones: dict[int, set[int]] = {}
    for fork in leader:
        zones.setdefault(top(fork), set()).add(fork)
    for path in inner:
        zones[top(path[0])].update(path)
    return [sorted(zone) for zone in zones.values() if 2 <= sum(degree[p] - 2 for p in zone) <= _MOST_ARMS - 2]


def _arms(lines: Lines, neighbours: list[list[int]], zone: list[int]) -> list[_Arm]:
    """The neurites that leave a zone of forks, each with its direction a little way out."""
    members = set(zone)
    centre = lines.points[zone].mean(axis=0)
    near = (
        float(np.linalg.norm(lines.points[zone] - centre, axis=1).max())
        + _NEAR[0] * float(lines.radii[zone].max())
        + _NEAR[1]
    )
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


@dataclass(frozen=True)
class _Passing:
    """Two pairs of arms that go straight on, and the greater bend of the two in degrees."""

    pairs: tuple[tuple[int, int], tuple[int, int]]
    bend: float


def _straight_pairs(arms: list[_Arm]) -> _Passing | None:
    """The two pairs of arms that go straight on, or ``None`` if this is no crossing."""
    able = [i for i, arm in enumerate(arms) if arm.direction.any()]
    bend = {pair: _bend(arms[pair[0]], arms[pair[1]]) for pair in combinations(able, 2)}
    ranked = sorted((max(bend[p], bend[q]), p, q) for p, q in combinations(bend, 2) if not set(p) & set(q))
    if not ranked or ranked[0][0] > _STRAIGHT:
        return None
    worst, first, second = ranked[0]
    same_arms = [value for value, p, q in ranked[1:] if {*p, *q} == {*first, *second}]
    if min(same_arms) < worst + _CLEARLY:
        return None
    return _Passing((first, second), worst)


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
