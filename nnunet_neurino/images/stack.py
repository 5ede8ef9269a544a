"""The one type of an image stack, and the checks that all readers share."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import foreign_kind
from nnunet_neurino.findings import Finding

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Stack:
    """A three-dimensional image with its voxel size."""

    # (z, y, x), or (c, z, y, x) when there is more than one channel. May be a read-only memory map of the file, in the
    # file's own byte order
    voxels: np.ndarray
    spacing: Spacing | None = None  # (z, y, x) in micrometres; None when neither the file nor the caller said
    findings: tuple[Finding, ...] = ()  # what was odd in the file and how it was taken

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels in z, y, x, without the channels."""
        z, y, x = self.voxels.shape[-3:]
        return int(z), int(y), int(x)

    @property
    def channels(self) -> np.ndarray:
        """The voxels as (c, z, y, x), also when there is one channel only."""
        return self.voxels if self.voxels.ndim == 4 else self.voxels[None]


@dataclass(frozen=True)
class Raw:
    """What a format's reader hands on, before axes are put in order."""

    voxels: np.ndarray  # the array as stored
    axes: str  # a letter for each of its axes: Z Y X, C channels, S colour samples, T time, others unknown
    spacing: Spacing | None = None  # (z, y, x) in micrometres where the file says so
    findings: tuple[Finding, ...] = ()  # what was odd


def is_size(spacing: Sequence[float]) -> bool:
    """Whether these can be sizes of voxels, in micrometres."""
    return all(1e-6 <= step <= 1e6 for step in spacing)


def check_spacing(spacing: Sequence[float], where: str) -> Spacing:
    """Return ``spacing`` (z, y, x, micrometres) as three positive floats or refuse it."""
    values = tuple(float(s) for s in spacing)
    if len(values) != 3 or not is_size(values):
        raise NeurinoError(
            f"{where}: the voxel size must be three positive numbers z y x (1e-6 to 1e6 micrometres), "
            f"got {list(spacing)}"
        )
    return values


def check_size(path: str | os.PathLike[str], shape: Sequence[int], itemsize: int, max_bytes: int | None) -> None:
    """Refuse a stack that does not fit into memory before anything of its size is made.

    Args:
        path: the file, for the message.
        shape: what its header promises.
        itemsize: bytes for each voxel.
        max_bytes: the limit; None takes 80 % of the memory that is free now.
    """
    needed = math.prod(int(n) for n in shape) * itemsize
    if max_bytes is None:
        import psutil

        max_bytes = int(0.8 * psutil.virtual_memory().available)
    if needed > max_bytes:
        size = " x ".join(str(n) for n in shape)
        raise NeurinoError(
            f"{path}: {size} voxels need {needed / 2**30:.1f} GiB of memory, {max_bytes / 2**30:.1f} GiB may be used; "
            "save it uncompressed (TIFF or .v3draw, which are read piece by piece) or cut it into blocks"
        )


def first_bytes(path: Path, n: int = 64) -> bytes:
    """Read the first bytes of an image file; refuse what is plainly no image, saying what it is."""
    if path.exists() and not path.is_file():
        raise NeurinoError(f"{path}: not an ordinary file; give an image file or a folder of slices")
    try:
        with path.open("rb") as file:
            head = file.read(n)
    except FileNotFoundError:
        raise NeurinoError(f"{path}: no such file") from None
    except OSError as error:
        raise NeurinoError(f"{path}: cannot be opened ({error.strerror})") from None
    if not head:
        raise NeurinoError(f"{path}: the file is empty (0 bytes); copy or download it again")
    if kind := foreign_kind(head):
        raise NeurinoError(f"{path}: is {kind}")
    return head
