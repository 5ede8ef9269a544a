"""Where a prediction's skeleton misses the truth, or has what the truth has not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects
from scipy.spatial import cKDTree

from nnunet_neurino.skeleton import label_components, skeletonise

_JOIN = 3  # voxels: nearer pieces share a box


@dataclass(frozen=True)
class Disagreement:
    """Skeletons sorted by agreement; all arrays are boolean, (z, y, x).

    Attributes:
        agreed: truth that the prediction found.
        missed: truth farther than the tolerance from the prediction's skeleton (false negatives).
        extra: prediction farther than the tolerance from the truth's skeleton (false positives).
        missed_boxes: slices z, y, x around the pieces of ``missed``, the largest piece first.
        extra_boxes: the same for ``extra``.
    """

    agreed: NDArray[np.bool_]
    missed: NDArray[np.bool_]
    extra: NDArray[np.bool_]
    missed_boxes: tuple[tuple[slice, slice, slice], ...]
    extra_boxes: tuple[tuple[slice, slice, slice], ...]


def disagreement(
    truth: NDArray,
    prediction: NDArray,
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance: float = 3.0,
    smallest: int = 3,
) -> Disagreement:
    """Compare two masks by their skeletons.

    Args:
        truth: mask (z, y, x).
        prediction: mask (z, y, x).
        voxel_size: z, y, x.
        tolerance: in in-plane voxels (the voxel size along x).
        smallest: pieces of fewer skeleton voxels get no box.

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
        missed_boxes=_boxes(missed, smallest),
        extra_boxes=_boxes(extra, smallest),
    )


def _far_from(
    skeleton: NDArray[np.bool_], other: NDArray[np.bool_], voxel_size: Sequence[float], reach: float
) -> NDArray[np.bool_]:
    voxels = np.argwhere(skeleton)
    far = np.zeros(skeleton.shape, bool)
    targets = np.argwhere(other)
    if len(targets) == 0:
        return skeleton.copy()
    if len(voxels):
        size = np.asarray(voxel_size, float)
        # The bound is exclusive: a distance of exactly the tolerance still agrees.
        distance, _ = cKDTree(targets * size).query(voxels * size, distance_upper_bound=np.nextafter(reach, np.inf))
        far[tuple(voxels[~np.isfinite(distance)].T)] = True
    return far


def _boxes(voxels: NDArray[np.bool_], smallest: int) -> tuple[tuple[slice, slice, slice], ...]:
    if not voxels.any():
        return ()
    joined = binary_dilation(voxels, np.ones((3, 3, 3)), iterations=_JOIN // 2)
    pieces, _ = label_components(joined)
    pieces[~voxels] = 0
    sizes = np.bincount(pieces.ravel())
    found = find_objects(pieces)
    order = sorted(range(1, len(sizes)), key=lambda piece: -int(sizes[piece]))
    return tuple(found[piece - 1] for piece in order if sizes[piece] >= smallest)
