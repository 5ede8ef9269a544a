"""Files of named tensors, opened so that names and shapes are known before anything is loaded."""

from __future__ import annotations

import contextlib
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_neurino.errors import NeurinoError

_LARGEST_UNMAPPED = 4 * 2**30
"""Bytes of the largest old-format file that is read as a whole; ConvNeXt-Large takes 0.8 GiB."""

_LAYERS = ("model", "state_dict", "teacher", "model_state_dict")
"""Keys under which training scripts put a state dict."""


@dataclass(frozen=True)
class TensorFile:
    """An open file."""

    shapes: dict[str, tuple[int, ...]]  # of all tensors by name
    load: Callable[[str], Tensor]  # reads one tensor


@contextlib.contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a safetensors or PyTorch file; nothing in it is executed.

    Raises:
        NeurinoError: not such a file, cut short, or one that holds more than tensors.
    """
    with open(path, "rb") as file:
        start = file.read(16)
    # A safetensors file starts with the length of a JSON text, whatever its name says.
    is_safetensors = path.suffix == ".safetensors" or start[8:9] == b"{"
    with (_open_safetensors if is_safetensors else _open_torch)(path) as tensors:
        yield tensors


@contextlib.contextmanager
def _open_safetensors(path: Path) -> Iterator[TensorFile]:
    from safetensors import SafetensorError, safe_open

    try:
        handle = safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, "safetensors", error) from None
    with handle as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        yield TensorFile(shapes, file.get_tensor)


@contextlib.contextmanager
def _open_torch(path: Path) -> Iterator[TensorFile]:
    state = load_tensors_only(path)
    for layer in _LAYERS:
        if isinstance(state, Mapping) and isinstance(state.get(layer), Mapping):
            state = state[layer]
    if not isinstance(state, Mapping):
        raise NeurinoError(f"{path}: holds a {type(state).__name__}, expected a state dict (names and tensors)")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    yield TensorFile({name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors.__getitem__)


def load_tensors_only(path: Path) -> Any:
    """``torch.load`` of tensors and plain containers; the tensors of newer files stay on disk until they are used.

    Raises:
        NeurinoError: the file is cut short or holds other objects. They are not executed.
    """
    mapped = zipfile.is_zipfile(path)
    if mapped:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise NeurinoError(f"{path}: compressed inside, which PyTorch never writes; get the file again")
    elif path.stat().st_size > _LARGEST_UNMAPPED:
        raise NeurinoError(
            f"{path}: larger than 4 GiB and not in PyTorch's newer format; save it again with torch.save"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol of files that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise NeurinoError(f"{path}: asks for more memory than there is; get the file again") from None
    except Exception as error:
        if "Weights only load failed" in str(error) and (mapped or _is_pickle(path)):
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            what = f"Python objects ({named[1]})" if named else "something"
            raise NeurinoError(
                f"{path}: holds {what} besides tensors; nothing was executed. Expected a file of tensors, such as "
                "Meta's original .pth or a .safetensors"
            ) from None
        raise _unreadable(path, "PyTorch", error) from None


def _is_pickle(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def _unreadable(path: Path, kind: str, error: Exception) -> NeurinoError:
    with open(path, "rb") as file:
        if file.read(64).startswith(b"version https://git-lfs"):
            return NeurinoError(f"{path}: a placeholder of Git LFS, not the weights; run `git lfs pull` in its folder")
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    return NeurinoError(
        f"{path}: cannot be read as a {kind} file ({first_line}); it may be cut short, get it again "
        f"({path.stat().st_size:,} bytes are here)"
    )
