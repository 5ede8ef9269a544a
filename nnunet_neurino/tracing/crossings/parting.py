"""Take neurons apart that cross: part them wherever two strands go straight on, and take back what makes no neuron.

At first every zone is taken apart, which leaves each strand as long as it can be. A strand that then has a cell body
is a neuron, one that reaches the image's border twice is a part of a neuron outside, and where there is no cell body at
all a strand without forks is a neurite by itself. Anything else is a torn-off part of a neuron. So a zone stays parted
only if both of its strands are of neurons and go straight on; if each has a cell body, they may bend twice as much. The
zone that is least like that is put together again, and all are looked at anew, until none is left to put together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet

from nnunet_neurino.tracing.crossings.zones import Zone, find_zones
from nnunet_neurino.tracing.lines import Floats, Lines, tips_at_border
from nnunet_neurino.tracing.soma import soma_centres

_STRAIGHT = 20.0  # degrees that a strand may bend at a zone


def part_neurons(lines: Lines, size: Floats) -> Lines:
    """Replace crossings of two neurites by lines that run past each other.

    Args:
        lines: centre lines.
        size: (3,) extent of the image in the unit of the lines.
    """
    bodies = soma_centres(lines)
    branches = lines.branches()
    zones = find_zones(lines, branches, bodies)
    return _apart(lines, branches, _of_neurons(lines, branches, zones, bodies, size))


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
        groups = _groups(meeting, parted)
        leader = _leaders(groups, len(branches))
        body = {leader[meeting[point][0]] for point in bodies & meeting.keys()}
        forked = {leader[numbers[0]] for numbers in groups if len(numbers) > 2}
        ends = np.bincount(leader, exits, minlength=len(branches))
        fibres = {of for of in leader if ends[of] >= 2 or not (body or of in forked)}
        doubts = [_doubt(zone, [leader[zone.numbers(side)[0]] for side in (0, 1)], body, fibres) for zone in parted]
        worst = int(np.argmax(doubts))
        if doubts[worst] <= _STRAIGHT:
            break
        del parted[worst]
    return parted


def _doubt(zone: Zone, neurons: list[int], body: set[int], fibres: set[int]) -> float:
    """How much the strands of a zone bend, in degrees: half of it if each has a cell body, more if one is no neuron."""
    if neurons[0] == neurons[1] or not (body | fibres).issuperset(neurons):
        return max(zone.bends) + 180.0
    return max(zone.bends) * (0.5 if body.issuperset(neurons) else 1.0)


def _groups(meeting: dict[int, list[int]], parted: list[Zone]) -> list[list[int]]:
    """The branches that meet at each fork, or in each strand of the zones that are taken apart."""
    taken = {point for zone in parted for point in zone.points}
    groups = [numbers for point, numbers in meeting.items() if point not in taken]
    return groups + [zone.numbers(side) for zone in parted for side in (0, 1)]


def _leaders(groups: list[list[int]], count: int) -> list[int]:
    """For each branch one of those in its neuron, the same for all of these."""
    joined = DisjointSet(range(count))
    for first, *others in groups:
        for other in others:
            joined.merge(first, other)
    return [joined[number] for number in range(count)]


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
        radii.append(lines.radii[inside])
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
