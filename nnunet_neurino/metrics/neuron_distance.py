"""ESA, DSA and PDS between two traced neurons, by the definition of Vaa3D's ``neuron_distance`` plugin.

The definition, in short: every edge (node to parent) is sampled by ``int(1.5 + length)`` equally spaced points, both
ends included, or by its child end alone when it is shorter than half a unit. The distance of a sample is the Euclidean
distance to the nearest point of the nearest edge of the other tree. Then, for one direction,

- ESA (entire structure average) is the mean distance of all samples,
- PDS (percentage of different structure) is the share of samples at least ``threshold`` away, 0 to 1,
- DSA (different structure average) is the mean distance of those samples,

and the headline numbers combine the two directions: ESA and PDS by their mean; DSA by the mean of the directions that
have different samples, 0 when neither has. Distances are in the unit of the files, as in Vaa3D: voxels for trees in
voxels. Where a tree has very much cable in its unit, samples between nodes are further apart, and each has the weight
of those that it replaces.

Both trees are sanitised in the same way first: a node whose parent is not in the file is a root and invents no edge
(the plugin itself joins it to the first row of the file); nodes without any edge count neither as source nor as target.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.metrics.segments import Floats, SegmentIndex, tree_segments
from nnunet_neurino.swc import Tree, read_swc

# Rounding of interpolated coordinates must not move a sample that is exactly at the threshold below it.
_ROUNDING = 1e-10
# Samples between the nodes of a tree: more say nothing new, and a tree in nanometres would have hundreds of millions.
_MOST_BETWEEN, _MOST_ON_EDGE = 100_000, 10_000


@dataclass(frozen=True)
class NeuronDistance:
    """Scores of one pair of trees; lengths in the unit of the trees, shares from 0 to 1.

    All scores are ``None`` when they are undefined, and ``reason`` then says why.
    """

    esa: float | None = None  # mean of the two directed ESA
    dsa: float | None = None  # combined DSA; 0 when no sample of either tree is different
    pds: float | None = None  # mean of the two directed PDS
    # mean distance of the samples of one tree to the other
    esa_pred_to_truth: float | None = None
    esa_truth_to_pred: float | None = None
    # mean distance of the different samples; 0 when there are none
    dsa_pred_to_truth: float | None = None
    dsa_truth_to_pred: float | None = None
    # share of different samples
    pds_pred_to_truth: float | None = None
    pds_truth_to_pred: float | None = None
    max_distance: float | None = None  # the smaller of the two directed maxima (the plugin's "max distance")
    # number of samples on each tree
    n_points_pred: int = 0
    n_points_truth: int = 0
    threshold: float = 2.0  # distance from which on (inclusive) a sample counts as different
    reason: str | None = None  # why the scores are undefined


def neuron_distance(
    pred: Tree | str | os.PathLike[str], truth: Tree | str | os.PathLike[str], threshold: float = 2.0
) -> NeuronDistance:
    """Score a predicted tree against the truth; see the module's text for the definition.

    Args:
        pred: predicted tree, or the path of its SWC file.
        truth: true tree, or the path of its SWC file.
        threshold: distance from which on (inclusive) a sample counts as different, in the unit of the trees.

    Returns:
        The scores. When a tree has no edge (empty, one node, only lone nodes) the scores are ``None`` and ``reason``
        says so.

    Raises:
        NeurinoError: one tree is in voxels and the other in micrometres.
    """
    pred = pred if isinstance(pred, Tree) else read_swc(pred, allow_empty=True)
    truth = truth if isinstance(truth, Tree) else read_swc(truth, allow_empty=True)
    units = {pred.unit, truth.unit} - {"unknown"}
    if len(units) > 1:
        raise NeurinoError(
            f"the prediction is in {pred.unit}s and the truth in {truth.unit}s: expected the same unit; "
            "convert one of them with the voxel size first"
        )
    pred_points, pred_weights = _samples(pred)
    truth_points, truth_weights = _samples(truth)
    ours, theirs = int(pred_weights.sum()), int(truth_weights.sum())
    if not ours or not theirs:
        sides = (("prediction", pred, ours), ("truth", truth, theirs))
        reason = " and ".join(f"the {name} has no edge ({len(tree)} nodes)" for name, tree, count in sides if not count)
        return NeuronDistance(n_points_pred=ours, n_points_truth=theirs, threshold=threshold, reason=reason)
    forth = _directed(pred_points, pred_weights, truth, threshold)
    back = _directed(truth_points, truth_weights, pred, threshold)
    different = [d.dsa for d in (forth, back) if d.pds > 0]
    return NeuronDistance(
        esa=0.5 * (forth.esa + back.esa),
        dsa=float(np.mean(different)) if different else 0.0,
        pds=0.5 * (forth.pds + back.pds),
        esa_pred_to_truth=forth.esa,
        esa_truth_to_pred=back.esa,
        dsa_pred_to_truth=forth.dsa,
        dsa_truth_to_pred=back.dsa,
        pds_pred_to_truth=forth.pds,
        pds_truth_to_pred=back.pds,
        max_distance=min(forth.maximum, back.maximum),
        n_points_pred=ours,
        n_points_truth=theirs,
        threshold=threshold,
    )


@dataclass(frozen=True)
class _Directed:
    esa: float
    dsa: float
    pds: float
    maximum: float


def _directed(points: Floats, weights: Floats, target: Tree, threshold: float) -> _Directed:
    distance = SegmentIndex(*tree_segments(target)).distance(points)
    total = float(weights.sum())
    different = distance >= threshold - _ROUNDING
    share = float(weights[different].sum())
    return _Directed(
        esa=float(weights @ distance) / total,
        dsa=float(weights[different] @ distance[different]) / share if share else 0.0,
        pds=share / total,
        maximum=float(distance.max()),
    )


def _samples(tree: Tree) -> tuple[Floats, Floats]:
    """Sample points (n, 3) of all edges, and how often each of them counts.

    A node that several edges share is sampled once by each of them; it is kept once here with that number. Of very
    many samples between the nodes of an edge some stand for all, each for equally many neighbours on both its sides.
    """
    edges = tree.edges()
    child, parent = edges[:, 0], edges[:, 1]
    counts = np.floor(1.5 + tree.edge_lengths())
    node_weight = np.bincount(child, minlength=len(tree)) + np.bincount(parent[counts > 1], minlength=len(tree))
    inner = np.maximum(counts - 2, 0)
    kept = np.minimum(inner, _MOST_ON_EDGE)
    kept = np.ceil(kept * min(_MOST_BETWEEN / max(float(kept.sum()), 1.0), 1.0)).astype(np.int64)
    owner = np.repeat(np.arange(len(edges)), kept)
    each = inner[owner] / kept[owner]
    rank = np.arange(len(owner)) - (np.cumsum(kept) - kept)[owner]
    fraction = (0.5 + (rank + 0.5) * each) / (counts[owner] - 1)
    start, end = tree.xyz[child[owner]], tree.xyz[parent[owner]]
    used = node_weight > 0
    points = np.concatenate([tree.xyz[used], start + fraction[:, None] * (end - start)])
    return points, np.concatenate([node_weight[used], each])
