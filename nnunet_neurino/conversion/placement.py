"""How a tracing may lie in its image: flips, the count of voxels from 0 or 1, voxels or micrometres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nnunet_neurino.swc import Tree

#: Every set of axes that may run the other way, the simplest first.
FLIPS = ("", "x", "y", "z", "xy", "xz", "yz", "xyz")


@dataclass(frozen=True)
class Placement:
    """A way to read the coordinates of a tracing as voxels of an image."""

    micrometre: bool = False  # coordinates are micrometres (divided by the voxel size) instead of voxels
    first: int = 0  # number of the first voxel, 0 or 1 (MATLAB, Fortran)
    flips: str = ""  # axes that run the other way, out of "x", "y", "z" ("y": the y axis points up)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)  # (x, y, z) voxels added in the end

    def __str__(self) -> str:
        parts = []
        if self.micrometre:
            parts.append("micrometres")
        if self.first:
            parts.append("counted from 1")
        if self.flips:
            parts.append(f"{', '.join(self.flips)} flipped")
        if any(self.shift):
            parts.append("shifted by x {:g}, y {:g}, z {:g} voxels".format(*self.shift))
        return ", ".join(parts) or "as stored"

    def voxels(self, xyz: np.ndarray, shape: Sequence[int], spacing: Sequence[float] | None) -> np.ndarray:
        """Positions (n, 3) x, y, z of the file as voxels (counted from 0) of an image of ``shape`` (z, y, x)."""
        position = np.array(xyz, dtype=np.float64)
        if self.micrometre:
            position /= np.array(spacing, dtype=np.float64)[::-1]
        position -= self.first
        for axis, name in enumerate("xyz"):
            if name in self.flips:
                position[:, axis] = shape[2 - axis] - 1 - position[:, axis]
        return position + self.shift

    def apply(self, tree: Tree, shape: Sequence[int], spacing: Sequence[float] | None) -> Tree:
        """Return ``tree`` in voxels of the image, counted from 0, y down; radii in voxels of the x axis."""
        xyz = self.voxels(tree.xyz, shape, spacing)
        radii = tree.radii / float(spacing[2]) if self.micrometre and spacing else tree.radii
        return replace(tree, xyz=xyz, radii=radii, unit="voxel")
