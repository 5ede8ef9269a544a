"""All scores of one case: a prediction and its truth, each a mask or a tree."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.metrics.connectivity import connectivity_scores
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
    """How a case is scored.

    Attributes:
        threshold: distance from which on DSA and PDS call a sample different, in the unit of the trees.
        tolerance: of the length scores, in the unit of the trees.
        trace_masks: also trace two masks and score their trees.
    """

    threshold: float = 2.0
    tolerance: float = 2.0
    trace_masks: bool = False

    def __post_init__(self) -> None:
        for name in ("threshold", "tolerance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise NeurinoError(f"{name} {getattr(self, name):g}: expected a distance of 0 or more")


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case.

    Attributes:
        scores: every name of ``scores.NAMES``; ``None`` where undefined.
        reasons: why scores are undefined, by the kind of score.
        notes: what was odd and how it was taken.
        unit: unit of the tree scores, or ``None`` without trees.
    """

    scores: dict[str, float | None]
    reasons: dict[str, str]
    notes: tuple[str, ...]
    unit: str | None


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
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    unit: str | None = None

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
        for part in (voxel_scores(our_mask, true_mask, spacing), topology_scores(our_mask, true_mask)):
            _take(found, reasons, "voxels", asdict(part))
        if spacing is None:
            notes.append("the voxel size is unknown: no scores in micrometres")
        if own_truth_tree and pred.mask is not None and true_tree is not None:
            _take(found, reasons, "connectivity", asdict(connectivity_scores(our_mask, true_tree)))
    if our_tree is not None and true_tree is not None:
        our_tree, true_tree = same_unit(our_tree, true_tree, spacing)
        unit = true_tree.unit if true_tree.unit != "unknown" else our_tree.unit
        notes += filter(None, (suspicion(our_tree, true_tree), mirrored_tree(our_tree, true_tree)))
        distance = neuron_distance(our_tree, true_tree, options.threshold).as_dict()
        _take(found, reasons, "trees", {k: v for k, v in distance.items() if k in (*NAMES, "reason")})
        length = length_scores(our_tree, true_tree, options.tolerance)
        _take(found, reasons, "length", {k: v for k, v in asdict(length).items() if k != "tolerance"})
        for name, tree in (("pred", our_tree), ("truth", true_tree)):
            counts = asdict(tree_counts(merge_touching(tree)))
            found.update({f"{what}_{name}": value for what, value in counts.items()})
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


def _take(found: dict[str, Any], reasons: dict[str, str], kind: str, part: dict[str, Any]) -> None:
    reason = part.pop("reason", None)
    if reason:
        reasons[kind] = reason
    found.update(part)
