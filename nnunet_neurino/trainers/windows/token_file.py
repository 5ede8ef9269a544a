"""One file of tokens: a float16 ``.npy`` and, beside it, a small JSON with the key of what it was made of."""

from __future__ import annotations

import io
import json
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, float16

from nnunet_neurino.files import atomic_path, write_json

_HALF = np.dtype("<f2")
_LARGEST = float(np.finfo(_HALF).max)
_BLOCKS, _BLOCK = 8, 4096
"""How many blocks of a file, of how many bytes, are compared when it is looked at."""


@dataclass(frozen=True)
class TokenFile:
    """Tokens of all windows of one volume."""

    path: Path  # ending in ``.npy``
    key: str  # of everything that the tokens depend on; a file with another key is of something else
    shape: tuple[int, ...]  # (windows, channels of a token, d, y', x')

    @property
    def size(self) -> int:
        """Bytes of the whole ``.npy``."""
        return len(self._header) + math.prod(self.shape) * _HALF.itemsize

    def is_whole(self) -> bool:
        """Whether it is there, of this key and shape, and not damaged, as far as a look at some blocks tells."""
        noted = what_is_noted(self.path)
        try:
            if noted.get("key") != self.key or self.path.stat().st_size != self.size:
                return False
            with open(self.path, "rb") as opened:
                if opened.read(len(self._header)) != self._header:
                    return False
            return bool(noted.get("blocks") == _blocks(self.path))
        except OSError:
            return False

    def write(self, windows: Iterable[Tensor]) -> None:
        """Write tokens (channels of a token, d, y', x') of one window after the other; whole or not at all."""
        # Not through a memory map: on a full disk that would be the end of the process instead of an error.
        with atomic_path(self.path) as unfinished, open(unfinished, "wb") as opened:
            opened.write(self._header)
            for tokens in windows:
                opened.write(as_half(tokens).numpy().tobytes())
        # Last: a file without its key is not used.
        write_json(self.path.with_suffix(".json"), {"key": self.key, "blocks": _blocks(self.path)})

    def open(self) -> np.memmap:
        """Mapped from the disk, read-only."""
        mapped: np.memmap = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return mapped

    @cached_property
    def _header(self) -> bytes:
        opened = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(_HALF), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(opened, described)
        return opened.getvalue()


def as_half(tokens: Tensor) -> Tensor:
    """Float16 on the CPU; what is too large becomes the largest number there is."""
    return tokens.float().clamp(-_LARGEST, _LARGEST).to("cpu", float16)


def what_is_noted(path: Path) -> dict[str, Any]:
    """What the JSON beside a file of tokens says; nothing if it cannot be read."""
    try:
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _blocks(path: Path) -> str:
    """A checksum of some blocks from the first to the last: what never reached the disk is zeros."""
    last = max(0, path.stat().st_size - _BLOCK)
    found = 0
    with open(path, "rb") as opened:
        for number in range(_BLOCKS):
            opened.seek(last * number // (_BLOCKS - 1))
            found = zlib.crc32(opened.read(_BLOCK), found)
    return f"{found:08x}"
