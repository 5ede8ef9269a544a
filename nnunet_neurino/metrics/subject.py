"""What is to be scored: a mask or a tree, with its voxel size, read from any file that the package reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import read_stack
from nnunet_neurino.images.foreground import foreground
from nnunet_neurino.images.read import SUFFIXES
from nnunet_neurino.images.record import spacing_beside, stem_of
from nnunet_neurino.images.stack import check_spacing
from nnunet_neurino.swc import Tree, read_swc, to_voxels
from nnunet_neurino.swc.read import SUFFIXES as TREE_SUFFIXES

_THRESHOLD = 0.5


@dataclass(frozen=True)
class Subject:
    """A prediction or a truth: a mask or a tree."""

    mask: NDArray[np.bool_] | None = None  # (z, y, x)
    tree: Tree | None = None
    spacing: tuple[float, float, float] | None = None  # voxel size (z, y, x) in micrometres, where it is known
    notes: tuple[str, ...] = ()  # what was odd about the file and how it was taken


def is_scorable(path: Path) -> bool:
    """Whether the file's name is that of a tree or an image stack."""
    return path.name.lower().endswith((*TREE_SUFFIXES, *SUFFIXES)) and not path.name.startswith(".")


def case_of(path: Path) -> str:
    """Name of the case: the file's name without its endings, such as ``.nii.gz`` or ``.ome.tif``."""
    return stem_of(path, (*TREE_SUFFIXES, *SUFFIXES, ".ome.tif", ".ome.tiff"))


def load(path: str | os.PathLike[str], spacing: Sequence[float] | None = None) -> Subject:
    """Read a tree (.swc, .eswc) or a mask (any image stack).

    Args:
        path: the file.
        spacing: voxel size (z, y, x) in micrometres; overrules the file's and nnU-Net's record beside it. A tree that
            says it is in micrometres is brought into voxels with it.

    Raises:
        NeurinoError: the file cannot be read or is neither a mask nor a probability map.
    """
    path = Path(path)
    if path.suffix.lower() in TREE_SUFFIXES:
        tree = read_swc(path, allow_empty=True)
        size = None if spacing is None else check_spacing(spacing, str(path))
        if size is not None and tree.unit == "micrometre":
            tree = to_voxels(tree, size)
        return Subject(tree=tree, spacing=size, notes=tuple(map(str, tree.findings)))
    stack = read_stack(path, spacing=spacing)
    if stack.voxels.ndim != 3:
        raise NeurinoError(
            f"{path}: {stack.voxels.shape[0]} channels: expected a mask with one; save that channel alone"
        )
    mask, note = foreground(np.asarray(stack.voxels), _THRESHOLD, _THRESHOLD, str(path))
    notes = tuple(map(str, stack.findings)) + ((note,) if note else ())
    return Subject(mask=mask, spacing=stack.spacing or spacing_beside(path), notes=notes)
