"""Cell bodies: inside one there is no neurite, only the way from its centre to where each neurite leaves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_neurino.tracing.lines import Ints, Lines

_THICK = 2.2  # a point this many times as thick as the neurites of its piece is in a cell body
_BODY = 1.8  # a cell body is this many times as thick as the neurites that leave it
_LIKE, _LIKE_SWELLING = 0.65, 0.9  # and at least this share of the thickest one in the same piece
_STRETCH = 0.6  # and a neurite that joins two of them is thinner than this times the thinner one
_SURFACE = 1.2, 1.0  # a cell body ends at this times its radius plus the last


def thick_centres(lines: Lines) -> Ints:
    """Points of cell bodies and swellings: much thicker than the neurites, each the thickest far around."""
    if not len(lines.points):
        return np.empty(0, dtype=np.int64)
    piece = lines.pieces()
    typical = median_of(lines.radii, piece)[piece]
    thick = np.flatnonzero(lines.radii > np.maximum(_THICK * typical, 3.0))
    thick = thick[np.argsort(-lines.radii[thick], kind="stable")]
    found: list[int] = []
    for point in thick.tolist():
        if found:
            distance = np.linalg.norm(lines.points[found] - lines.points[point], axis=1)
            if (distance < lines.radii[found] + lines.radii[point]).any():
                continue
        found.append(point)
    return np.array(found, dtype=np.int64)


def soma_centres(lines: Lines) -> frozenset[int]:
    """Those of :func:`thick_centres` that are much thicker than the neurites beside them, too: no swellings."""
    somata = thick_centres(lines)
    if not len(somata):
        return frozenset()
    found = []
    tree = cKDTree(lines.points)
    piece = lines.pieces()
    largest = np.zeros(int(piece.max()) + 1)
    np.maximum.at(largest, piece[somata], lines.radii[somata])
    for point in somata.tolist():
        radius = lines.radii[point]
        share = _LIKE if _stems(lines, point) > 2 else _LIKE_SWELLING  # a swelling lies on one neurite
        if radius < share * largest[piece[point]]:
            continue
        around = [p for p in tree.query_ball_point(lines.points[point], 3.0 * radius) if p != point]
        around = [p for p in around if piece[p] == piece[point]]
        if around and radius >= _BODY * float(np.median(lines.radii[around])):
            found.append(point)
    return frozenset(_one_of_each_thick_stretch(lines, piece, found))


def in_body(lines: Lines, body: int) -> NDArray[np.bool_]:
    """Which points lie in a cell body; ``body`` is the point in its middle."""
    distance = np.linalg.norm(lines.points - lines.points[body], axis=1)
    return distance <= _SURFACE[0] * lines.radii[body] + _SURFACE[1]


def _stems(lines: Lines, body: int) -> int:
    """Number of neurites that leave a cell body."""
    inside = in_body(lines, body)[lines.edges]
    return int(np.count_nonzero(inside[:, 0] != inside[:, 1]))


def _one_of_each_thick_stretch(lines: Lines, piece: Ints, points: list[int]) -> list[int]:
    """The first of those points that thick neurites join: a thick neurite is no row of cell bodies."""
    least = np.full(int(piece.max()) + 1, np.inf)
    np.minimum.at(least, piece[points], lines.radii[points])
    thick = lines.radii >= _STRETCH * least[piece]
    stretch = Lines(lines.points, lines.radii, lines.edges[thick[lines.edges].all(axis=1)]).pieces()
    return [points[k] for k in sorted(np.unique(stretch[points], return_index=True)[1].tolist())]


def median_of(values: np.ndarray, group: Ints) -> np.ndarray:
    """Median of the values of each group 0, 1, ...; every group has some."""
    order = np.lexsort((values, group))
    starts = np.searchsorted(group[order], np.arange(int(group.max()) + 2))
    return values[order][(starts[:-1] + starts[1:] - 1) // 2]
