"""Where a prediction's skeleton misses the truth, or has what the truth has not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree
from skimage.measure import regionprops

from nnunet_neurino.skeleton import label_components, skeletonise

Box = tuple[slice, slice, slice]  # z, y, x

_SMALLEST = 3  # skeleton voxels: smaller pieces get no box


@dataclass(frozen=True)
class Disagreement:
    """Skeletons sorted by agreement; all arrays are boolean, (z, y, x)."""

    agreed: NDArray[np.bool_]  # truth that the prediction found
    missed: NDArray[np.bool_]  # truth farther than the tolerance from the prediction's skeleton (false negatives)
    extra: NDArray[np.bool_]  # prediction farther than the tolerance from the truth's skeleton (false positives)
    missed_boxes: tuple[Box, ...]  # around the pieces of ``missed``, the largest piece first
    extra_boxes: tuple[Box, ...]  # the same for ``extra``


def disagreement(
    truth: NDArray,
    prediction: NDArray,
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance: float = 3.0,
) -> Disagreement:
    """Compare two masks by their skeletons.

    Args:
        truth: mask (z, y, x).
        prediction: mask (z, y, x).
        voxel_size: z, y, x.
        tolerance: in in-plane voxels (the voxel size along x).

    Examples:
        >>> truth = np.zeros((5, 9, 60), bool)
        >>> truth[2, 4, 5:55] = True
        >>> prediction = truth.copy()
        >>> prediction[:, :, 30:] = False
        >>> found = disagreement(truth, prediction)
        >>> int(found.missed.sum()), len(found.missed_boxes), int(found.extra.sum())
        (22, 1, 0)
    """
    true, predicted = skeletonise(truth), skeletonise(prediction)
    reach = tolerance * float(voxel_size[2])
    missed = _far_from(true, predicted, voxel_size, reach)
    extra = _far_from(predicted, true, voxel_size, reach)
    return Disagreement(
        agreed=true & ~missed,
        missed=missed,
        extra=extra,
        missed_boxes=_boxes(missed),
        extra_boxes=_boxes(extra),
    )


def _far_from(
    skeleton: NDArray[np.bool_], other: NDArray[np.bool_], voxel_size: Sequence[float], reach: float
) -> NDArray[np.bool_]:
    size = np.asarray(voxel_size, float)
    voxels, targets = np.argwhere(skeleton), np.argwhere(other)
    # The bound is exclusive: a distance of exactly the tolerance still agrees. No target is infinitely far.
    distance, _ = cKDTree(targets * size).query(voxels * size, distance_upper_bound=np.nextafter(reach, np.inf))
    far = np.zeros(skeleton.shape, bool)
    far[tuple(voxels[np.isinf(distance)].T)] = True
    return far


def _boxes(voxels: NDArray[np.bool_]) -> tuple[Box, ...]:
    # Pieces that nearly touch share a box.
    pieces, _ = label_components(binary_dilation(voxels, np.ones((3, 3, 3))))
    pieces[~voxels] = 0
    found = sorted(regionprops(pieces), key=lambda piece: -piece.area)
    return tuple(piece.slice for piece in found if piece.area >= _SMALLEST)
