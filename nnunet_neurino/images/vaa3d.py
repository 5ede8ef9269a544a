"""Vaa3D's own stacks: the header both forms share, and the raw form (.v3draw)."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.images.stack import Raw

RAW_KEYS = {b"raw_image_stack_by_hpeng": 4, b"raw5image_stack_by_hpeng": 5}
PBD_KEY = b"v3d_volume_pkbitdf_encod"
_KEY_LENGTH = 24
_TYPES = {1: "u1", 2: "u2", 4: "f4"}


@dataclass(frozen=True)
class Header:
    """What a Vaa3D file says before its data."""

    dtype: np.dtype  # type of a voxel, in the file's byte order
    shape: tuple[int, ...]  # (c, z, y, x) or (t, c, z, y, x)
    offset: int  # byte at which the data begin

    @property
    def axes(self) -> str:
        """Letters of the axes."""
        return "TCZYX"[-len(self.shape) :]

    @property
    def n_bytes(self) -> int:
        """Bytes of the decoded data."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(path: Path, short_sizes: bool = False) -> Header:
    """Read the header of a .v3draw or .v3dpbd file.

    Args:
        path: the file.
        short_sizes: the sizes are 16-bit numbers, as the oldest files have them.
    """
    with path.open("rb") as file:
        head = file.read(_KEY_LENGTH + 3 + 5 * 4)
    key, n_axes = head[:_KEY_LENGTH], RAW_KEYS.get(head[:_KEY_LENGTH], 4)
    size_code, size_bytes = ("h", 2) if short_sizes else ("i", 4)
    end = _KEY_LENGTH + 3 + n_axes * size_bytes
    order = {b"L": "<", b"B": ">"}.get(head[_KEY_LENGTH : _KEY_LENGTH + 1])
    if (key != PBD_KEY and key not in RAW_KEYS) or order is None or len(head) < end:
        raise NeurinoError(f"{path}: not a Vaa3D stack (its header is damaged or cut short); save it again in Vaa3D")
    code, *sizes = struct.unpack_from(f"{order}h{n_axes}{size_code}", head, _KEY_LENGTH + 1)
    if code not in _TYPES:
        raise NeurinoError(
            f"{path}: voxel type {code} in the header, expected 1 (8-bit), 2 (16-bit) or 4 (float); "
            "save it as 8- or 16-bit in Vaa3D"
        )
    if min(sizes) < 1:
        raise NeurinoError(f"{path}: sizes {sizes} (x y z c) in the header, all must be positive; save it again")
    return Header(np.dtype(order + _TYPES[code]), tuple(reversed(sizes)), end)


def _candidates(path: Path) -> Iterator[Header]:
    """The header read with 32- and with 16-bit sizes: only the size of the file tells which they are."""
    for short_sizes in (False, True):
        with contextlib.suppress(NeurinoError):
            yield read_header(path, short_sizes)


def read_v3draw(path: Path) -> Raw:
    """Map a .v3draw file into memory (nothing is read before it is used)."""
    size, findings = path.stat().st_size, []
    header = next((h for h in _candidates(path) if h.offset + h.n_bytes == size), None) or read_header(path)
    extra = size - header.offset - header.n_bytes
    if extra < 0:
        raise NeurinoError(
            f"{path}: cut short: its header promises {'x'.join(map(str, header.shape))} voxels ({header.axes}) = "
            f"{header.n_bytes:,} bytes, the file holds {size - header.offset:,}; copy or download it again"
        )
    if extra:
        findings.append(Finding(0, f"{extra:,} bytes behind the last voxel", "ignored"))
    voxels = np.memmap(path, dtype=header.dtype, mode="r", offset=header.offset, shape=header.shape)
    return Raw(voxels, header.axes, None, tuple(findings))
