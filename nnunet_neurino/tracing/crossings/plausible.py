"""What neurons a connected piece would fall into if some crossings were taken apart, and how plausible they are."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from nnunet_neurino.tracing.crossings.arms import Network
from nnunet_neurino.tracing.crossings.candidates import Crossing
from nnunet_neurino.tracing.lines import Floats, path_length, tips_at_border

# Logarithms of how much more or less often a neuron looks like this.
_TWO_BODIES = -5.0
_FIBRE = 4.0  # no fork, from border to border, and another neuron of the same piece has a cell body
_FIBRE_OF_FIBRES = 2.0  # and none has
_FAR = 1.0  # of the image's longest side; a shorter fibre counts for less
_UNFORKED = 0.4  # no fork, and an end inside the image
_LOOSE_FIBRE = 1.0  # the same where ends say nothing
_ROOTLESS = 1.0  # forks and an end at the border, but no cell body
_ORPHAN = -2.0  # forks, but neither cell body nor an end at the border
_AMONG_GAPS = 2.3  # each crossing where the mask has gaps: their bridges bend the arms that have to tell
_CYCLE = -1.0  # a neuron is a tree
_ENDS_ON_NONE = -3.0  # a neurite that ends on another one but belongs to no cell body is more likely its branch


@dataclass(frozen=True)
class Link:
    """Branches that meet.

    Attributes:
        branches: their numbers.
        body: whether they meet in a cell body.
        forks: the forks at which they do.
    """

    branches: list[int]
    body: bool
    forks: frozenset[int]


@dataclass(frozen=True)
class Piece:
    """A connected piece of a network: what its branches bring to a neuron.

    Attributes:
        network: the whole network.
        gaps: whether the mask has gaps.
        branches: numbers of the piece's branches.
        meetings: for each of its forks the branches that meet there.
        tips, exits, somata: for each of them its number of tips, of tips at the border, of cell bodies along it.
        lengths: for each of them its length.
        far: a neurite of that length crosses a good part of the image.
    """

    network: Network
    gaps: bool
    far: float
    branches: list[int]
    meetings: dict[int, list[int]]
    tips: dict[int, int]
    exits: dict[int, int]
    somata: dict[int, int]
    lengths: dict[int, float]

    def worth(self, made: list[Crossing]) -> float:
        """Logarithm of how plausible the neurons are, if the crossings ``made`` are taken apart."""
        inner = {number for crossing in made for number in crossing.inner}
        own = [number for number in self.branches if number not in inner]
        links = self.links(made)
        leader = _leaders(own, [link.branches for link in links])
        forked: dict[int, bool] = defaultdict(bool)
        bodies: dict[int, int] = defaultdict(int)
        exits: dict[int, int] = defaultdict(int)
        for link in links:
            neuron = leader[link.branches[0]]
            forked[neuron] |= len(link.branches) > 2
            bodies[neuron] += link.body
        length: dict[int, float] = defaultdict(float)
        for number in own:
            length[leader[number]] += self.lengths[number]
            exits[leader[number]] += self.exits[number]
            bodies[leader[number]] += self.somata[number]
        worth = sum(crossing.odds + (self.gaps and not crossing.body) * _AMONG_GAPS for crossing in made)
        for crossing in made:
            if len(crossing.rest) == 1 and not bodies[leader[crossing.arms[crossing.rest[0]].branch]]:
                worth += _ENDS_ON_NONE
        # Where nothing has a cell body or reaches the border, or a gap may have cut it off, that says nothing.
        rooted = not self.gaps and (any(exits.values()) or any(bodies.values()))
        fibre = _FIBRE if any(bodies.values()) else _FIBRE_OF_FIBRES
        neurons = set(leader.values())
        cycles = sum(len(link.branches) - 1 for link in links) - len(own) + len(neurons)
        worth += _CYCLE * cycles
        for neuron in neurons:
            if bodies[neuron]:
                worth += _TWO_BODIES * (bodies[neuron] - 1)
            elif not forked[neuron]:
                share = min(length[neuron] / self.far, 1.0)
                worth += fibre * share if exits[neuron] == 2 else _UNFORKED if rooted else _LOOSE_FIBRE * share
            else:
                worth += rooted * (_ROOTLESS if exits[neuron] else _ORPHAN)
        return worth

    def links(self, made: list[Crossing]) -> list[Link]:
        """What joins branches if the crossings ``made`` are taken apart; inner branches join others in their zone."""
        taken = {fork for crossing in made for fork in crossing.forks}
        bodies = self.network.bodies
        links = [
            Link(group, fork in bodies, frozenset([fork])) for fork, group in self.meetings.items() if fork not in taken
        ]
        for crossing in made:
            through, rest = ([crossing.arms[k].branch for k in side] for side in (crossing.through, crossing.rest))
            links += [Link(through, False, crossing.forks), Link(rest, crossing.body, crossing.forks)]
        return links


def pieces_of(network: Network, size: Floats, gaps: bool) -> dict[int, Piece]:
    """The connected pieces of a network in an image of ``size`` (3,), by their numbers in ``lines.pieces()``."""
    lines = network.lines
    piece = lines.pieces()
    border, free = tips_at_border(lines, size), lines.degree() <= 1
    far = _FAR * float(size.max())
    found: dict[int, Piece] = {}
    for number, path in enumerate(network.branches):
        of = found.setdefault(int(piece[path[0]]), Piece(network, gaps, far, [], {}, {}, {}, {}, {}))
        ends = [point for point in (path[0], path[-1]) if free[point]]
        of.branches.append(number)
        of.tips[number] = len(ends)
        of.lengths[number] = path_length(lines.points[path])
        of.exits[number] = int(np.count_nonzero(border[ends])) if ends else 0
        of.somata[number] = len(network.bodies.intersection(path) - network.leaving.keys())
    for fork, leaving in network.leaving.items():
        if int(piece[fork]) in found:
            found[int(piece[fork])].meetings[fork] = [number for number, _ in leaving]
    return found


def _leaders(own: list[int], groups: list[list[int]]) -> dict[int, int]:
    """For each branch one of those that are joined to it, the same for all of these."""
    joined = DisjointSet(own)
    for first, *others in groups:
        for other in others:
            joined.merge(first, other)
    return {number: joined[number] for number in own}
