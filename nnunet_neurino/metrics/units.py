"""Trees in different units: bring them together where the files say so, and say so where only the extent tells.

Also told: a prediction that fits the truth when it is mirrored.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.metrics.segments import Floats
from nnunet_neurino.swc import Tree, share_inside, to_voxels

_ALIKE = (0.55, 1.8)  # extents of two trees of one neuron are not further apart than this
_NEARER = 0.25  # a tree fits better elsewhere if it is not so many times as far from the truth there
_FLIPS = [axes for n in (0, 1, 2, 3) for axes in itertools.combinations(range(3), n)]


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
    some = _some(pred)
    nodes = cKDTree(truth.xyz)
    before, after = (float(nodes.query(places)[0].mean()) for places in (some, some * factor))
    return after < _NEARER * before


def mirrored_tree(pred: Tree, truth: Tree) -> str | None:
    """A line if the prediction is much nearer to the truth when shifted or flipped so that their middles meet."""
    if _extent(pred) is None or _extent(truth) is None:
        return None
    nodes, some = cKDTree(truth.xyz), _some(pred)
    before = float(np.median(nodes.query(some)[0]))
    if before <= 1:
        return None

    def distance(axes: tuple[int, ...]) -> float:
        return min(float(np.median(nodes.query(places)[0])) for places in _flipped(some, truth.xyz, axes))

    best = min(_FLIPS, key=distance)  # of equal ones the simplest
    after = distance(best)
    if after >= _NEARER * before:
        return None
    return f"the prediction fits {_how(best)}: half of it is within {after:.3g} then, and within {before:.3g} as it is"


def _flipped(ours: Floats, theirs: Floats, axes: tuple[int, ...]) -> Iterator[Floats]:
    """Places (n, 3) mirrored so that the middles of the extents meet, and so that the medians meet."""
    for middle in (lambda xyz: (xyz.min(axis=0) + xyz.max(axis=0)) / 2, lambda xyz: np.median(xyz, axis=0)):
        places = ours.copy()
        places[:, axes] = 2 * middle(ours)[list(axes)] - ours[:, axes]
        yield places + middle(theirs) - middle(ours)


def mirrored_mask(pred: NDArray[np.bool_], truth: NDArray[np.bool_]) -> str | None:
    """A line if most voxels of the prediction (z, y, x) are in the truth when axes are flipped, and few as it is."""
    size = np.count_nonzero(pred)
    hits = np.count_nonzero(pred & truth)
    if 2 * hits > size or not size:
        return None
    flipped = {axes: np.count_nonzero(np.flip(pred, tuple(2 - axis for axis in axes)) & truth) for axes in _FLIPS}
    best = max(flipped, key=lambda axes: flipped[axes])
    if hits > _NEARER * flipped[best] or 2 * flipped[best] < size:
        return None
    share = f"{flipped[best] / size:.0%} of it is in the truth then, and {hits / size:.0%} as it is"
    return f"the prediction fits {_how(best)}: {share}"


def _how(axes: Sequence[int]) -> str:
    return f"with {' and '.join('xyz'[axis] for axis in axes)} flipped" if axes else "when it is shifted"


def _some(tree: Tree) -> Floats:
    """Some 2,000 of the nodes, or all."""
    return tree.xyz[:: max(len(tree) // 2000, 1)]


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
