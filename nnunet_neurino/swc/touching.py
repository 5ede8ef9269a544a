"""Joining segments that were drawn one by one and touch: Vaa3D writes every branch as a tree of its own."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.skeleton.graph import adjacency, components, search
from nnunet_neurino.swc.tree import SOMA, Tree, parents_first, take


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
    kept = _join(tree, _touching_pairs(tree, tolerance))
    if (kept == np.arange(len(tree))).all():
        return tree
    pieces = tree.n_pieces
    merged = _hang(tree, kept)
    note = Finding(0, f"{pieces} pieces, some with nodes on the same spot", f"joined to {merged.n_pieces}")
    return take(merged, np.arange(len(merged)), findings=(*tree.findings, note))


def _touching_pairs(tree: Tree, tolerance: float) -> np.ndarray:
    """Rows (k, 2) of nodes on the same spot, nearest first; the node that stays comes first (no root, if possible)."""
    n = len(tree)
    if n < 2:
        return np.zeros((0, 2), dtype=np.int64)
    is_root = tree.parents < 0
    if tolerance > 0:
        pairs = cKDTree(tree.xyz).query_pairs(tolerance, output_type="ndarray")
        piece = tree.piece_labels()
        pairs = pairs[piece[pairs[:, 0]] != piece[pairs[:, 1]]]
        turn = is_root[pairs[:, 0]] & ~is_root[pairs[:, 1]]
        pairs[turn] = pairs[turn][:, ::-1]
        distance = np.linalg.norm(tree.xyz[pairs[:, 0]] - tree.xyz[pairs[:, 1]], axis=1)
        return pairs[np.lexsort((pairs[:, 1], pairs[:, 0], distance))]
    x, y, z = tree.xyz.T + 0.0  # + 0.0: -0.0 is the same spot as 0.0
    order = np.lexsort((np.arange(n), is_root, x, y, z))
    starts = np.concatenate([[True], (np.diff(tree.xyz[order], axis=0) != 0).any(axis=1)])
    first = order[np.maximum.accumulate(np.where(starts, np.arange(n), 0))]
    pairs = np.stack([first, order], axis=1)[~starts]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _join(tree: Tree, pairs: np.ndarray) -> np.ndarray:
    """The row (n,) that every node becomes; joining pieces never closes a circle."""
    kept = np.arange(len(tree))
    piece = tree.piece_labels()
    touching = np.unique(pairs).tolist()
    pieces, nodes = DisjointSet(np.unique(piece[touching]).tolist()), DisjointSet(touching)
    for stay, go in pairs.tolist():
        if pieces.merge(int(piece[stay]), int(piece[go])):
            first = kept[nodes[stay]]
            nodes.merge(stay, go)
            kept[nodes[stay]] = first
    kept[touching] = [kept[nodes[row]] for row in touching]
    return kept


def _hang(tree: Tree, kept: np.ndarray) -> Tree:
    """Contract nodes onto those that they become and point all edges towards one root a piece."""
    n = len(tree)
    edges = kept[tree.edges()]
    roots = tree.roots
    # Soma roots first, then file order; the first root of a piece wins.
    roots = kept[roots[np.lexsort((roots, tree.types[roots] != SOMA))]]
    _, first = np.unique(components(n, edges)[roots], return_index=True)
    _, parents = search(adjacency(n, edges), roots[first])
    return parents_first(take(replace(tree, parents=parents), np.unique(kept)))
