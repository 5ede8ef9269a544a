"""Trees in different units: bring them together where the files say so, and say so where only the extent tells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.metrics.segments import Floats
from nnunet_neurino.swc import Tree, share_inside, to_voxels

_ALIKE = (0.55, 1.8)  # extents of two trees of one neuron are not further apart than this


def same_unit(pred: Tree, truth: Tree, spacing: Sequence[float] | None) -> tuple[Tree, Tree]:
    """Bring two trees into one unit: as they are when the units agree, else voxels.

    Raises:
        NeurinoError: the units differ and the voxel size is unknown.
    """
    if len({pred.unit, truth.unit} - {"unknown"}) < 2:
        return pred, truth
    if spacing is None:
        raise NeurinoError(
            f"the prediction is in {pred.unit}s and the truth in {truth.unit}s: the voxel size is needed; "
            "give --spacing Z Y X in micrometres"
        )
    return tuple(to_voxels(t, spacing) if t.unit == "micrometre" else t for t in (pred, truth))  # type: ignore[return-value]


def suspicion(pred: Tree, truth: Tree) -> str | None:
    """A line if the extents of two trees suggest that one is in micrometres and the other in voxels."""
    ours, theirs = _extent(pred), _extent(truth)
    if ours is None or theirs is None:
        return None
    long = theirs > 0.25 * theirs.max()
    ratio = ours[long] / theirs[long]
    small, large = ratio < _ALIKE[0], ratio > _ALIKE[1]
    # With voxels that are no cubes an axis may happen to be alike; then the neuron must fit when it is scaled.
    if not (small.all() or large.all() or ((small | large).any() and _fits_when_scaled(pred, truth))):
        return None
    numbers = " ".join(f"{a / b:.3g}" if b > 0 else "-" for a, b in zip(ours, theirs, strict=True))
    return (
        f"the prediction's extent is {numbers} times the truth's along x y z: one of them may be in micrometres and "
        "the other in voxels"
    )


def _fits_when_scaled(pred: Tree, truth: Tree) -> bool:
    """Whether the prediction comes much nearer to the truth when each axis is scaled to the truth's extent."""
    ours, theirs = np.ptp(pred.xyz, axis=0), np.ptp(truth.xyz, axis=0)
    factor = np.divide(theirs, ours, out=np.ones(3), where=(ours > 0) & (theirs > 0))
    some = pred.xyz[:: max(len(pred) // 2000, 1)]
    nodes = cKDTree(truth.xyz)
    before, after = (float(nodes.query(places)[0].mean()) for places in (some, some * factor))
    return after < 0.25 * before


def into_image(tree: Tree, shape: Sequence[int], spacing: Sequence[float] | None) -> tuple[Tree, str | None]:
    """A tree in voxels of an image, and a line if much of it lies outside.

    Args:
        tree: in voxels or micrometres; an unknown unit is taken for voxels.
        shape: of the image (z, y, x).
        spacing: voxel size (z, y, x) in micrometres, or ``None``.

    Raises:
        NeurinoError: the tree is in micrometres and the voxel size is unknown.
    """
    if tree.unit == "micrometre":
        if spacing is None:
            raise NeurinoError(
                "a tree in micrometres and an image without voxel size; give --spacing Z Y X in micrometres"
            )
        tree = to_voxels(tree, spacing)
    inside = share_inside(tree, shape)
    if not len(tree) or inside > 0.9:
        return tree, None
    by = " x ".join(map(str, shape))
    note = f"{1 - inside:.0%} of the tree's nodes are outside the image of {by} voxels (z, y, x)"
    if spacing is not None and tree.unit == "unknown":
        scaled = to_voxels(tree, spacing)
        if share_inside(scaled, shape) > 0.9:
            note += "; they would be inside if the tree were in micrometres"
    return tree, note


def _extent(tree: Tree) -> Floats | None:
    if len(tree) < 2:
        return None
    extent = np.ptp(tree.xyz, axis=0)
    return extent if extent.max() > 0 else None
