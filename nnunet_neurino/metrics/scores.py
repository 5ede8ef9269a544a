"""The scores that a case gets, in the order in which they are shown, and what each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Score:
    """One column of the report."""

    name: str  # key in scores.json and column of scores.csv
    meaning: str  # definition in one line
    better: Literal["higher", "lower", "neither"]  # which values are better
    shown: bool = False  # whether the terminal's table has it


SCORES: tuple[Score, ...] = (
    Score("f1", "voxel F1 = Dice: 2 TP / (predicted + true voxels)", "higher", True),
    Score("precision", "share of predicted voxels that are true", "higher"),
    Score("recall", "share of true voxels that are predicted", "higher"),
    Score("hd95", "95th percentile of both directed surface distances pooled, voxels", "lower", True),
    Score("hd95_directed", "95th percentile of distances prediction to truth (as published), voxels", "lower", True),
    Score("hd95_truth_to_pred", "95th percentile of distances truth to prediction, voxels", "lower"),
    Score("hd95_um", "hd95 in micrometres; needs the voxel size", "lower"),
    Score("hd95_directed_um", "hd95_directed in micrometres", "lower"),
    Score("hd95_truth_to_pred_um", "hd95_truth_to_pred in micrometres", "lower"),
    Score(
        "cldice", "centreline Dice: harmonic mean of the two shares of skeleton inside the other mask", "higher", True
    ),
    Score("cldice_precision", "share of the prediction's skeleton inside the truth", "higher"),
    Score("cldice_recall", "share of the truth's skeleton inside the prediction", "higher"),
    Score("betti0_error", "difference of the numbers of components (26 neighbours)", "lower", True),
    Score("betti1_error", "difference of the numbers of loops", "lower"),
    Score("esa", "mean distance between the trees, mean of both directions (Vaa3D's definition)", "lower", True),
    Score("dsa", "mean distance of the samples at least 2 away, both directions", "lower", True),
    Score("pds", "share of samples at least 2 away, mean of both directions, 0 to 1", "lower", True),
    Score("esa_pred_to_truth", "ESA of the predicted tree's samples", "lower"),
    Score("esa_truth_to_pred", "ESA of the true tree's samples", "lower"),
    Score("dsa_pred_to_truth", "DSA of the predicted tree's samples", "lower"),
    Score("dsa_truth_to_pred", "DSA of the true tree's samples", "lower"),
    Score("pds_pred_to_truth", "PDS of the predicted tree's samples", "lower"),
    Score("pds_truth_to_pred", "PDS of the true tree's samples", "lower"),
    Score("length_f1", "harmonic mean of length precision and recall at the tolerance", "higher", True),
    Score("length_precision", "share of predicted cable within the tolerance of the truth", "higher"),
    Score("length_recall", "share of true cable within the tolerance of the prediction", "higher"),
    Score("splits", "places at which true neurons fall apart in the prediction", "lower"),
    Score("merges", "joins of different true neurons in the prediction", "lower"),
    Score("omitted", "share of the true cable that the prediction misses", "lower"),
    Score("erl", "expected run length: cable of one neuron before the first mistake", "higher"),
    Score("nerl", "expected run length over the greatest possible one, 0 to 1", "higher", True),
    Score("trees_pred", "connected pieces of the predicted tree", "neither"),
    Score("trees_truth", "connected pieces of the true tree", "neither"),
    Score("branches_pred", "branches of the predicted tree", "neither"),
    Score("branches_truth", "branches of the true tree", "neither"),
    Score("tips_pred", "tips of the predicted tree", "neither"),
    Score("tips_truth", "tips of the true tree", "neither"),
    Score("length_pred", "cable of the predicted tree, unit of the tree scores", "neither"),
    Score("length_truth", "cable of the true tree, unit of the tree scores", "neither"),
)
NAMES: tuple[str, ...] = tuple(score.name for score in SCORES)
SHOWN: tuple[str, ...] = tuple(score.name for score in SCORES if score.shown)


def harmonic_mean(precision: float | None, recall: float | None) -> float | None:
    """F1 of two shares: 0 where one is 0 or undefined, undefined where both are."""
    if precision is None and recall is None:
        return None
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0
