"""Take neurons apart that cross: choose the crossings that make whole neurons of a connected piece.

A crossing is taken apart if what it looks like (``crossings``) and what it leaves (``plausible``) speak for it
together: neurons with one cell body or with an end at the image's border, best a fibre that runs from border to border.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from nnunet_neurino.tracing.crossings.arms import Network
from nnunet_neurino.tracing.crossings.bodies import crossings_at_bodies, part_bodies, with_bodies_apart
from nnunet_neurino.tracing.crossings.candidates import Crossing, crossings_in
from nnunet_neurino.tracing.crossings.plausible import Piece, pieces_of
from nnunet_neurino.tracing.lines import Floats, Lines
from nnunet_neurino.tracing.soma import soma_centres, sure_soma_centres

_ROUNDS = 4  # crossings close to each other are taken apart one after the other
_MOST_MOVES = 400  # that are looked at, and times the branches of the piece
_MOST_WORK = 400_000
_LEAST_GAIN = 1.4  # of the logarithm of the odds
_LONGEST_CHAIN = 10
_LEAST_CHAIN = -9.0
_MOST_STEPS = 300


def part_neurons(lines: Lines, size: Floats, gaps: bool = False) -> Lines:
    """Replace crossings of two neurites by lines that run past each other.

    Args:
        lines: centre lines.
        size: (3,) extent of the image in the unit of the lines.
        gaps: whether the mask has gaps. Where some have been bridged, others have not: a piece that comes from nowhere
            says nothing then.
    """
    found = soma_centres(lines)
    bodies, plain = (lines.points[sorted(points)] for points in (found, sure_soma_centres(lines, found)))
    for _ in range(_ROUNDS):
        network = Network.of(lines, _bodies_at(lines, bodies))
        pieces = pieces_of(network, size, gaps)
        number = lines.pieces()
        candidates: dict[int, list[Crossing]] = {}
        for crossing in [*crossings_in(network), *crossings_at_bodies(network)]:
            candidates.setdefault(int(number[crossing.zone[0]]), []).append(crossing)
        chosen = [c for piece, crossings in candidates.items() for c in _choose(pieces[piece], crossings)]
        if not chosen:
            break
        lines = _apply(lines, chosen)
    return part_bodies(lines, _bodies_at(lines, plain))


def _bodies_at(lines: Lines, places: Floats) -> frozenset[int]:
    """The cell bodies at these places: what is left of a piece taken apart may be thin enough to seem to have more."""
    return frozenset(body for body in soma_centres(lines) if (lines.points[body] == places).all(axis=1).any())


def _choose(piece: Piece, crossings: list[Crossing]) -> list[Crossing]:
    """The crossings of one piece to take apart."""
    made: list[Crossing] = []
    value = piece.worth(made)
    most = min(_MOST_MOVES, _MOST_WORK // max(len(piece.branches), 1))
    single = sorted(((crossing.odds, [crossing]) for crossing in crossings), key=lambda move: -move[0])
    fibres = sorted(_fibres(piece, crossings), key=lambda move: -move[0])
    moves = sorted(single[:most] + fibres[: most // 4], key=lambda move: -move[0])
    again = True
    while again:
        again = False
        for _, move in moves:
            if any(crossing in made for crossing in move) or _conflict(made, move):
                continue
            then = piece.worth(made + move)
            if then - value > _LEAST_GAIN:
                made, value, again = made + move, then, True
    made = with_bodies_apart(piece, crossings, made)
    value = piece.worth(made)
    for crossing in sorted(made, key=lambda c: c.odds):
        without = [other for other in made if other is not crossing]
        then = piece.worth(without)
        if then >= value:
            made, value = without, then
    return made


def _conflict(made: Iterable[Crossing], new: list[Crossing]) -> bool:
    taken = {fork for crossing in made for fork in crossing.forks}
    for crossing in new:
        if crossing.forks & taken:
            return True
        taken |= crossing.forks
    return False


def _fibres(piece: Piece, crossings: list[Crossing]) -> list[tuple[float, list[Crossing]]]:
    """Fibres from border to border that run straight on through every fork on their way: (odds, crossings)."""
    onward: dict[int, list[tuple[Crossing, int]]] = {}
    for crossing in crossings:
        for side in (crossing.through, crossing.rest):
            if len(side) == 2:
                a, b = (crossing.arms[k].branch for k in side)
                onward.setdefault(a, []).append((crossing, b))
                onward.setdefault(b, []).append((crossing, a))
    found = []
    for start in piece.branches:
        waiting: list[tuple[float, int, list[Crossing]]] = [(0.0, start, [])] if piece.exits[start] else []
        for _ in range(_MOST_STEPS):
            if not waiting:
                break
            odds, branch, chain = waiting.pop()
            if chain and piece.tips[branch]:
                if piece.exits[branch] and branch > start:
                    found.append((odds, chain))
            elif len(chain) < _LONGEST_CHAIN:
                waiting += [
                    (odds + crossing.odds, following, [*chain, crossing])
                    for crossing, following in onward.get(branch, ())
                    if odds + crossing.odds > _LEAST_CHAIN and not _conflict(chain, [crossing])
                ]
    return found


def _apply(lines: Lines, chosen: list[Crossing]) -> Lines:
    """Draw the chosen crossings: what runs through straight across, the rest together or ending there."""
    gone = np.zeros(len(lines.points), dtype=bool)
    points, radii = lines.points.tolist(), lines.radii.tolist()
    edges: list[tuple[int, int]] = []
    loose: set[frozenset[int]] = set()
    for crossing in sorted(chosen, key=lambda c: -c.odds):
        if gone[crossing.zone].any() or any(gone[arm.path].any() for arm in crossing.arms):
            continue  # another one is too near: its turn comes in the next round
        # The stems of a cell body stay where they are.
        leaving = [crossing.arms[k] for k in crossing.through] if crossing.body else crossing.arms
        for arm in leaving:
            gone[arm.path[1:-1]] = True
        if crossing.body:
            loose |= {frozenset(arm.path[:2]) for arm in leaving}
        else:
            gone[crossing.zone] = True
        for side in (crossing.through,) if crossing.body else (crossing.through, crossing.rest):
            ends = [crossing.arms[k].path[-1] for k in side]
            if len(ends) == 2:
                between = _straight(lines.points[ends[0]], lines.points[ends[1]])
                chain = [ends[0], *range(len(points), len(points) + len(between)), ends[1]]
                points.extend(between.tolist())
                radii.extend([float(lines.radii[ends].mean())] * len(between))
                edges.extend(pairwise(chain))
            elif len(ends) > 2:  # a fork beside the crossing
                edges.extend((end, len(points)) for end in ends)
                points.append(lines.points[ends].mean(axis=0).tolist())
                radii.append(float(np.median(lines.radii[ends])))
    wanted = np.concatenate([~gone, np.ones(len(points) - len(gone), dtype=bool)])
    stays = [not any(gone[edge]) and frozenset(edge) not in loose for edge in lines.edges.tolist()]
    both = np.concatenate([lines.edges[stays], np.array(edges, dtype=np.int64).reshape(-1, 2)])
    return Lines(np.array(points).reshape(-1, 3), np.array(radii), both).keep(wanted)


def _straight(start: Floats, end: Floats) -> Floats:
    """Points about two voxels apart strictly between two positions."""
    n = max(round(float(np.linalg.norm(end - start)) / 2.0), 1)
    return start + np.linspace(0, 1, n + 1)[1:-1, None] * (end - start)
