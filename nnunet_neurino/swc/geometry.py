"""Where a tree is: units, shifts and flips. Every function gives a new tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc.edges import check_grid
from nnunet_neurino.swc.tree import FARTHEST, Tree, Unit


def _placed(tree: Tree, xyz: np.ndarray, radii: np.ndarray, unit: Unit) -> Tree:
    if not ((np.abs(xyz) <= FARTHEST).all() and (radii <= FARTHEST).all()):
        raise NeurinoError(f"positions or radii beyond {FARTHEST:g}; expected numbers of voxels or micrometres")
    return replace(tree, xyz=xyz, radii=radii, unit=unit)


def to_voxels(tree: Tree, spacing: Sequence[float]) -> Tree:
    """Positions and radii in voxels of ``spacing`` (z, y, x micrometres); radii count voxels of x.

    A tree of unknown unit is taken to be in micrometres; one in voxels is returned as it is.
    """
    if tree.unit == "voxel":
        return tree
    _, steps = check_grid((1, 1, 1), spacing)
    return _placed(tree, tree.xyz / steps[::-1], tree.radii / steps[2], "voxel")


def to_micrometres(tree: Tree, spacing: Sequence[float]) -> Tree:
    """Positions and radii in micrometres for voxels of ``spacing`` (z, y, x micrometres).

    A tree of unknown unit is taken to be in voxels; one in micrometres is returned as it is.
    """
    if tree.unit == "micrometre":
        return tree
    _, steps = check_grid((1, 1, 1), spacing)
    return _placed(tree, tree.xyz * steps[::-1], tree.radii * steps[2], "micrometre")


def shift(tree: Tree, offset: Sequence[float]) -> Tree:
    """Move by ``offset`` (x, y, z in the tree's unit)."""
    return _placed(tree, tree.xyz + np.asarray(offset, dtype=float), tree.radii, tree.unit)


def from_one_based(tree: Tree) -> Tree:
    """Voxels counted from 1 (MATLAB) to voxels counted from 0."""
    return shift(tree, (-1, -1, -1))


def flip(tree: Tree, axis: int, size: int, spacing: float = 1.0) -> Tree:
    """Mirror ``axis`` (0 x, 1 y, 2 z) of an image with ``size`` voxels along it: v becomes size - 1 - v.

    Args:
        spacing: voxel size along that axis, for a tree in micrometres.
    """
    xyz = tree.xyz.copy()
    xyz[:, axis] = (size - 1) * spacing - xyz[:, axis]
    return _placed(tree, xyz, tree.radii, tree.unit)


def flip_y(tree: Tree, height: int, spacing: float = 1.0) -> Tree:
    """From y up (Vaa3D) to y down (image rows), or back, for an image of ``height`` rows."""
    return flip(tree, 1, height, spacing)


def share_inside(tree: Tree, shape: Sequence[int], spacing: Sequence[float] = (1, 1, 1)) -> float:
    """Share of the nodes (0 to 1) in an image of ``shape`` (z, y, x); NaN for an empty tree.

    Half a voxel beyond its border is inside, too: coordinates exactly on it are common (256.0 of 256).
    """
    sizes, steps = check_grid(shape, spacing)
    zyx = tree.xyz[:, ::-1] / steps if tree.unit == "micrometre" else tree.xyz[:, ::-1]
    inside = np.asarray(((zyx >= -1) & (zyx <= sizes)).all(axis=1))
    return float(inside.mean()) if len(inside) else float("nan")
