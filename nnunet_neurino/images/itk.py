"""NRRD and MetaImage through SimpleITK."""

from __future__ import annotations

from pathlib import Path

import SimpleITK

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images.nifti import micrometres
from nnunet_neurino.images.stack import Raw, check_size


def read_itk(path: Path, max_bytes: int | None = None) -> Raw:
    """Read a NRRD or MetaImage file."""
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        check_size(path, (*size, components), _bytes_of(reader.GetPixelID()), max_bytes)
        image = reader.Execute()
        voxels = SimpleITK.GetArrayFromImage(image)
    except (RuntimeError, MemoryError, NotImplementedError, KeyError, TypeError) as error:
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
    x, y, z = (float(s) for s in image.GetSpacing()[:3])
    spacing, findings = micrometres((z, y, x), "millimetre")
    return Raw(voxels, axes, spacing, tuple(findings))


def _bytes_of(pixel_id: int) -> int:
    name = SimpleITK.GetPixelIDValueAsString(pixel_id)
    return next((n for bits, n in (("64", 8), ("32", 4), ("16", 2), ("8", 1)) if bits in name), 8)
