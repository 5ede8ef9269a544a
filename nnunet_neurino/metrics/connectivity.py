"""Splits, merges, omissions and expected run length of a segmentation or of traced trees, judged by true trees.

Every node of the truth (resampled to ``step``) gets the labels of the prediction there: of a segmentation the label of
its voxel, of trees the number of every one within a tolerance. An edge of the truth is

- omitted when one of its ends has no label,
- split when its ends have no label in common,
- merged when its label also holds a considerable part of another true tree,
- correct otherwise. Of several labels that its ends have in common, an edge has the one with the longest run.

The expected run length (ERL) is the length of the correct piece in which a random point of the true cable lies, on
average: the sum of squared lengths of the correct pieces over the total length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_neurino.skeleton.components import label_components
from nnunet_neurino.skeleton.graph import components
from nnunet_neurino.swc import Tree, merge_touching, resample
from nnunet_neurino.swc.tree import join_trees

_MERGE_LENGTH = 5.0  # a label merges two trees when it holds at least this many steps of cable of each
_MERGE_REACH = 4.0  # and at least this times the tolerance: where two neurons cross each is within reach of the other

_THICK = 5.0
_MOST_NODES = 200_000


@dataclass(frozen=True)
class ConnectivityScores:
    """Scores of a prediction against true trees; ``None`` where undefined, explained in ``reason``."""

    splits: int | None = None  # places at which true trees fall apart: correct pieces minus trees, over the trees found
    merges: int | None = None  # joins between true trees: for each label, the trees that it holds minus one
    omitted: float | None = None  # share of the true cable that the prediction misses
    erl: float | None = None  # expected run length in the unit of the truth; a merged label counts 0
    nerl: float | None = None  # ``erl`` over the greatest possible one (1 is perfect)
    reason: str | None = None  # why all of them are undefined


def connectivity_scores(segmentation: NDArray, truth: Tree | Sequence[Tree], step: float = 1.0) -> ConnectivityScores:
    """Judge a segmentation by true trees.

    Args:
        segmentation: (z, y, x): a mask (its 26-connected components are the labels) or an integer label image with 0
            as background.
        truth: one tree (its connected pieces are the neurons) or several, in voxels of ``segmentation``.
        step: distance in voxels at which the truth is sampled.

    Returns:
        The scores; undefined when the truth has no cable inside the image.
    """
    labels = label_components(segmentation)[0] if segmentation.dtype == bool else segmentation
    true = join_trees(
        [resample(merge_touching(tree), step) for tree in ([truth] if isinstance(truth, Tree) else truth)]
    )
    voxel = np.rint(true.xyz[:, ::-1]).astype(np.int64)
    inside = ((voxel >= 0) & (voxel < labels.shape)).all(axis=1)
    edges = true.edges().reshape(-1, 2)
    edges = edges[inside[edges].all(axis=1)]
    nodes = np.flatnonzero(inside)
    at_node = labels[tuple(voxel[inside].T)]
    return _scores(true, edges, nodes[at_node > 0], at_node[at_node > 0], _MERGE_LENGTH * step)


def tree_connectivity_scores(pred: Tree, truth: Tree, tolerance: float = 2.0) -> ConnectivityScores:
    """Judge predicted trees (the connected pieces of ``pred``) by true ones.

    Args:
        pred, truth: trees in the same unit.
        tolerance: distance within which a predicted tree is at a node of the truth; in a thicker neurite or cell body
            its radius, if that is no more than five times the tolerance.

    Returns:
        The scores; undefined when the truth has no cable.
    """
    step = max(0.5 * tolerance, max(pred.length, truth.length) / _MOST_NODES, 1e-9)
    true, ours = (resample(merge_touching(tree), step) for tree in (truth, pred))
    piece = components(len(ours), ours.edges().reshape(-1, 2))
    reach = np.clip(true.radii, tolerance, _THICK * tolerance)
    found = [np.empty((0, 2), dtype=np.int64)]
    for number in range(int(piece.max(initial=-1)) + 1):
        own = ours.xyz[piece == number]
        beyond = np.maximum(own.min(axis=0) - true.xyz, true.xyz - own.max(axis=0)).max(axis=1)
        nodes = np.flatnonzero(beyond <= reach)
        distance, _ = cKDTree(own).query(true.xyz[nodes], distance_upper_bound=1.001 * _THICK * tolerance)
        nodes = nodes[distance <= reach[nodes]]
        found.append(np.stack([nodes, np.full(len(nodes), number + 1)], axis=1))
    nodes, labels = np.concatenate(found).T
    least = max(_MERGE_LENGTH * step, _MERGE_REACH * tolerance)
    return _scores(true, true.edges().reshape(-1, 2), nodes, labels, least)


def _scores(true: Tree, edges: NDArray, nodes: NDArray, labels: NDArray, least: float) -> ConnectivityScores:
    """Scores of labels, given as pairs of a node of the truth and a label there, for some of its edges."""
    lengths = np.linalg.norm(true.xyz[edges[:, 0]] - true.xyz[edges[:, 1]], axis=1)
    total = float(lengths.sum())
    if not total > 0:
        return ConnectivityScores(reason="the truth has no cable inside the image")
    neuron = components(len(true), edges)
    edge, first, second = _common(edges, nodes, labels)
    run = components(len(nodes), np.stack([first, second], axis=1))[first]
    order = np.lexsort((-np.bincount(run, lengths[edge])[run], edge)) if len(edge) else edge
    order = order[np.unique(edge[order], return_index=True)[1]]
    correct, first, second = edge[order], first[order], second[order]
    label, of = labels[first], neuron[edges[correct, 0]]
    merged_labels, merges = _merged(label, of, lengths[correct], least)
    piece = components(len(nodes), np.stack([first, second], axis=1))[first]
    run = np.bincount(piece, lengths[correct])
    sound = run[piece] * lengths[correct] * ~np.isin(label, merged_labels)
    has_label = np.zeros(len(true), dtype=bool)
    has_label[nodes] = True
    whole = np.bincount(neuron[edges[:, 0]], lengths)
    erl = float(sound.sum()) / total
    return ConnectivityScores(
        splits=len(np.unique(piece)) - len(np.unique(of)),
        merges=merges,
        omitted=float(lengths[~has_label[edges].all(axis=1)].sum()) / total,
        erl=erl,
        nerl=erl / (float((whole**2).sum()) / total),
    )


def _common(edges: NDArray, nodes: NDArray, labels: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """For each label that both ends of an edge have: the edge, and the rows of that label at its two ends."""
    span = int(labels.max(initial=0)) + 1
    keys = nodes.astype(np.int64) * span + labels
    by_key = np.argsort(keys)
    count = np.bincount(nodes, minlength=int(edges.max()) + 1)
    by_node = np.argsort(nodes, kind="stable")
    begin = np.cumsum(count) - count
    edge = np.repeat(np.arange(len(edges)), count[edges[:, 0]])
    within = np.arange(len(edge)) - np.repeat(np.cumsum(count[edges[:, 0]]) - count[edges[:, 0]], count[edges[:, 0]])
    first = by_node[begin[edges[edge, 0]] + within]
    wanted = edges[edge, 1] * span + labels[first]
    place = np.minimum(np.searchsorted(keys, wanted, sorter=by_key), max(len(keys) - 1, 0))
    second = by_key[place]
    has = keys[second] == wanted
    return edge[has], first[has], second[has]


def _merged(labels: NDArray, neuron: NDArray, lengths: NDArray, least: float) -> tuple[list[int], int]:
    """Labels that hold at least ``least`` of two neurons or more, and the number of joins they make."""
    held, inverse = np.unique(np.stack([labels, neuron], axis=1), axis=0, return_inverse=True)
    amount = np.bincount(inverse.ravel(), lengths, minlength=len(held))
    names, counts = np.unique(held[amount >= least, 0], return_counts=True)
    return [int(name) for name in names[counts > 1]], int((counts[counts > 1] - 1).sum())
