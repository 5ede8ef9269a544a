"""Putting an existing tracing into a volume, to take its picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import Tree, crop, to_voxels

_MARGIN = 4  # voxels around the extent
_MOST_VOXELS = 2**31
_LARGEST_RADIUS = 1e6  # voxels


def place(
    tree: Tree, spacing: tuple[float, float, float], shape: tuple[int, int, int] | None = None
) -> tuple[Tree, tuple[int, int, int]]:
    """Convert a tracing to voxels and move it into a volume.

    Args:
        tree: in voxels or micrometres, with at least one node.
        spacing: voxel size z, y, x in micrometres.
        shape: voxels z, y, x; None for the extent of the tracing and a margin. A tracing that lies in this shape stays
            where it is; one that does not is moved to the middle, and cut where it is too large.

    Returns:
        The tree in voxels of the volume (radii in in-plane voxels), and the shape.
    """
    size = np.array(spacing[::-1])
    tree = replace(to_voxels(tree, spacing) if tree.unit == "micrometre" else tree, unit="voxel")
    if tree.radii.max() > _LARGEST_RADIUS:
        raise NeurinoError(f"radii up to {tree.radii.max():g} voxels; are they in another unit than the positions?")
    margin = _MARGIN + tree.radii.max() * spacing[2] / size
    low, high = tree.xyz.min(axis=0), tree.xyz.max(axis=0)
    if shape is None:
        sides = np.ceil(high - low + 2 * margin) + 1
        if np.prod(sides) > _MOST_VOXELS:
            raise NeurinoError(
                f"needs a volume of {' x '.join(f'{n:g}' for n in sides[::-1])} voxels (z, y, x), more than 2^31: "
                "give --shape to take a picture of its middle, or a larger --spacing"
            )
        found = (int(sides[2]), int(sides[1]), int(sides[0]))
        # Whole voxels, so that coordinates keep their decimals.
        return replace(tree, xyz=tree.xyz - np.floor(low - margin)), found
    extent = np.array(shape[::-1]) - 1.0
    if (low < 0).any() or (high > extent).any():
        tree = replace(tree, xyz=tree.xyz + np.round((extent - low - high) / 2))
        tree = crop(tree, (0, 0, 0), tuple(extent))
        if len(tree.edges()) == 0:
            raise NeurinoError(
                f"no part of the tracing lies in the middle {shape} voxels (z, y, x): give a larger --shape"
            )
    return tree, shape
