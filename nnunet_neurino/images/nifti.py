"""NIfTI-1 and NIfTI-2 files (.nii, .nii.gz).

Read here and not by SimpleITK, which never returns from some damaged headers, fills what is missing in a file cut short
with whatever was in memory, and does not hand on the unit of the voxel size.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.images.stack import Raw, Spacing, check_size, first_bytes, is_size

SUFFIXES = (".nii", ".nii.gz")
GZIP = b"\x1f\x8b"
_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_COLOURS = {128: 3, 2304: 4}
_AXES = "CTZYX"
# Finest voxel that is believed to be in millimetres: neurons are not seen in voxels above 20 micrometres, so larger
# numbers are micrometres whose writer left the unit at its default.
LARGEST_MILLIMETRES = 0.02


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype
    offset: int
    pixel_size: tuple[float, float, float]
    unit: int
    slope: float
    inter: float


def read_nifti(path: Path, max_bytes: int | None = None) -> Raw:
    """Read a NIfTI file, compressed or not, whatever its ending says; an uncompressed one is mapped."""
    packed = first_bytes(path).startswith(GZIP)
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            header = _header(path, file.read(544))
            needed = math.prod(header.shape) * header.dtype.itemsize
            if packed:
                check_size(path, header.shape, header.dtype.itemsize, max_bytes)
                file.seek(header.offset)
                data = file.read(needed)
                found = len(data)
            else:
                found = path.stat().st_size - header.offset
            if found < needed:
                raise NeurinoError(
                    f"{path}: cut short: its header promises {needed:,} bytes of voxels, there are {max(found, 0):,}; "
                    "copy or download it again"
                )
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise NeurinoError(f"{path}: the compressed data are cut short or damaged; copy or download it again") from None
    if packed:
        voxels = np.frombuffer(data, dtype=header.dtype).reshape(header.shape)
    else:
        voxels = np.memmap(path, dtype=header.dtype, mode="r", offset=header.offset, shape=header.shape)
    spacing, findings = micrometres(header.pixel_size, {1: "metre", 2: "millimetre", 3: "micrometre"}.get(header.unit))
    if math.isfinite(header.slope) and header.slope != 0 and (header.slope, header.inter) != (1, 0):
        check_size(path, header.shape, 4, max_bytes)
        voxels = voxels.astype(np.float32) * np.float32(header.slope) + np.float32(header.inter)
        findings.append(Finding(0, f"stored values are scaled by {header.slope:g} and {header.inter:+g}", "applied"))
    return Raw(voxels, header.axes, spacing, tuple(findings))


def _header(path: Path, head: bytes) -> _Header:
    wrong = NeurinoError(f"{path}: not a NIfTI file (its header is damaged or cut short); copy or download it again")
    order, second = {348: ("<", False), 540: ("<", True)}.get(int.from_bytes(head[:4], "little"), ("", False))
    if not order:
        order, second = {348: (">", False), 540: (">", True)}.get(int.from_bytes(head[:4], "big"), ("", False))
    if not order or len(head) < (540 if second else 348):
        raise wrong
    if second:
        (code,) = struct.unpack_from(order + "h", head, 12)
        dim = struct.unpack_from(order + "8q", head, 16)
        size = struct.unpack_from(order + "8d", head, 104)
        (offset,) = struct.unpack_from(order + "q", head, 168)
        slope, inter = struct.unpack_from(order + "2d", head, 176)
        (unit,) = struct.unpack_from(order + "i", head, 500)
        magic = head[4:8]
    else:
        dim = struct.unpack_from(order + "8h", head, 40)
        (code,) = struct.unpack_from(order + "h", head, 70)
        size = struct.unpack_from(order + "8f", head, 76)
        offset, slope, inter = struct.unpack_from(order + "3f", head, 108)
        unit, magic = head[123], head[344:348]
    if magic[:2] == b"ni":
        raise NeurinoError(f"{path}: header and voxels are in two files (.hdr, .img); save it as one .nii.gz")
    if magic[:2] != b"n+" or not 1 <= dim[0] <= 7 or not math.isfinite(offset) or not 348 <= offset < 2**31:
        raise wrong
    sizes = [int(n) for n in dim[1 : dim[0] + 1]]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if min(sizes) < 1 or len(sizes) > len(_AXES):
        raise NeurinoError(f"{path}: sizes {sizes} (x y z t c) in the header; up to five positive ones were expected")
    shape, axes = tuple(reversed(sizes)), _AXES[-len(sizes) :]
    if code in _COLOURS:
        shape, axes, code = (*shape, _COLOURS[code]), axes + "S", 2
    if code not in _TYPES:
        raise NeurinoError(f"{path}: voxel type {code} in the header, expected whole numbers or floats; convert it")
    pixel = (float(str(np.float32(size[3]))), float(str(np.float32(size[2]))), float(str(np.float32(size[1]))))
    return _Header(shape, axes, np.dtype(order + _TYPES[code]), int(offset), pixel, unit & 7, slope, inter)


def micrometres(zyx: tuple[float, float, float], unit: str | None) -> tuple[Spacing | None, list[Finding]]:
    """The voxel size in micrometres; None when it is not believable. Medical formats say millimetre by default."""
    largest = max(abs(v) for v in zyx)
    scale = 1.0
    if unit == "metre" and largest <= LARGEST_MILLIMETRES / 1000:
        scale = 1e6
    elif unit == "millimetre" and largest <= LARGEST_MILLIMETRES:
        scale = 1000.0
    z, y, x = (abs(v) * scale for v in zyx)
    if not is_size((z, y, x)):
        return None, [Finding(0, f"a voxel size of {z:g} {y:g} {x:g} (z y x)", "taken as unknown")]
    if unit == "micrometre" or scale > 1:
        return (z, y, x), []
    if (z, y, x) == (1, 1, 1):  # what writers put when they know nothing
        return None, [Finding(0, "a voxel size of 1 1 1 without a believable unit", "taken as unknown")]
    what = f"a voxel size of {z:g} {y:g} {x:g} (z y x) in {unit or 'no unit'}s".replace("no units", "no unit")
    return (z, y, x), [Finding(0, what, "taken as micrometres")]
