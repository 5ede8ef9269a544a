"""One function that reads any image stack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.images import nifti, slices, vaa3d
from nnunet_neurino.images.axes import in_order
from nnunet_neurino.images.stack import Raw, Stack, check_spacing, first_bytes

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
#: Endings of files that :func:`read_stack` reads.
SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".lsm", ".v3draw", ".raw", ".v3dpbd", *nifti.SUFFIXES, *_ITK_SUFFIXES)


def read_stack(
    path: str | os.PathLike[str],
    axes: str | None = None,
    channel: int | None = None,
    spacing: Sequence[float] | None = None,
    *,
    time: int | None = None,
    max_bytes: int | None = None,
    slice_number: int | None = None,
    allow_damaged: bool = False,
) -> Stack:
    """Read an image stack: TIFF, a folder of slices, .v3draw, .v3dpbd, NIfTI, NRRD or MetaImage.

    Args:
        path: the file, or the folder with one file a slice.
        axes: what the stored axes are, in stored order, such as "ZYX", "CZYX" or "XYZ"; None trusts the file and
            refuses what it leaves open. A single unnamed page axis is taken as z.
        channel: the one channel to keep, counted from 0; None keeps all.
        spacing: voxel size (z, y, x) in micrometres; overrules the file's.
        time: the one time point to keep, counted from 0; needed when there are several.
        max_bytes: most memory that a stack which cannot be mapped may take; None: 80 % of what is free.
        slice_number: which of several numbers in the names of a folder's files counts the slices, from 1.
        allow_damaged: take what can be read of a TIFF file whose chain of pages is broken, 0 elsewhere.

    Returns:
        The stack. Uncompressed TIFF and .v3draw are read-only maps of the file.

    Raises:
        NeurinoError: in one line, what is wrong with the file, which axis is ambiguous, and the remedy.
    """
    path = Path(path)
    raw = _read(path, max_bytes, slice_number, allow_damaged)
    voxels, findings = in_order(path, raw, axes, channel, time)
    if min(voxels.shape) < 1:
        raise NeurinoError(f"{path}: a stack without voxels ({'x'.join(map(str, voxels.shape))})")
    stored = raw.spacing if axes is None else _follow(raw, axes)
    if spacing is not None:
        wanted = check_spacing(spacing, str(path))
        if stored and any(abs(a - b) > 0.01 * b for a, b in zip(stored, wanted, strict=True)):
            what = "the file's voxel size is {:g} {:g} {:g} (z y x, micrometres)".format(*stored)
            findings.append(Finding(0, what, "{:g} {:g} {:g} as told".format(*wanted)))
        stored = wanted
    return Stack(voxels, stored, (*raw.findings, *findings))


def _read(path: Path, max_bytes: int | None, slice_number: int | None, allow_damaged: bool) -> Raw:
    if path.is_dir():
        return slices.read_slices(path, max_bytes, slice_number)
    head, name = first_bytes(path), path.name.lower()
    if head[:4] in _TIFF_MAGIC:
        from nnunet_neurino.images.tiff import read_tiff

        raw = read_tiff(path, max_bytes, allow_damaged)
        return _note_suffix(raw, name, (".tif", ".tiff", ".btf", ".tf8", ".lsm"), "TIFF")
    if head[:24] in vaa3d.RAW_KEYS:
        return _note_suffix(vaa3d.read_v3draw(path), name, (".v3draw", ".raw", ".vaa3draw"), "Vaa3D raw")
    if head[:24] == vaa3d.PBD_KEY:
        from nnunet_neurino.images.pbd import read_v3dpbd

        return _note_suffix(read_v3dpbd(path, max_bytes), name, (".v3dpbd",), "Vaa3D compressed")
    if name.endswith(nifti.SUFFIXES):
        return nifti.read_nifti(path, max_bytes)
    if name.endswith(_ITK_SUFFIXES):
        from nnunet_neurino.images.itk import read_itk  # SimpleITK takes a second to load

        return read_itk(path, max_bytes)
    if name.endswith(slices.SUFFIXES) and not name.endswith((".tif", ".tiff")):
        raise NeurinoError(f"{path}: a single slice, a stack was expected; give the folder that holds the slices")
    if head.startswith(nifti.GZIP):
        raise NeurinoError(f"{path}: is gzip-compressed; unpack it first (gunzip)")
    raise NeurinoError(
        f"{path}: not an image stack that is known here (begins with {head[:8]!r}); expected TIFF, .v3draw, .v3dpbd, "
        "NIfTI, NRRD or a folder of slices: save it as TIFF, for example with Fiji"
    )


def _note_suffix(raw: Raw, name: str, usual: tuple[str, ...], what: str) -> Raw:
    if name.endswith(usual):
        return raw
    return replace(raw, findings=(*raw.findings, Finding(0, "the file's ending is not its kind", what)))


def _follow(raw: Raw, axes: str) -> tuple[float, float, float] | None:
    """The stored voxel size, when the user's order of axes moves z, y and x around."""
    named = [n for n in raw.axes.upper() if n in "ZYX"]
    told = [n for n in axes.upper() if n in "ZYX"]
    if raw.spacing is None or len(named) != 3 or len(told) != 3:
        return raw.spacing
    by_place = dict(zip(told, (raw.spacing["ZYX".index(n)] for n in named), strict=True))
    return by_place["Z"], by_place["Y"], by_place["X"]
