"""Where 2D weights come from: one function for every source.

Sources are read without executing anything in them, and every name and shape is checked before a tensor is touched.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.transfer import hub
from nnunet_neurino.transfer.names import renamed, size_of
from nnunet_neurino.transfer.tensor_files import open_tensors


@dataclass(frozen=True)
class Weights2D:
    """The encoder weights of a 2D ConvNeXt.

    Attributes:
        size: ``tiny``, ``small``, ``base`` or ``large``.
        source: what the user asked for.
        scheme: the library whose names the source uses.
        sha256: of the file's content, hexadecimal.
        state: by our names, float32.
    """

    size: str
    source: str
    scheme: str
    sha256: str
    state: dict[str, Tensor] = field(repr=False, compare=False)

    @property
    def architecture(self) -> str:
        """What was found, in words."""
        return f"ConvNeXt-{self.size.capitalize()}, {sum(t.numel() for t in self.state.values()):,} parameters"


def load_2d_weights(source: str | Path) -> Weights2D | None:
    """Load the weights of a 2D ConvNeXt (DINOv3's, for which this is made, or any other of the four sizes).

    Args:
        source: one of

            * ``none``: train from scratch; None comes back,
            * ``tiny``, ``small``, ``base``, ``large``: DINOv3's ConvNeXt of that size, from the cache, else from
              timm's page on the hub,
            * the name of a timm model (``convnext_tiny.dinov3_lvd1689m``) or of a page on the Hugging Face hub
              (``facebook/dinov3-convnext-tiny-pretrain-lvd1689m``): from the cache, else from the hub; with
              ``HF_HUB_OFFLINE=1`` from the cache only,
            * a folder of timm or transformers, with ``model.safetensors`` or ``pytorch_model.bin``,
            * a file: ``.safetensors``, Meta's original ``.pth``, or what ``neurino weights convert`` wrote.

    Raises:
        NeurinoError: what is missing or wrong, and how to get it.
    """
    if str(source) == "none":
        return None
    return read_2d_weights(find_file(source), str(source))


def find_file(source: str | Path) -> Path:
    """The file that a source of ``load_2d_weights`` stands for, downloaded where necessary."""
    text = str(source)
    if not text.strip():
        raise NeurinoError("the name of the 2D weights is empty; give a file, a folder, a timm model name, or 'none'")
    path = Path(os.path.expanduser(source))  # which leaves the name of an unknown user as it is
    if path.is_dir():
        return _file_in(path)
    if path.is_file():
        return path
    if path.suffix in (".pth", ".pt", ".bin", ".safetensors", ".ckpt") or text.startswith((".", "/", "~")):
        raise NeurinoError(f"{source}: no such file or folder; give a file, a folder, a timm model name, or 'none'")
    found = hub.cached_size(text) if text in hub.DINOV3 else None
    return found or hub.fetch(hub.DINOV3.get(text, text), source=text)


def _file_in(folder: Path) -> Path:
    for name in hub.FILE_NAMES:
        if (folder / name).is_file():
            return folder / name
    others = [*folder.glob("*.safetensors"), *folder.glob("*.pth")]
    if len(others) == 1:
        return others[0]
    what = f"{len(others)} weight files" if others else "no weight file"
    raise NeurinoError(f"{folder}: {what} in this folder; expected {' or '.join(hub.FILE_NAMES)}, or give the file")


def read_2d_weights(path: Path, source: str | None = None) -> Weights2D:
    """Load the weights in one file; ``source`` is what messages call it."""
    with open_tensors(path) as tensors:
        try:
            found = renamed(tensors.shapes)
            shapes = {ours: tensors.shapes[theirs] for ours, theirs in found.theirs.items()}
            size = size_of(shapes, lambda ours: found.theirs.get(ours, ours))
        except NeurinoError as error:
            raise NeurinoError(f"{path}: {error}") from None
        state = {ours: checked_tensor(tensors.load(theirs), path, theirs) for ours, theirs in found.theirs.items()}
    return Weights2D(size, source or str(path), found.scheme, sha256_of(path), state)


def checked_tensor(tensor: Tensor, path: Path, name: str) -> Tensor:
    """A weight as float32; ``path`` and ``name`` are for the message where it holds no finite numbers."""
    if not tensor.is_floating_point():
        raise NeurinoError(f"{path}: weight '{name}' holds {tensor.dtype}, expected floating-point numbers")
    tensor = tensor.to(torch.float32, copy=True)
    if not torch.isfinite(tensor).all():
        raise NeurinoError(f"{path}: weight '{name}' holds numbers that are not finite; get the file again")
    return tensor.reshape(tensor.shape[:2]) if tensor.shape[2:] == (1, 1) else tensor


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def as_mapping(weights: Weights2D) -> Mapping[str, str]:
    """What to write into a log or a converted file about where weights come from."""
    source = Path(weights.source).name if re.search(r"[/\\]", weights.source) else weights.source
    return {"size": weights.size, "source": source, "scheme": weights.scheme, "sha256": weights.sha256}
