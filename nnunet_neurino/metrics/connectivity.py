"""Splits, merges, omissions and expected run length of a segmentation, judged by true trees.

Every node of the truth (resampled to ``step``) gets the label of the segmentation there. An edge of the truth is

- omitted when one of its ends is on the background,
- split when its ends have different labels,
- merged when its label also holds a considerable part of another true tree,
- correct otherwise.

The expected run length (ERL) is the length of the correctly segmented piece in which a random point of the true cable
lies, on average: the sum of squared lengths of the correct pieces over the total length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.skeleton.components import label_components
from nnunet_neurino.skeleton.graph import components
from nnunet_neurino.swc import Tree, merge_touching, resample
from nnunet_neurino.swc.tree import join_trees

_MERGE_LENGTH = 5.0  # a label merges two trees when it holds at least this much cable of each, in voxels


@dataclass(frozen=True)
class ConnectivityScores:
    """Scores of a segmentation against true trees; ``None`` where undefined, explained in ``reason``."""

    splits: int | None = None  # places at which true trees fall apart: correct pieces minus trees, over the trees found
    merges: int | None = None  # joins between true trees: for each label, the trees that it holds minus one
    omitted: float | None = None  # share of the true cable on the background
    erl: float | None = None  # expected run length in voxels; a merged label counts 0
    erl_share: float | None = None  # ``erl`` over the greatest possible one (1 is perfect)
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
    labels = segmentation
    if labels.dtype == bool:
        labels, _ = label_components(segmentation)
    trees = [truth] if isinstance(truth, Tree) else list(truth)
    sampled = join_trees([resample(merge_touching(tree), step) for tree in trees])
    at_node, edges, lengths = _labelled_edges(sampled, labels)
    total = float(lengths.sum())
    if not total > 0:
        return ConnectivityScores(reason="the truth has no cable inside the image")

    neuron = components(len(at_node), edges)
    ends = at_node[edges]
    omitted = (ends == 0).any(axis=1)
    correct = ~omitted & (ends[:, 0] == ends[:, 1])
    merged_labels, merges = _merged(ends[correct, 0], neuron[edges[correct, 0]], lengths[correct])
    piece = components(len(at_node), edges[correct])[edges[correct, 0]]
    run = np.bincount(piece, lengths[correct])
    found = len(np.unique(neuron[edges[correct, 0]]))
    sound = run[piece] * lengths[correct] * ~np.isin(ends[correct, 0], merged_labels)
    erl = float(sound.sum()) / total
    whole = np.bincount(neuron[edges[:, 0]], lengths)
    return ConnectivityScores(
        splits=len(np.unique(piece)) - found,
        merges=merges,
        omitted=float(lengths[omitted].sum()) / total,
        erl=erl,
        erl_share=erl / (float((whole**2).sum()) / total),
    )


def _labelled_edges(tree: Tree, labels: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Label at each node, edges between nodes inside the image, and the edges' lengths."""
    voxel = np.rint(tree.xyz[:, ::-1]).astype(np.int64)
    inside = ((voxel >= 0) & (voxel < labels.shape)).all(axis=1)
    at_node = np.zeros(len(tree), dtype=np.int64)
    at_node[inside] = labels[tuple(voxel[inside].T)]
    edges = tree.edges().reshape(-1, 2)
    edges = edges[inside[edges].all(axis=1)]
    return at_node, edges, np.linalg.norm(tree.xyz[edges[:, 0]] - tree.xyz[edges[:, 1]], axis=1)


def _merged(labels: NDArray, neuron: NDArray, lengths: NDArray) -> tuple[list[int], int]:
    """Labels that hold a considerable part of two neurons or more, and the number of joins they make."""
    held, inverse = np.unique(np.stack([labels, neuron], axis=1), axis=0, return_inverse=True)
    amount = np.bincount(inverse.ravel(), lengths, minlength=len(held))
    names, counts = np.unique(held[amount >= _MERGE_LENGTH, 0], return_counts=True)
    return [int(name) for name in names[counts > 1]], int((counts[counts > 1] - 1).sum())
