"""Bridge short gaps between the ends of neurites, and only where the neurite plainly goes on.

A bridge starts at a tip and leads to a tip of another piece, or to the side of another piece (a lost fork). It must be
short, leave the tip in the direction in which the neurite was going, and arrive at another tip in that one's direction.
Neurites that merely pass each other have their tips elsewhere and are never joined. With an image (or a probability
map) the bridge must also be brighter than the background. The best bridges are built first; each tip is used once.
Two cell bodies are two neurons and are never joined; nor is a tip to the side of another piece where
both are neurons by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree

from nnunet_neurino.tracing.gaps.evidence import Evidence
from nnunet_neurino.tracing.gaps.pairing import best_pairs
from nnunet_neurino.tracing.lines import Floats, Ints, Lines, tips_at_border
from nnunet_neurino.tracing.soma import thick_centres

_TANGENT = 8.0  # length of neurite that tells its direction at a tip, in voxels of the finest axis
_SHORT_LEEWAY = 1.0
_SIDE_PENALTY = 2.5  # ending on another neurite's side is less likely than going on into its tip
_SIDE_ANGLE = 0.8
_SIDE_LENGTH = 0.6
_LEAST_MERIT = -8.0  # a pair of tips is as good as none
# Without an image:
_SIDE_COST = 26.0  # a dearer bridge to a side is mostly the end of another neuron's neurite
_STRAIGHT = 60.0  # degrees: a bridge between tips bends less, or has more than the least merit


@dataclass(frozen=True)
class _Bridge:
    cost: float
    tip: int
    goal: int
    path: Floats
    merit: float = 0.0
    bends: float = 0.0


def bridge_gaps(
    lines: Lines,
    longest: float,
    angle: float,
    evidence: Evidence | None = None,
    least_evidence: float = 0.0,
    size: Floats | None = None,
    shortest: float = 0.0,
) -> Lines:
    """Join pieces across gaps.

    Args:
        lines: centre lines, in voxels of the finest axis.
        longest: longest gap between two tips' surfaces.
        angle: greatest angle in degrees between the neurite's direction and the bridge.
        evidence: brightness between the pieces, or ``None`` to judge by geometry alone.
        least_evidence: brightness that the bridge needs on average, 0 (background) to 1 (the neurite itself).
        size: (3,) extent of the image; a piece that reaches its border twice is a neuron, as one with a cell body is.
        shortest: pieces with less cable are joined to longer ones only: noise must not chain.
    """
    if longest <= 0 or len(lines.points) < 2:
        return lines
    pieces = lines.pieces()
    count = int(pieces.max()) + 1
    somata = np.bincount(pieces[thick_centres(lines)], minlength=count)
    at_border = np.zeros(len(pieces), dtype=bool) if size is None else tips_at_border(lines, size)
    exits = np.bincount(pieces[at_border], minlength=count)
    cable = np.bincount(pieces[lines.edges[:, 0]], lines.lengths(), minlength=count)
    degree = lines.degree()
    tips = np.flatnonzero(degree <= 1)
    bridges = _candidates(lines, pieces, degree, tips, _tangents(lines, tips), longest, angle)
    bridges = [b for b in bridges if max(cable[pieces[[b.tip, b.goal]]]) >= shortest]
    if evidence is None:
        bridges = [bridge for bridge in bridges if _likely(bridge, degree)]
    else:
        bridges = [b for b in (_judge(bridge, lines, evidence, least_evidence) for bridge in bridges) if b]
    return _draw(lines, _accept(lines, pieces, somata, exits, _in_order(bridges, degree)))


def _tangents(lines: Lines, tips: Ints) -> dict[int, Floats | None]:
    """Direction in which each tip points, or ``None`` where its piece is too short to have one."""
    neighbours = lines.neighbours()
    found: dict[int, Floats | None] = {}
    for tip in tips.tolist():
        path, walked = [tip], 0.0
        for following in neighbours[tip]:
            path, walked = lines.first_stretch(neighbours, tip, following, _TANGENT)
        if walked < 1.0:
            found[tip] = None
            continue
        behind = lines.points[path]
        direction = behind[0] - behind[len(behind) // 2 :].mean(axis=0)
        found[tip] = direction / max(float(np.linalg.norm(direction)), 1e-12)
    return found


def _candidates(
    lines: Lines,
    pieces: Ints,
    degree: Ints,
    tips: Ints,
    tangents: dict[int, Floats | None],
    longest: float,
    angle: float,
) -> list[_Bridge]:
    points, radii = lines.points, lines.radii
    # A tip lies up to a radius behind the end of its neurite.
    reach = longest + 2.0 * float(np.percentile(radii[tips], 90)) if len(tips) else longest
    tree = cKDTree(points)
    found = []
    for tip, near in zip(tips.tolist(), tree.query_ball_point(points[tips], reach), strict=True):
        others = np.array([p for p in near if pieces[p] != pieces[tip]], dtype=np.int64)
        if not len(others):
            continue
        vectors = points[others] - points[tip]
        distance = np.linalg.norm(vectors, axis=1)
        ends = np.where(degree[others] <= 1, radii[others], 0.0)
        gap = distance - np.minimum(radii[tip], 2.0) - np.minimum(ends, 2.0)
        own = _bend(tangents[tip], vectors, distance, radii[tip])
        best_side: dict[int, _Bridge] = {}
        for i in np.flatnonzero((gap <= longest) & (own <= (1.0 + _SHORT_LEEWAY) * angle)).tolist():
            other = int(others[i])
            path = points[[tip, other]]
            if degree[other] <= 1:
                there = float(_bend(tangents[other], -vectors[i : i + 1], distance[i : i + 1], radii[other])[0])
                allowed = angle * _leeway(float(gap[i]))
                if max(own[i], there) <= allowed and _turn(tangents[tip], tangents[other]) <= 1.5 * allowed:
                    cost = distance[i] * (1 + (own[i] / angle) ** 2 + (there / angle) ** 2)
                    bends = float(own[i] + there + _turn(tangents[tip], tangents[other]))
                    found.append(_Bridge(float(cost), tip, other, path, _merit(distance[i], gap[i], bends), bends))
            elif own[i] <= _SIDE_ANGLE * angle and gap[i] <= _SIDE_LENGTH * longest:
                cost = _SIDE_PENALTY * distance[i] * (1 + 2 * (own[i] / angle) ** 2)
                piece = int(pieces[other])
                if piece not in best_side or cost < best_side[piece].cost:
                    best_side[piece] = _Bridge(float(cost), tip, other, path)
        found.extend(best_side.values())
    return found


def _bend(tangent: Floats | None, vectors: Floats, distance: Floats, radius: float) -> Floats:
    """Angle in degrees between the tip's direction and the bridges; an unknown direction fits moderately.

    A tip's position is uncertain by about half a radius, which matters for short bridges.
    """
    if tangent is None:
        return np.full(len(vectors), 25.0)
    ahead = vectors @ tangent
    aside = np.sqrt(np.maximum(distance**2 - ahead**2, 0.0))
    aside = np.maximum(aside - 0.5 * min(radius, 2.0), 0.0)
    return np.degrees(np.arctan2(aside, ahead))


def _merit(distance: float, gap: float, bends: float) -> float:
    """How well two tips go together, of all pairs of tips (from gaps of 3 voxels in generated neurons)."""
    return float(-0.67 * distance - 0.06 * max(gap - 3.0, 0.0) ** 2 - 0.016 * bends)


def _likely(bridge: _Bridge, degree: Ints) -> bool:
    """Whether geometry alone speaks for a bridge."""
    if degree[bridge.goal] > 1:
        return bridge.cost <= _SIDE_COST
    return bridge.merit >= _LEAST_MERIT or bridge.bends <= _STRAIGHT


def _leeway(gap: float) -> float:
    """How much more a short bridge between two tips may bend: neurites wind, and two fresh ends face each other."""
    return 1.0 + _SHORT_LEEWAY * min(max((9.0 - gap) / 4.0, 0.0), 1.0)


def _turn(a: Floats | None, b: Floats | None) -> float:
    """Angle in degrees by which a neurite turns from one tip's direction into the reverse of the other's."""
    if a is None or b is None:
        return 0.0
    return float(np.degrees(np.arccos(np.clip(-(a @ b), -1.0, 1.0))))


def _judge(bridge: _Bridge, lines: Lines, evidence: Evidence, least: float) -> _Bridge | None:
    path, brightness = evidence.path(lines.points[bridge.tip], lines.points[bridge.goal])
    if brightness < least:
        return None
    share = 0.25 + min(brightness, 1.0)
    return _Bridge(bridge.cost / share, bridge.tip, bridge.goal, path, bridge.merit + 3.0 * share, bridge.bends)


def _in_order(bridges: list[_Bridge], degree: Ints) -> list[_Bridge]:
    """Bridges between tips that are best paired with each other, and bridges to sides; the best first."""
    side: dict[int, float] = {}
    for bridge in bridges:
        if degree[bridge.goal] > 1:
            side[bridge.tip] = min(bridge.cost, side.get(bridge.tip, np.inf))
    between: dict[tuple[int, int], _Bridge] = {}
    for bridge in bridges:
        pair = (min(bridge.tip, bridge.goal), max(bridge.tip, bridge.goal))
        if degree[bridge.goal] > 1 or bridge.cost > min(side.get(tip, np.inf) for tip in pair):
            continue
        if pair not in between or bridge.cost < between[pair].cost:
            between[pair] = bridge
    merits = {pair: bridge.merit for pair, bridge in between.items()}
    chosen = [between[pair] for pair in best_pairs(merits, _LEAST_MERIT)]
    taken = set(map(id, chosen))
    rest = sorted((bridge for bridge in bridges if id(bridge) not in taken), key=lambda bridge: bridge.cost)
    return chosen + rest


def _accept(lines: Lines, pieces: Ints, somata: Ints, exits: Ints, bridges: list[_Bridge]) -> list[_Bridge]:
    """Those of the bridges, one after the other, that join what may be one neuron; each tip is used once."""
    degree = lines.degree()
    joined = DisjointSet(range(int(pieces.max()) + 1))
    used: set[int] = set()
    accepted: list[_Bridge] = []
    for bridge in bridges:
        a, b = joined[int(pieces[bridge.tip])], joined[int(pieces[bridge.goal])]
        if a == b or (bridge.tip in used and degree[bridge.tip]) or (somata[a] and somata[b]):
            continue
        if bridge.goal in used and degree[bridge.goal] == 1:
            continue
        if degree[bridge.goal] > 1 and not _may_end_on(somata, exits, a, b, bool(accepted)):
            continue
        joined.merge(a, b)
        for count in (somata, exits):
            count[joined[a]] = count[a] + count[b]
        used |= {bridge.tip, bridge.goal}
        accepted.append(bridge)
    return accepted


def _may_end_on(somata: Ints, exits: Ints, piece: int, other: int, gaps: bool) -> bool:
    """Whether a tip of ``piece`` may lead to the side of ``other``: not where both are neurons by themselves.

    A tip of a neuron with a cell body is the end of a neurite, not its beginning. In a mask with gaps (some tips face
    each other) a piece with one end at the border may be the far end of a neurite; in one without gaps it is a neuron.
    """
    if somata[piece]:
        return False
    if gaps:
        return exits[piece] < 2 or not (somata[other] or exits[other] >= 2)
    return not (exits[piece] and (somata[other] or exits[other]))


def _draw(lines: Lines, bridges: list[_Bridge]) -> Lines:
    points, radii, edges = [lines.points], [lines.radii], [lines.edges]
    count = len(lines.points)
    for bridge in bridges:
        between = bridge.path[1:-1]
        chain = [bridge.tip, *range(count, count + len(between)), bridge.goal]
        count += len(between)
        points.append(between)
        share = np.linspace(0, 1, len(between) + 2)[1:-1]
        radii.append((1 - share) * lines.radii[bridge.tip] + share * lines.radii[bridge.goal])
        edges.append(np.stack([chain[:-1], chain[1:]], axis=1))
    return Lines(np.concatenate(points), np.concatenate(radii), np.concatenate(edges))
