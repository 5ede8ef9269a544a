"""Take neurons apart that cross: part them wherever two strands go straight on, and take back what makes no neuron.

At first every zone is taken apart, which leaves each strand as long as it can be. A strand that then has a cell body
is a neuron, and one that reaches the image's border twice is a fibre of a neuron outside; anything else is a torn-off
part of one. So a zone stays parted only if both of its strands belong to neurons, and the surer these are the more a
strand may bend there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from nnunet_neurino.tracing.crossings.bodies import part_bodies
from nnunet_neurino.tracing.crossings.zones import Zone, find_zones
from nnunet_neurino.tracing.lines import Floats, Lines, tips_at_border
from nnunet_neurino.tracing.soma import soma_centres, sure_soma_centres

# Degrees that a strand of a neuron with a cell body, or of a fibre from border to border, may bend at a zone.
_BODY, _FIBRE, _NEITHER = 30.0, 20.0, -1.0


def part_neurons(lines: Lines, size: Floats) -> Lines:
    """Replace crossings of two neurites by lines that run past each other.

    Args:
        lines: centre lines.
        size: (3,) extent of the image in the unit of the lines.
    """
    bodies = soma_centres(lines)
    sure = sure_soma_centres(lines, bodies)
    branches = lines.branches()
    zones = find_zones(lines, branches, bodies)
    parted = _of_neurons(lines, branches, zones, bodies, size)
    places = lines.points[sorted(sure)]
    lines = _apart(lines, branches, parted)
    return part_bodies(lines, np.flatnonzero((lines.points[:, None] == places).all(axis=2).any(axis=1)).tolist())


def _of_neurons(
    lines: Lines, branches: Sequence[list[int]], zones: list[Zone], bodies: frozenset[int], size: Floats
) -> list[Zone]:
    """The zones whose two strands are of neurons."""
    border = tips_at_border(lines, size)
    exits = [int(border[[path[0], path[-1]]].sum()) for path in branches]
    meeting: dict[int, list[int]] = defaultdict(list)  # the branches that meet at each point
    for number, path in enumerate(branches):
        for point in {path[0], path[-1], *bodies.intersection(path)}:
            meeting[point].append(number)
    parted = list(zones)
    while parted:
        leader = _neurons(meeting, parted, len(branches))
        body, ends, forked = [0] * len(branches), [0] * len(branches), [False] * len(branches)
        for numbers in _groups(meeting, parted):
            forked[leader[numbers[0]]] |= len(numbers) > 2
        taken = {point: zone for zone in parted for point in zone.points}
        for point in bodies & meeting.keys():
            first = taken[point].numbers(1)[0] if point in taken else meeting[point][0]
            body[leader[first]] += 1
        for number, of in enumerate(leader):
            ends[of] += exits[number]

        def excess(zone: Zone) -> float:
            neurons = [leader[zone.numbers(side)[0]] for side in (0, 1)]
            if neurons[0] == neurons[1]:
                return np.inf
            if all(body[of] for of in neurons):
                return -np.inf
            limits = [_BODY if body[of] else _FIBRE if ends[of] == 2 or not (any(body) or forked[of]) else _NEITHER for of in neurons]
            return np.inf if zone.body else max(bend - limit for bend, limit in zip(zone.bends, limits, strict=True))

        worst = max(parted, key=excess)
        if excess(worst) <= 0:
            break
        parted = [zone for zone in parted if zone is not worst]
    return parted


def _neurons(meeting: dict[int, list[int]], parted: list[Zone], count: int) -> list[int]:
    """For each branch one of those in its neuron, the same for all of these, if some zones are taken apart."""
    joined = DisjointSet(range(count))
    for first, *others in _groups(meeting, parted):
        for other in others:
            joined.merge(first, other)
    return [joined[number] for number in range(count)]


def _groups(meeting: dict[int, list[int]], parted: list[Zone]) -> list[list[int]]:
    """The branches that meet at each fork, or in each strand of the zones that are taken apart."""
    taken = {point for zone in parted for point in zone.points}
    groups = [numbers for point, numbers in meeting.items() if point not in taken]
    return groups + [zone.numbers(side) for zone in parted for side in (0, 1)]


def _apart(lines: Lines, branches: Sequence[list[int]], zones: list[Zone]) -> Lines:
    """Give the strand that runs through each zone its own copy of the zone's points."""
    points, radii, edges = [lines.points], [lines.radii], lines.edges.copy()
    count = len(lines.points)
    added = []
    for zone in zones:
        inside = np.array(zone.points)
        copies = dict(zip(zone.points, range(count, count + len(inside)), strict=True))
        for number, fork in zone.strands[0]:
            path = branches[number]
            beside = path[1] if path[0] == fork else path[-2]
            row = np.flatnonzero((np.sort(edges, axis=1) == sorted((fork, beside))).all(axis=1))[0]
            edges[row] = beside, copies[fork]
        own = np.isin(lines.edges, inside).all(axis=1)
        added.append(np.searchsorted(inside, lines.edges[own]) + count)
        points.append(lines.points[inside])
        thick = max(float(np.median(lines.radii[branches[number]])) for number in zone.numbers(0))
        radii.append(np.minimum(lines.radii[inside], thick) if zone.body else lines.radii[inside])
        count += len(inside)
    parted = Lines(np.concatenate(points), np.concatenate(radii), np.concatenate([edges, *added]))
    of_zone = np.zeros(count, dtype=bool)
    of_zone[[point for zone in zones for point in zone.points]] = True
    of_zone[len(lines.points) :] = True
    return _without_loose_ends(parted, of_zone)


def _without_loose_ends(lines: Lines, of_zone: NDArray[np.bool_]) -> Lines:
    """Leave out points of zones that lead to no arm of their strand."""
    while (loose := of_zone & (lines.degree() <= 1)).any():
        lines, of_zone = lines.keep(~loose), of_zone[~loose]
    return lines
