"""Cell bodies: inside one there is no neurite, only the way from its centre to where each neurite leaves."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from nnunet_neurino.tracing.lines import Ints, Lines

SOMA_RATIO = 2.2  # a point this many times as thick as the neurites of its piece is in a cell body
_REACH = 1.3, 1.0  # a cell body ends at this times its depth plus this: fronts near its surface mix its neurites


def find_somata(lines: Lines) -> Ints:
    """The centres of cell bodies: the thickest points, much thicker than the neurites and not inside one another."""
    if not len(lines.points):
        return np.empty(0, dtype=np.int64)
    piece = lines.pieces()
    typical = median_of(lines.radii, piece)[piece]
    thick = np.flatnonzero(lines.radii > np.maximum(SOMA_RATIO * typical, 3.0))
    thick = thick[np.argsort(-lines.radii[thick], kind="stable")]
    found: list[int] = []
    for point in thick.tolist():
        if found:
            distance = np.linalg.norm(lines.points[found] - lines.points[point], axis=1)
            if (distance < lines.radii[found] + lines.radii[point]).any():
                continue
        found.append(point)
    return np.array(found, dtype=np.int64)


def star_somata(lines: Lines) -> Lines:
    """Join every neurite straight to the centre of its cell body and leave out what else runs in there."""
    somata = find_somata(lines)
    if not len(somata):
        return lines
    tree = cKDTree(lines.points)
    owner = np.full(len(lines.points), -1, dtype=np.int64)
    for soma, inside in zip(
        somata.tolist(),
        tree.query_ball_point(lines.points[somata], _REACH[0] * lines.radii[somata] + _REACH[1]),
        strict=True,
    ):
        owner[inside] = soma
    owner[somata] = somata
    moved = np.where(owner >= 0, owner, np.arange(len(lines.points)))
    edges = np.unique(np.sort(moved[lines.edges], axis=1), axis=0)
    edges = edges[edges[:, 0] != edges[:, 1]]
    wanted = owner < 0
    wanted[somata] = True
    return _without_cycles(Lines(lines.points, lines.radii, edges)).keep(wanted)


def _without_cycles(lines: Lines) -> Lines:
    """Leave out joins that close a circle: a bundle of lines may enter one cell body twice."""
    leader = list(range(len(lines.points)))

    def top(point: int) -> int:
        while leader[point] != point:
            leader[point] = leader[leader[point]]
            point = leader[point]
        return point

    kept = []
    for i, (a, b) in enumerate(lines.edges.tolist()):
        a, b = top(a), top(b)
        if a != b:
            leader[a] = b
            kept.append(i)
    return Lines(lines.points, lines.radii, lines.edges[kept])


def median_of(values: np.ndarray, group: Ints) -> np.ndarray:
    """Median of the values of each group 0, 1, ...; every group has some."""
    order = np.lexsort((values, group))
    starts = np.searchsorted(group[order], np.arange(int(group.max()) + 2))
    return values[order][(starts[:-1] + starts[1:] - 1) // 2]
