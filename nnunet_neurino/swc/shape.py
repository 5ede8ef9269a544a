"""Changing how a tree is sampled and what of it is kept: resample, prune, crop."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc.edges import clip_to_box
from nnunet_neurino.swc.tree import Tree, parents_first, parents_first_order, take

_MAX_RESAMPLED = 5_000_000  # as many as are read


def sections(tree: Tree) -> list[np.ndarray]:
    """Unbranched stretches as rows from top to bottom, both ends included.

    Ends are roots, forks and tips. Lone nodes have no section.
    """
    parents = tree.parents.tolist()
    is_end = (tree.parents < 0) | (tree.n_children() != 1)
    ends = is_end.tolist()
    found = []
    for bottom in np.flatnonzero(is_end & (tree.parents >= 0)).tolist():
        rows = [bottom]
        above = parents[bottom]
        while not ends[above]:
            rows.append(above)
            above = parents[above]
        rows.append(above)
        found.append(np.array(rows[::-1], dtype=np.int64))
    return found


def resample(tree: Tree, step: float) -> Tree:
    """Space nodes evenly along every unbranched section, at most ``step`` apart (the tree's unit).

    Roots, forks and tips stay; the others are replaced by points on the old path with interpolated radius and the
    type of the next old node below. Ids are new.

    Examples:
        >>> resample(Tree.build([[0, 0, 0], [1, 0, 0], [4, 0, 0]], [-1, 0, 1]), step=2).xyz[:, 0]
        array([0., 2., 4.])
    """
    if not (math.isfinite(step) and step > 0):
        raise NeurinoError(f"resample: expected a step above 0, got {step!r}")
    stretches = sections(tree)
    arcs = []
    total = 0.0
    for rows in stretches:
        lengths = np.linalg.norm(np.diff(tree.xyz[rows], axis=0), axis=1)
        arcs.append(np.concatenate([[0.0], np.cumsum(lengths)]))
        total += float(arcs[-1][-1]) / step
    if not total <= _MAX_RESAMPLED:
        raise NeurinoError(f"resample: a step of {step:g} would make {total:.3g} nodes; take a larger step")
    ends = np.flatnonzero((tree.parents < 0) | (tree.n_children() != 1))
    new_row = np.full(len(tree), -1, dtype=np.int64)
    new_row[ends] = np.arange(len(ends))
    xyz, radii, types = [tree.xyz[ends]], [tree.radii[ends]], [tree.types[ends]]
    parents = [np.full(len(ends), -1, dtype=np.int64)]
    n = len(ends)
    for rows, arc in zip(stretches, arcs, strict=True):
        inner = max(math.ceil(arc[-1] / step * (1 - 1e-12)), 1) - 1
        at = arc[-1] * np.arange(1, inner + 1) / (inner + 1)
        xyz.append(np.stack([np.interp(at, arc, tree.xyz[rows, axis]) for axis in range(3)], axis=1))
        radii.append(np.interp(at, arc, tree.radii[rows]))
        types.append(tree.types[rows[np.minimum(np.searchsorted(arc, at), len(rows) - 1)]])
        above = np.arange(n - 1, n + inner - 1)
        if inner:
            above[0] = new_row[rows[0]]
        parents.append(above)
        parents[0][new_row[rows[-1]]] = n + inner - 1 if inner else new_row[rows[0]]
        n += inner
    all_parents = np.concatenate(parents)
    resampled = Tree(
        np.arange(1, n + 1),
        np.concatenate(types),
        np.concatenate(xyz),
        np.concatenate(radii),
        all_parents,
        tree.unit,
        tree.findings,
    )
    order = parents_first_order(all_parents)
    return take(resampled, order, ids=np.arange(1, n + 1))


def prune(tree: Tree, length: float) -> Tree:
    """Remove side branches whose farthest tip is less than ``length`` (the tree's unit) from their fork.

    At every fork the branch that reaches farthest stays, so no stem gets shorter and no piece vanishes.
    """
    if not length >= 0:
        raise NeurinoError(f"prune: expected a length from 0 on, got {length!r}")
    order = parents_first_order(tree.parents).tolist()
    parents = tree.parents.tolist()
    edge = np.zeros(len(tree))
    ends = tree.edges()
    edge[ends[:, 0]] = tree.edge_lengths()
    up = edge.tolist()
    reach = [0.0] * len(tree)  # from a node down to its farthest tip
    longest = [-1] * len(tree)  # the child that leads there
    for row in reversed(order):
        parent = parents[row]
        if parent >= 0 and (longest[parent] < 0 or reach[row] + up[row] > reach[parent]):
            reach[parent] = reach[row] + up[row]
            longest[parent] = row
    keep = [True] * len(tree)
    for row in order:
        parent = parents[row]
        if parent >= 0:
            keep[row] = keep[parent] and (longest[parent] == row or reach[row] + up[row] >= length)
    return take(tree, np.flatnonzero(keep))


def crop(tree: Tree, low: Sequence[float], high: Sequence[float]) -> Tree:
    """The part of a tree in the closed box from ``low`` to ``high`` (x, y, z, the tree's unit).

    Edges that cross the border are cut there: they end in a new node exactly on it, with interpolated radius and the
    type of the child. An edge that crosses the whole box becomes a piece of its own. Positions are not shifted. The
    voxels of an image of shape (Z, Y, X) are the box from (-0.5, -0.5, -0.5) to (X - 0.5, Y - 0.5, Z - 0.5).
    """
    lower, upper = np.array(low, dtype=float), np.array(high, dtype=float)
    if lower.shape != (3,) or upper.shape != (3,) or not (lower <= upper).all():
        raise NeurinoError(f"crop: expected low <= high, three numbers x, y, z each, got {low!r} and {high!r}")
    inside = np.asarray(((tree.xyz >= lower) & (tree.xyz <= upper)).all(axis=1))
    edges = tree.edges()
    child, parent = edges[:, 0], edges[:, 1]
    t0, t1 = clip_to_box(tree.xyz[child], tree.xyz[parent], lower, upper)
    # An inner end is kept as it is; clipping decides only about outer ends.
    t0, t1 = np.where(inside[child], 0.0, t0), np.where(inside[parent], 1.0, t1)
    whole = inside[child] & inside[parent]
    cut = np.flatnonzero(~whole & (t0 < t1))

    xyz, radii, types, parents = [tree.xyz], [tree.radii], [tree.types], [np.full(len(tree), -1, np.int64)]
    parents[0][child[whole]] = parent[whole]
    n = len(tree)
    top = parent[cut].copy()  # row of the upper end of what is left of an edge
    for ends, t, is_top in ((parent, t1, True), (child, t0, False)):
        which = cut[~inside[ends[cut]]]
        new = np.arange(n, n + len(which))
        n += len(new)
        weight = t[which, None]
        exact = tree.xyz[child[which]] * (1 - weight) + tree.xyz[parent[which]] * weight
        xyz.append(_onto_border(exact, tree.xyz[ends[which]], lower, upper))
        radii.append(tree.radii[child[which]] * (1 - t[which]) + tree.radii[parent[which]] * t[which])
        types.append(tree.types[child[which]])
        outer = ~inside[ends[cut]]
        if is_top:
            top[outer] = new
            parents.append(np.full(len(new), -1, np.int64))
        else:
            parents.append(top[outer])
            entering = ~outer
            parents[0][child[cut[entering]]] = top[entering]
    added = np.arange(len(tree), n)
    free = np.setdiff1d(np.arange(1, 2 * n + 1), tree.ids)[: len(added)]
    grown = Tree(
        np.concatenate([tree.ids, free]),
        np.concatenate(types),
        np.concatenate(xyz),
        np.concatenate(radii),
        np.concatenate(parents),
        tree.unit,
        tree.findings,
    )
    return parents_first(take(grown, np.concatenate([np.flatnonzero(inside), added])))


def _onto_border(points: np.ndarray, outer: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Put cut points exactly on the face they were cut at, in spite of rounding."""
    points = np.clip(points, low, high)
    below, above = outer < low, outer > high
    gap = np.where(below, points - low, np.where(above, high - points, np.inf))
    face = gap.argmin(axis=1)
    rows = np.arange(len(points))
    points[rows, face] = np.where(below[rows, face], low[face], high[face])
    return points
