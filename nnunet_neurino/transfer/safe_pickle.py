"""Reading foreign pickles without executing what is in them.

Only containers, numbers, text, numpy arrays and tensors can come out; a pickle that names anything else is refused.
numpy and torch are not asked to rebuild their objects: the few functions that pickles of theirs name are replaced by
our own, which check sizes. The unpickler is Python's own in Python, whose memory use is bounded by the file.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_neurino.errors import NeurinoError


def read_pickle(path: Path) -> Any:
    """The content of a pickle of containers, numbers, text and numpy arrays.

    Raises:
        NeurinoError: it is cut short or names anything else; nothing was executed.
    """
    return _guarded(path, lambda: _Unpickler(io.BytesIO(path.read_bytes())).load())


def read_torch_archive(path: Path, member: str) -> dict[str, Tensor]:
    """The tensors of one state dict in a file of ``torch.save``, whatever else is beside it.

    Args:
        path: file of PyTorch 1.6 or later.
        member: key of the state dict in the saved dictionary.

    Raises:
        NeurinoError: it is cut short, holds no such state dict, or names more than tensors and plain containers.
    """
    if not zipfile.is_zipfile(path):
        raise NeurinoError(
            f"{path}: not in PyTorch's zip format; it may be cut short ({path.stat().st_size:,} bytes are here), or "
            "older than PyTorch 1.6: load and save it again with a newer one"
        )
    with zipfile.ZipFile(path) as archive:
        return _guarded(path, lambda: _tensors(archive, member))


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except _ForbiddenError as error:
        raise NeurinoError(
            f"{path}: names '{error}', which is not data; nothing was executed. Expected a file written by nnU-Net"
        ) from None
    except NeurinoError as error:
        raise NeurinoError(f"{path}: {error}") from None
    except Exception as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise NeurinoError(f"{path}: cannot be read ({first_line}); it may be cut short, get it again") from None


class _ForbiddenError(Exception):
    pass


@dataclass
class _Storage:
    """A block of numbers of an archive that has not been read."""

    name: str
    dtype: torch.dtype
    numbers: int


@dataclass
class _Lazy:
    """A tensor of an archive that has not been read."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def read(self, archive: zipfile.ZipFile, prefix: str) -> Tensor:
        needed = 1 + self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        count = int(np.prod(self.shape, dtype=object)) if self.shape else 1
        if min((self.offset, *self.shape, *self.stride), default=0) < 0:
            raise NeurinoError("a tensor has a negative size")
        if count and max(needed, count) > self.storage.numbers:
            raise NeurinoError(
                f"a tensor of {self.shape} numbers claims more than its {self.storage.numbers} stored ones"
            )
        entry = archive.getinfo(f"{prefix}data/{self.storage.name}")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise NeurinoError("compressed inside, which PyTorch never writes")
        content = archive.read(entry)
        numbers = torch.frombuffer(bytearray(content), dtype=self.storage.dtype) if content else torch.empty(0)
        return numbers.as_strided(self.shape, self.stride, self.offset).clone()


def _tensors(archive: zipfile.ZipFile, member: str) -> dict[str, Tensor]:
    pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1 or archive.getinfo(pickles[0]).compress_type != zipfile.ZIP_STORED:
        raise NeurinoError("not a file that torch.save wrote")
    prefix = pickles[0].removesuffix("data.pkl")
    saved = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
    state = saved.get(member) if isinstance(saved, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise NeurinoError(f"holds no '{member}' (names and tensors)")
    wrong = [name for name, value in state.items() if not isinstance(value, _Lazy)]
    if wrong:
        raise NeurinoError(f"'{wrong[0]}' in '{member}' is not a tensor")
    return {str(name): value.read(archive, prefix) for name, value in state.items()}


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Lazy:
    if not isinstance(storage, _Storage):
        raise NeurinoError("a tensor has no numbers")
    return _Lazy(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _array(*_: Any) -> Any:
    """An empty array, which the pickle then fills; numpy checks that its bytes fit its shape."""
    return np.ndarray((0,), dtype=np.uint8)


def _scalar(dtype: Any, content: Any = b"") -> Any:
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise NeurinoError("a number has no type")
    return np.frombuffer(content, dtype=dtype, count=1)[0]


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order).copy()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    return str(text).encode("latin1" if encoding == "latin1" else "utf-8")


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "_codecs.encode": _encode,
    "numpy.dtype": np.dtype,
    "numpy.ndarray": "numpy.ndarray",
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "torch.device": lambda *name: str(name),
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = f"{module}.{name}".replace("numpy._core.", "numpy.core.").replace("__builtin__.", "builtins.")
        if known not in _ALLOWED:
            raise _ForbiddenError(f"{module}.{name}")
        return _ALLOWED[known]

    def persistent_load(self, reference: Any) -> _Storage:
        kind, dtype, name, _, numbers = reference
        if kind != "storage" or not isinstance(dtype, torch.dtype) or "/" in str(name):
            raise NeurinoError("a tensor refers to something that is not in the file")
        return _Storage(str(name), dtype, int(numbers))
