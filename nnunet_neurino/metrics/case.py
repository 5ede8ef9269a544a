"""All scores of one case: a prediction and its truth, each a mask or a tree."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.metrics.connectivity import connectivity_scores, tree_connectivity_scores
from nnunet_neurino.metrics.length import length_scores, tree_counts
from nnunet_neurino.metrics.neuron_distance import neuron_distance
from nnunet_neurino.metrics.scores import NAMES
from nnunet_neurino.metrics.subject import Subject
from nnunet_neurino.metrics.topology import topology_scores
from nnunet_neurino.metrics.units import into_image, mirrored_mask, mirrored_tree, same_unit, suspicion
from nnunet_neurino.metrics.voxel import same_shape, voxel_scores
from nnunet_neurino.swc import Tree, merge_touching, rasterise

Tracer = Callable[[NDArray[np.bool_], Sequence[float]], Tree]


@dataclass(frozen=True)
class CaseOptions:
    """How a case is scored; distances are in the unit of the trees."""

    threshold: float = 2.0  # distance from which on DSA and PDS call a sample different
    tolerance: float = 2.0  # of the length scores
    trace_masks: bool = False  # also trace two masks and score their trees

    def __post_init__(self) -> None:
        for name in ("threshold", "tolerance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise NeurinoError(f"{name} {getattr(self, name):g}: expected a distance of 0 or more")


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case."""

    scores: dict[str, float | None]  # every name of ``scores.NAMES``; ``None`` where undefined
    reasons: dict[str, str]  # why scores are undefined, by the kind of score
    notes: tuple[str, ...]  # what was odd and how it was taken
    unit: str | None  # unit of the tree scores, or ``None`` without trees


def score_case(pred: Subject, truth: Subject, tracer: Tracer, options: CaseOptions | None = None) -> CaseScores:
    """Score a prediction against the truth.

    A mask that meets a tree is traced first; the tree is rasterised with its radii for the voxel scores. Two trees have
    no voxel scores, two masks no tree scores (unless ``trace_masks``).

    Args:
        pred: mask or tree.
        truth: mask or tree.
        tracer: makes a tree in voxels of a mask and a voxel size (z, y, x).
        options: thresholds.

    Raises:
        NeurinoError: shapes, voxel sizes or units do not go together.
    """
    options = options or CaseOptions()
    spacing = _common_spacing(pred, truth)
    notes = [f"{name}: {note}" for name, side in (("prediction", pred), ("truth", truth)) for note in side.notes]
    parts: list[tuple[str, Any]] = []  # kind of score, scores
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    unit: str | None = None

    both_trees = pred.tree is not None and truth.tree is not None
    our_tree, our_mask, true_tree, true_mask = pred.tree, pred.mask, truth.tree, truth.mask
    own_truth_tree = truth.tree is not None
    if our_mask is not None and true_mask is not None:
        same_shape(our_mask, true_mask)
        notes += filter(None, [mirrored_mask(our_mask, true_mask)])
        if options.trace_masks:
            our_tree, true_tree = (tracer(mask, spacing or (1, 1, 1)) for mask in (our_mask, true_mask))
        else:
            reasons["trees"] = "both are masks; trace them first, or use --trace"
    elif our_mask is not None:
        true_tree, true_mask = _onto(truth.tree, our_mask, spacing, "truth", notes)
        our_tree = tracer(our_mask, spacing or (1, 1, 1))
    elif true_mask is not None:
        our_tree, our_mask = _onto(pred.tree, true_mask, spacing, "prediction", notes)
        true_tree = tracer(true_mask, spacing or (1, 1, 1))
    else:
        reasons["voxels"] = "both are trees: voxel and topology scores need a mask"

    if our_mask is not None and true_mask is not None:
        parts.append(("voxels", voxel_scores(our_mask, true_mask, spacing)))
        parts.append(("voxels", topology_scores(our_mask, true_mask)))
        if spacing is None:
            notes.append("the voxel size is unknown: no scores in micrometres")
        if own_truth_tree and pred.mask is not None and true_tree is not None:
            parts.append(("connectivity", connectivity_scores(our_mask, true_tree)))
    if our_tree is not None and true_tree is not None:
        our_tree, true_tree = same_unit(our_tree, true_tree, spacing)
        unit = true_tree.unit if true_tree.unit != "unknown" else our_tree.unit
        notes += filter(None, (suspicion(our_tree, true_tree), mirrored_tree(our_tree, true_tree)))
        parts.append(("trees", neuron_distance(our_tree, true_tree, options.threshold)))
        parts.append(("length", length_scores(our_tree, true_tree, options.tolerance)))
        if both_trees:
            parts.append(("connectivity", tree_connectivity_scores(our_tree, true_tree, options.tolerance)))
        for name, tree in (("pred", our_tree), ("truth", true_tree)):
            counts = asdict(tree_counts(merge_touching(tree)))
            found.update({f"{what}_{name}": value for what, value in counts.items()})
    for kind, part in parts:
        found.update(asdict(part))
        if part.reason:
            reasons[kind] = part.reason
    return CaseScores({name: found.get(name) for name in NAMES}, reasons, tuple(notes), unit)


def _onto(
    tree: Tree | None, mask: NDArray[np.bool_], spacing: Sequence[float] | None, name: str, notes: list[str]
) -> tuple[Tree, NDArray[np.bool_]]:
    """A tree in voxels of the other side's mask, and its own mask there."""
    assert tree is not None
    tree, note = into_image(tree, mask.shape, spacing)
    if note:
        notes.append(f"{name}: {note}")
    tree = replace(tree, unit="voxel")
    return tree, rasterise(tree, mask.shape, spacing=spacing or (1, 1, 1)).astype(bool)


def _common_spacing(pred: Subject, truth: Subject) -> tuple[float, float, float] | None:
    """The voxel size of both, of the one that knows it, or ``None``."""
    if pred.spacing is None or truth.spacing is None:
        return pred.spacing or truth.spacing
    if any(abs(a - b) > 0.01 * b for a, b in zip(pred.spacing, truth.spacing, strict=True)):
        ours, theirs = (" x ".join(f"{s:g}" for s in size) for size in (pred.spacing, truth.spacing))
        raise NeurinoError(
            f"the prediction's voxels are {ours} micrometres (z, y, x) and the truth's {theirs}: expected the same; "
            "resample one of them, or give --spacing Z Y X if a file is wrong"
        )
    return truth.spacing
