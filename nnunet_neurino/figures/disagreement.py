"""Where a prediction's centre lines miss the truth, or have what the truth has not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_neurino.skeleton.graph import components

Box = tuple[slice, slice, slice]  # z, y, x

_JOIN = 3  # voxels: nearer pieces share a box
_SMALLEST = 3  # voxels: smaller pieces get no box


@dataclass(frozen=True)
class Disagreement:
    """Voxels of centre lines sorted by agreement; arrays (n, 3) of indices z, y, x."""

    agreed: NDArray[np.int64]  # truth that the prediction found
    missed: NDArray[np.int64]  # truth farther than the tolerance from the prediction (false negatives)
    extra: NDArray[np.int64]  # prediction farther than the tolerance from the truth (false positives)
    missed_boxes: tuple[Box, ...]  # around the pieces of ``missed``, the largest piece first
    extra_boxes: tuple[Box, ...]  # the same for ``extra``


def disagreement(
    truth: NDArray[np.int64],
    prediction: NDArray[np.int64],
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    tolerance: float = 3.0,
) -> Disagreement:
    """Compare two sets of centre lines.

    Args:
        truth: voxels (n, 3) z, y, x.
        prediction: voxels (n, 3) z, y, x.
        voxel_size: z, y, x.
        tolerance: in in-plane voxels (the voxel size along x).

    Examples:
        >>> truth = np.stack([np.full(50, 2), np.full(50, 4), np.arange(5, 55)], axis=1)
        >>> found = disagreement(truth, truth[:25])
        >>> len(found.missed), len(found.missed_boxes), len(found.extra)
        (22, 1, 0)
    """
    reach = tolerance * float(voxel_size[2])
    is_missed = _is_far(truth, prediction, voxel_size, reach)
    missed, extra = truth[is_missed], prediction[_is_far(prediction, truth, voxel_size, reach)]
    return Disagreement(
        agreed=truth[~is_missed],
        missed=missed,
        extra=extra,
        missed_boxes=_boxes(missed),
        extra_boxes=_boxes(extra),
    )


def _is_far(
    voxels: NDArray[np.int64], targets: NDArray[np.int64], voxel_size: Sequence[float], reach: float
) -> NDArray[np.bool_]:
    size = np.asarray(voxel_size, float)
    # The bound is exclusive: a distance of exactly the tolerance still agrees. No target is infinitely far.
    distance, _ = cKDTree(targets * size).query(voxels * size, distance_upper_bound=np.nextafter(reach, np.inf))
    return np.isinf(distance)


def _boxes(voxels: NDArray[np.int64]) -> tuple[Box, ...]:
    if not len(voxels):
        return ()
    near = cKDTree(voxels).query_pairs(_JOIN, p=np.inf, output_type="ndarray")
    piece = components(len(voxels), near)
    pieces = np.split(voxels[np.argsort(piece, kind="stable")], np.cumsum(np.bincount(piece))[:-1])
    large = sorted((own for own in pieces if len(own) >= _SMALLEST), key=lambda own: -len(own))
    return tuple(_box(own) for own in large)


def _box(voxels: NDArray[np.int64]) -> Box:
    z, y, x = (slice(first, last + 1) for first, last in zip(*np.sort(voxels, axis=0)[[0, -1]].tolist(), strict=True))
    return z, y, x
