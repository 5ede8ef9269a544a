"""Where it is known how many neurons there are: join what is left over to what is nearest."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree

from nnunet_neurino.tracing.lines import Lines


def join_nearest(lines: Lines, neurons: int, longest: float) -> Lines:
    """Join pieces by straight bridges from tips, the shortest first, until ``neurons`` are left.

    Args:
        lines: centre lines.
        neurons: number of pieces that are wanted.
        longest: longest distance between surfaces that is bridged.
    """
    piece = lines.pieces()
    if not len(piece) or int(piece.max()) < neurons:
        return lines
    tips = np.flatnonzero(lines.degree() <= 1)
    reach = longest + lines.radii[tips] + float(lines.radii.max())
    found = []
    for tip, near in zip(tips.tolist(), cKDTree(lines.points).query_ball_point(lines.points[tips], reach), strict=True):
        others = np.array(near)[piece[near] != piece[tip]]
        gap = np.linalg.norm(lines.points[others] - lines.points[tip], axis=1) - lines.radii[others] - lines.radii[tip]
        found += [(gap[k], tip, int(others[k])) for k in np.flatnonzero(gap <= longest).tolist()]
    joined = DisjointSet(range(int(piece.max()) + 1))
    bridges = []
    for _, tip, other in sorted(found):
        if joined.n_subsets > neurons and joined.merge(int(piece[tip]), int(piece[other])):
            bridges.append((tip, other))
    edges = np.concatenate([lines.edges, np.array(bridges, dtype=np.int64).reshape(-1, 2)])
    return Lines(lines.points, lines.radii, edges)
