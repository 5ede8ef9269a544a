"""Topology of masks: Betti numbers and clDice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import euler_number

from nnunet_neurino.metrics.scores import harmonic_mean
from nnunet_neurino.metrics.voxel import as_mask, same_shape, why_empty
from nnunet_neurino.skeleton import label_components, skeletonise

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Betti:
    """Betti numbers of a mask whose voxels touch by face, edge or corner (26 neighbours)."""

    b0: int  # connected components
    b1: int  # tunnels (loops)
    b2: int  # enclosed cavities


def betti_numbers(mask: Mask) -> Betti:
    """Betti numbers of a mask (z, y, x; all but 0 is foreground); everything outside the image is background.

    Examples:
        >>> import numpy as np
        >>> ring = np.zeros((1, 3, 3), bool)
        >>> ring[0] = [[1, 1, 1], [1, 0, 1], [1, 1, 1]]
        >>> betti_numbers(ring)
        Betti(b0=1, b1=1, b2=0)
    """
    mask = as_mask(mask)
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return Betti(0, 0, 0)
    padded = np.pad(mask[boxes[0]], 1)
    b0 = label_components(padded)[1]
    b2 = label_components(~padded, 6)[1] - 1  # the background touches by faces
    return Betti(b0, b0 + b2 - int(euler_number(padded, connectivity=3)), b2)


@dataclass(frozen=True)
class TopologyScores:
    """clDice and Betti errors of a predicted mask; ``None`` where undefined, explained in ``reason``."""

    cldice: float | None  # harmonic mean of the two shares below; 0 when one mask is empty, undefined when both are
    cldice_precision: float | None  # share of the prediction's skeleton inside the true mask
    cldice_recall: float | None  # share of the truth's skeleton inside the predicted mask
    betti0_error: int  # absolute difference of the number of components
    betti1_error: int  # absolute difference of the number of loops
    reason: str | None = None  # why something is undefined


def topology_scores(pred: Mask, truth: Mask) -> TopologyScores:
    """clDice and Betti errors of masks (z, y, x; all but 0 is foreground) of one shape.

    Every component keeps at least one skeleton voxel, also where plain thinning would delete it.
    """
    same_shape(pred, truth)
    pred, truth = as_mask(pred), as_mask(truth)
    ours, theirs = betti_numbers(pred), betti_numbers(truth)
    precision = _inside(skeletonise(pred), truth)
    recall = _inside(skeletonise(truth), pred)
    return TopologyScores(
        cldice=harmonic_mean(precision, recall),
        cldice_precision=precision,
        cldice_recall=recall,
        betti0_error=abs(ours.b0 - theirs.b0),
        betti1_error=abs(ours.b1 - theirs.b1),
        reason=why_empty(pred, truth),
    )


def _inside(skeleton: Mask, mask: Mask) -> float | None:
    total = int(np.count_nonzero(skeleton))
    return int(np.count_nonzero(skeleton & mask)) / total if total else None
