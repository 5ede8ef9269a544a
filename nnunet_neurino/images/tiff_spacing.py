"""The voxel size that a TIFF file's metadata declare."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from typing import Any

import tifffile

from nnunet_neurino.findings import Finding
from nnunet_neurino.images.stack import Spacing, is_size

# Micrometres in one unit, by the names that ImageJ and OME write.
MICROMETRES = {
    "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometers": 1.0, "micrometre": 1.0, "um": 1.0,
    "µm": 1.0, "\u03bcm": 1.0, "\\u00b5m": 1.0, "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3, "mm": 1e3,
    "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4, "m": 1e6, "meter": 1e6, "pm": 1e-6,
    "å": 1e-4, "inch": 25400.0, "in": 25400.0,
}  # fmt: skip
#: Key of our own files' description; ImageJ's fields cannot hold every voxel type.
OWN_KEY = "spacing_zyx_micrometre"


def stored_spacing(tif: tifffile.TiffFile) -> tuple[Spacing | None, list[Finding]]:
    """Return the voxel size (z, y, x) in micrometres, or None when the file does not say all three."""
    if tif.is_imagej:
        values, source = _imagej(tif), "ImageJ"
    elif tif.is_ome:
        values, source = _ome(tif), "OME"
    elif tif.is_lsm:
        meta = tif.lsm_metadata or {}
        values, source = [float(meta.get(f"VoxelSize{a}") or 0) * 1e6 for a in "ZYX"], "LSM"
    elif tif.is_shaped:
        meta = next(iter(tif.shaped_metadata or ()), {})
        values, source = list(meta.get(OWN_KEY) or ()), "the file"
    else:
        return None, []
    return _sane(values, source)


def _sane(values: list[float], source: str) -> tuple[Spacing | None, list[Finding]]:
    if not values:
        return None, []
    if len(values) == 3 and all(isinstance(v, float) for v in values) and is_size(values):
        return (values[0], values[1], values[2]), []
    return None, [Finding(0, f"{source} metadata give no usable voxel size (z y x: {values})", "taken as unknown")]


def _imagej(tif: tifffile.TiffFile) -> list[float]:
    meta: Mapping[str, Any] = tif.imagej_metadata or {}
    scale = MICROMETRES.get(str(meta.get("unit", "")).strip().lower())
    if scale is None:
        return []
    y_unit = MICROMETRES.get(str(meta.get("yunit", "")).strip().lower(), scale)
    z_unit = MICROMETRES.get(str(meta.get("zunit", "")).strip().lower(), scale)
    tags = tif.pages.first.tags
    x, y = (_pixel_size(tags.get(name)) for name in ("XResolution", "YResolution"))
    try:
        z = abs(float(meta.get("spacing", 0)))
    except (TypeError, ValueError):
        z = 0.0
    return [z * z_unit, y * y_unit, x * scale]


def _pixel_size(tag: tifffile.TiffTag | None) -> float:
    try:
        numerator, denominator = tag.value  # type: ignore[union-attr]
        return float(denominator) / float(numerator)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return 0.0


def _ome(tif: tifffile.TiffFile) -> list[float]:
    try:
        root = ElementTree.fromstring(tif.ome_metadata or "")
    except ElementTree.ParseError:
        return []
    pixels = next((e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return []
    values = []
    for axis in "ZYX":
        text = pixels.get(f"PhysicalSize{axis}")
        unit = MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").strip().lower())
        if text is None or unit is None:
            values.append(0.0)
            continue
        try:
            values.append(float(text) * unit)
        except ValueError:
            values.append(0.0)
    return values if any(values) else []
