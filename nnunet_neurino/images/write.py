"""Writing stacks that ImageJ, Vaa3D and nnU-Net open, the same bytes for the same stack: TIFF and NIfTI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tifffile

from nnunet_neurino.files import atomic_path
from nnunet_neurino.images.stack import check_spacing
from nnunet_neurino.images.tiff_spacing import OWN_KEY

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
# ImageJ's files have 32-bit offsets; beyond that a BigTIFF is written.
_IMAGEJ_LIMIT = 2**32 - 2**25


def write_tiff(
    path: str | os.PathLike[str], array: np.ndarray, spacing: Sequence[float] | None = None, compress: bool = True
) -> None:
    """Write a stack as TIFF: whole or not at all, and the same bytes each time.

    8- and 16-bit and float32 stacks up to 4 GiB carry ImageJ's metadata; other types and larger ones are plain
    (Big)TIFF whose axes and voxel size :func:`~nnunet_neurino.images.read_stack` knows.

    Args:
        path: the file to write.
        array: (z, y, x) or (c, z, y, x); bool is written as 0 and 1.
        spacing: voxel size (z, y, x) in micrometres; None writes none.
        compress: compress without loss (zlib).
    """
    array = np.asarray(array)
    if array.ndim not in (3, 4):
        raise ValueError(f"write_tiff: expected (z, y, x) or (c, z, y, x), got shape {array.shape}")
    if array.dtype == bool:
        array = array.view(np.uint8)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    if spacing is not None:
        spacing = check_spacing(spacing, str(path))
    # ImageJ wants the channels behind z.
    axes, pages = ("ZYX", array) if array.ndim == 3 else ("ZCYX", array.transpose(1, 0, 2, 3))
    how: dict[str, Any] = {"compression": "zlib"} if compress else {}
    with atomic_path(path) as unfinished:
        if array.dtype.name in _IMAGEJ_TYPES and array.nbytes < _IMAGEJ_LIMIT:
            metadata: dict[str, object] = {"axes": axes}
            if spacing is not None:
                metadata |= {"spacing": spacing[0], "unit": "um"}
                how["resolution"] = (1 / spacing[2], 1 / spacing[1])
            tifffile.imwrite(
                unfinished, pages, imagej=True, byteorder="<", photometric="minisblack", metadata=metadata, **how
            )
            return
        own: dict[str, Any] = {"axes": axes} | ({OWN_KEY: list(spacing)} if spacing is not None else {})
        tifffile.imwrite(unfinished, pages, byteorder="<", photometric="minisblack", metadata=own, **how)


def write_nifti(path: str | os.PathLike[str], array: np.ndarray, spacing: Sequence[float]) -> None:
    """Write a stack (z, y, x) as compressed NIfTI, whole or not at all; ``spacing`` is written as it is."""
    import SimpleITK  # takes a second to load

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
    image.SetSpacing(tuple(spacing)[::-1])
    with atomic_path(path) as unfinished:
        try:
            SimpleITK.WriteImage(image, str(unfinished), useCompression=True)
        except RuntimeError as error:
            raise OSError(None, str(error).strip().splitlines()[-1], str(path)) from None
