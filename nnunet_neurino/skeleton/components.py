"""Connected components of 3-D masks."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

cc3d: Any
try:  # comes with nnU-Net (through acvl-utils); five times faster than scipy, but not ours to require
    cc3d = import_module("cc3d")
except ImportError:  # pragma: no cover - depends on the installation
    cc3d = None

_STRUCTURES = {6: 1, 18: 2, 26: 3}
_FEW_VOXELS = 4096
"""Up to here scipy takes microseconds, too."""


def label_components(mask: NDArray, connectivity: int = 26) -> tuple[NDArray, int]:
    """Number the connected components of a 3-D mask.

    Args:
        mask: array (z, y, x); non-zero voxels are foreground (all of one kind: class numbers are not told apart).
        connectivity: 6, 18 or 26 neighbours.

    Returns:
        labels (z, y, x) of an integer type with 0 for background and 1..n for the components, and n.
    """
    mask = np.ascontiguousarray(np.asarray(mask) != 0)
    if mask.size == 0:
        return np.zeros(mask.shape, np.uint16), 0
    if cc3d is not None and mask.size > _FEW_VOXELS:
        # cc3d fails on as many components as fit into the volume: every second voxel of a short row, or a lattice.
        with contextlib.suppress(RuntimeError):
            labels, count = cc3d.connected_components(mask, connectivity=connectivity, return_N=True)
            return labels, int(count)
    structure = ndimage.generate_binary_structure(3, _STRUCTURES[connectivity])
    labels, count = ndimage.label(mask, structure)
    return labels, int(count)
