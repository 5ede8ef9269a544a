"""NIfTI, NRRD and MetaImage through SimpleITK."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import SimpleITK

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images.stack import Raw, Spacing, check_size
from nnunet_neurino.swc import Finding

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
# Finest voxel that is believed to be in millimetres: neurons are not seen in voxels above 20 micrometres, so larger
# numbers are micrometres that the format has no word for.
_LARGEST_MILLIMETRES = 0.02


def read_itk(path: Path, max_bytes: int | None = None) -> Raw:
    """Read a NIfTI, NRRD or MetaImage file."""
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        check_size(path, (*size, components), _bytes_of(reader.GetPixelID()), max_bytes)
        if path.name.lower().endswith((".nii", ".nii.gz")):
            _check_nifti_complete(path, math.prod(size) * components)
        image = reader.Execute()
        voxels = SimpleITK.GetArrayFromImage(image)
    except (RuntimeError, MemoryError, NotImplementedError, KeyError, TypeError, struct.error) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise NeurinoError(
            f"{path}: cannot be read ({(lines or ['damaged'])[-1][:160]}); copy or download it again"
        ) from None
    n_spatial = image.GetDimension()
    if n_spatial > 4 or voxels.dtype.kind not in "buif":
        raise NeurinoError(f"{path}: {n_spatial} axes of {voxels.dtype}, expected 3 axes of numbers; convert it first")
    axes = "TZYX"[-n_spatial:] + ("C" if components > 1 else "")
    if n_spatial < 3:
        return Raw(voxels, axes)
    spacing, findings = _micrometres(image.GetSpacing()[:3])
    return Raw(voxels, axes, spacing, tuple(findings))


def _check_nifti_complete(path: Path, n_voxels: int) -> None:
    """Refuse a NIfTI file that is cut short: SimpleITK fills what is missing with whatever was in memory."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    length = 0
    try:
        with opener(path, "rb") as file:
            head = file.read(540)
            length = len(head)
            while chunk := file.read(1 << 20):
                length += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise NeurinoError(f"{path}: the compressed data are cut short or damaged; copy or download it again") from None
    order = "<" if head[0] in (0x5C, 0x1C) else ">"
    second = struct.unpack_from(order + "i", head)[0] == 540
    (bits,) = struct.unpack_from(order + "h", head, 14 if second else 72)
    needed = (540 if second else 348) + n_voxels * bits // 8
    if length < needed:
        raise NeurinoError(
            f"{path}: cut short: its header promises {needed:,} bytes, there are {length:,}; copy or download it again"
        )


def _micrometres(xyz: tuple[float, ...]) -> tuple[Spacing | None, list[Finding]]:
    x, y, z = (abs(float(v)) for v in xyz)
    if min(x, y, z) <= 0:
        return None, []
    if (x, y, z) == (1.0, 1.0, 1.0):  # what writers put when they know nothing
        return None, [Finding(0, "a voxel size of 1 1 1 without a believable unit", "taken as unknown")]
    if max(x, y, z) <= _LARGEST_MILLIMETRES:
        return (z * 1000, y * 1000, x * 1000), []  # true millimetres
    what = f"a voxel size of {z:g} {y:g} {x:g} (z y x) in the format's millimetres"
    return (z, y, x), [Finding(0, what, "taken as micrometres")]


def _bytes_of(pixel_id: int) -> int:
    name = SimpleITK.GetPixelIDValueAsString(pixel_id)
    return next((n for bits, n in (("64", 8), ("32", 4), ("16", 2), ("8", 1)) if bits in name), 8)
