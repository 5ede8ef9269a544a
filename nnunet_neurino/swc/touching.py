"""Joining segments that were drawn one by one and touch: Vaa3D writes every branch as a tree of its own."""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import cKDTree

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc.tree import SOMA, Finding, Tree, parents_first, take


def merge_touching(tree: Tree, tolerance: float = 0.0) -> Tree:
    """Make one piece of pieces that have a node on the same spot.

    Nodes of different pieces within ``tolerance`` (the tree's unit) become one node, which keeps the position, type
    and radius of the first of them that is not a root. Nothing closes a circle: where two pieces touch twice they
    are joined once, and the second pair of nodes stays apart. No edge is lost. Each joined piece hangs from its
    first soma root, else from its first root; edges are turned where needed.

    Examples:
        >>> trunk_and_branch = Tree.build(
        ...     [[0, 0, 0], [5, 0, 0], [9, 0, 0], [5, 0, 0], [5, 7, 0]], [-1, 0, 1, -1, 3])
        >>> merged = merge_touching(trunk_and_branch)
        >>> merged.n_pieces, merged.n_nodes, merged.length
        (1, 4, 16.0)
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise NeurinoError(f"merge_touching: expected a tolerance from 0 on, got {tolerance!r}")
    kept = _join(tree, _spots(tree.xyz, tolerance))
    if (kept == np.arange(len(tree))).all():
        return tree
    pieces = tree.n_pieces
    merged = _hang(tree, kept)
    note = Finding(0, f"{pieces} pieces, some with nodes on the same spot", f"joined to {merged.n_pieces}")
    return take(merged, np.arange(len(merged)), findings=(*tree.findings, note))


def _spots(xyz: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Groups (rows, ascending) of two or more nodes on the same spot, in the order of their first rows."""
    n = len(xyz)
    if tolerance > 0:
        pairs = cKDTree(xyz).query_pairs(tolerance, output_type="ndarray") if n else np.zeros((0, 2), int)
        graph = sparse.coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
        _, spot = connected_components(graph, directed=False)
        order = np.argsort(spot, kind="stable")
        new = np.diff(spot[order]) != 0
    else:
        order = np.lexsort((np.arange(n), *(xyz.T + 0.0)))  # + 0.0: -0.0 is the same spot as 0.0
        new = (np.diff(xyz[order], axis=0) != 0).any(axis=1)
    groups = [g for g in np.split(order, np.flatnonzero(new) + 1) if len(g) > 1] if n else []
    return sorted(groups, key=lambda group: int(group[0]))


def _join(tree: Tree, spots: list[np.ndarray]) -> np.ndarray:
    """The row (n,) that stands for every node; joining pieces never closes a circle."""
    kept = np.arange(len(tree))
    piece = tree.piece_labels()
    joined = np.arange(tree.n_pieces)

    def find(one: int) -> int:
        while joined[one] != one:
            joined[one] = joined[joined[one]]
            one = joined[one]
        return one

    for spot in spots:
        members = sorted(spot.tolist(), key=lambda row: (tree.parents[row] < 0, row))
        first = members[0]
        for row in members[1:]:
            a, b = find(int(piece[first])), find(int(piece[row]))
            if a != b:
                joined[max(a, b)] = min(a, b)
                kept[row] = first
    return kept


def _hang(tree: Tree, kept: np.ndarray) -> Tree:
    """Contract nodes onto those that stand for them and point all edges towards one root a piece."""
    n = len(tree)
    edges = kept[tree.edges()]
    graph = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n + 1, n + 1))
    _, piece = connected_components(graph, directed=False)
    roots = tree.roots
    # Soma roots first, then file order; the first root of a piece wins.
    roots = roots[np.lexsort((roots, tree.types[roots] != SOMA))]
    _, first = np.unique(piece[kept[roots]], return_index=True)
    tops = kept[roots[first]]
    # A node above all tops makes one search of many.
    ends = np.concatenate([edges, np.stack([np.full(len(tops), n), tops], axis=1)])
    graph = sparse.coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n + 1, n + 1)).tocsr()
    _, above = breadth_first_order(graph, n, directed=False)
    rows = np.unique(kept)
    parents = np.where((above < 0) | (above == n), -1, above)[:n].astype(np.int64)
    turned = Tree(tree.ids, tree.types, tree.xyz, tree.radii, parents, tree.unit, tree.findings)
    return parents_first(take(turned, rows))
