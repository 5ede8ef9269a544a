"""Voxel scores of a binary mask: precision, recall, F1 (= Dice) and the 95th percentile of surface distances.

"HD95" means at least four different numbers in the literature. Here

- ``hd95`` is the symmetric one: the 95th percentile of both sets of directed distances pooled;
- ``hd95_directed`` is the published formula: the 95th percentile of the distances from the prediction's surface to the
  truth's. It does not see what the prediction misses; read it beside ``hd95_truth_to_pred`` or recall.

The surface of a mask is every foreground voxel with a face on the background or on the border of the image. Distances
are between voxel centres, once in voxels and, when the voxel size is known, in micrometres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from nnunet_neurino.errors import NeurinoError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class VoxelScores:
    """Scores of a predicted mask against the true one; ``None`` where undefined, explained in ``reason``."""

    precision: float | None = None  # share of predicted voxels that are true; undefined for an empty prediction
    recall: float | None = None  # share of true voxels that are predicted; undefined for an empty truth
    # 2 TP / (predicted + true), which is Dice; 0 when one mask is empty, undefined when both are
    f1: float | None = None
    # surface distances in voxels; undefined when a mask is empty
    hd95: float | None = None
    hd95_directed: float | None = None
    hd95_truth_to_pred: float | None = None
    # the same in micrometres; also undefined without spacing
    hd95_um: float | None = None
    hd95_directed_um: float | None = None
    hd95_truth_to_pred_um: float | None = None
    reason: str | None = None  # why something is undefined


@dataclass(frozen=True)
class SurfaceDistance:
    """95th percentiles of surface distances: pooled, prediction to truth, truth to prediction."""

    pooled: float
    pred_to_truth: float
    truth_to_pred: float


def voxel_scores(pred: Mask, truth: Mask, spacing: Sequence[float] | None = None) -> VoxelScores:
    """Score a predicted mask against the true mask.

    Args:
        pred: bool (z, y, x), or numbers of which all but 0 are foreground.
        truth: (z, y, x) of the same shape.
        spacing: voxel size (z, y, x) in micrometres, or ``None`` when it is unknown.

    Raises:
        NeurinoError: the shapes differ.
    """
    same_shape(pred, truth)
    pred, truth = as_mask(pred), as_mask(truth)
    hits, predicted, true = (int(np.count_nonzero(m)) for m in (pred & truth, pred, truth))
    reason = why_empty(pred, truth)
    distances: dict[str, float] = {}
    for suffix, size in (("", (1, 1, 1)), ("_um", spacing)):
        if reason is None and size is not None:
            found = surface_distance(pred, truth, size)
            distances[f"hd95{suffix}"] = found.pooled
            distances[f"hd95_directed{suffix}"] = found.pred_to_truth
            distances[f"hd95_truth_to_pred{suffix}"] = found.truth_to_pred
    return VoxelScores(
        precision=hits / predicted if predicted else None,
        recall=hits / true if true else None,
        f1=2 * hits / (predicted + true) if predicted + true else None,
        **distances,
        reason=reason,
    )


def surface_distance(
    pred: Mask, truth: Mask, spacing: Sequence[float] = (1, 1, 1), percentile: float = 95.0
) -> SurfaceDistance:
    """Percentiles of the distances between the surfaces of two masks that both have foreground.

    Args:
        pred: bool (z, y, x).
        truth: bool (z, y, x).
        spacing: voxel size (z, y, x); the answer is in its unit.
        percentile: 0 to 100, with linear interpolation.
    """
    ours, theirs = (surface_points(mask) * np.asarray(spacing, dtype=np.float64) for mask in (pred, truth))
    forth = cKDTree(theirs).query(ours, workers=-1)[0]
    back = cKDTree(ours).query(theirs, workers=-1)[0]
    return SurfaceDistance(
        pooled=float(np.percentile(np.concatenate([forth, back]), percentile)),
        pred_to_truth=float(np.percentile(forth, percentile)),
        truth_to_pred=float(np.percentile(back, percentile)),
    )


def surface_points(mask: Mask) -> NDArray[np.int64]:
    """Indices (n, 3), z y x, of the foreground voxels with a face on the background or the border."""
    mask = as_mask(mask)
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return np.empty((0, 3), dtype=np.int64)
    inside = mask[boxes[0]]
    surface = inside & ~ndimage.binary_erosion(inside)
    return np.argwhere(surface) + [axis.start for axis in boxes[0]]


def as_mask(volume: NDArray) -> Mask:
    """A mask as bool: every number but 0 is foreground."""
    return volume if volume.dtype == bool else volume != 0


def why_empty(pred: Mask, truth: Mask) -> str | None:
    """Which of two masks is empty, as the reason of undefined scores; ``None`` if neither is."""
    empty = [name for name, mask in (("prediction", pred), ("truth", truth)) if not mask.any()]
    return " and ".join(f"the {name} is empty" for name in empty) or None


def same_shape(pred: NDArray, truth: NDArray) -> None:
    """Refuse two arrays of different shapes."""
    if pred.shape != truth.shape:
        raise NeurinoError(
            f"the prediction is {_by(pred.shape)} voxels (z, y, x) and the truth {_by(truth.shape)}: expected the "
            "same shape; resample or crop one of them first"
        )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
