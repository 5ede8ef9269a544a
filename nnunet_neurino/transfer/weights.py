"""Where 2D weights come from: one function for every source.

Sources are read without executing anything in them, and every name and shape is checked before a tensor is touched.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.transfer import hub
from nnunet_neurino.transfer.flat import CONVNEXT, FlatNetwork, assembled
from nnunet_neurino.transfer.tensor_files import open_tensors


@dataclass(frozen=True)
class Weights2D:
    """What our encoders take of the weights of a 2D network."""

    size: str  # its name in ``SIZES`` or ``VITS`` of ``nnunet_neurino.networks``
    source: str  # what the user asked for
    scheme: str  # the library whose names the source uses
    sha256: str  # of the file's content, hexadecimal
    title: str  # kind and size of the network, in words
    state: dict[str, Tensor] = field(repr=False, compare=False)  # by timm's names, float32

    @property
    def architecture(self) -> str:
        """What was found, in words."""
        return f"{self.title}, {sum(t.numel() for t in self.state.values()):,} parameters"

    @property
    def record(self) -> dict[str, str]:
        """What to write into a log or a converted file about where the weights come from."""
        source = Path(self.source).name if re.search(r"[/\\]", self.source) else self.source
        return {"size": self.size, "source": source, "scheme": self.scheme, "sha256": self.sha256}


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
    return read_weights(find_file(source), CONVNEXT, str(source))


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


def read_weights(path: Path, network: FlatNetwork, source: str | None = None) -> Weights2D:
    """Load the weights of a kind of 2D network from one file; ``source`` is what messages call it."""
    with open_tensors(path) as tensors:
        try:
            found = network.find(tensors.shapes)
            shapes = {ours: torch.empty(tensors.shapes[name], device="meta") for ours, name in found.theirs.items()}
            size = network.checked(assembled(shapes), found)
        except NeurinoError as error:
            raise NeurinoError(f"{path}: {error}") from None
        loaded = {
            ours: checked_tensor(tensors.load(name), path, name)
            for ours, name in found.theirs.items()
            if not name.endswith("_mask")
        }
    masks = {ours: shapes[ours] for ours in shapes if ours not in loaded}
    state = assembled({**loaded, **masks})
    return Weights2D(size, source or str(path), found.library, sha256_of(path), network.title(size), state)


def encoder_state(weights: Weights2D | Mapping[str, Tensor], network: FlatNetwork) -> Mapping[str, Tensor]:
    """What our encoders take: of loaded weights, or of a state dict as any of the libraries names it."""
    if isinstance(weights, Weights2D):
        return weights.state
    return assembled({ours: weights[name] for ours, name in network.find(weights).theirs.items()})


def fill(
    encoder: nn.Module, state: Mapping[str, Tensor], weights: Weights2D, new: Callable[[str], bool] = lambda _: False
) -> None:
    """Load ``state``, made of ``weights``, into ``encoder``, wholly or not at all.

    The tensors stay the same objects, so an optimiser that holds them keeps working.

    Args:
        encoder: of our network.
        state: by the encoder's names.
        weights: for the message where the two do not fit.
        new: tells by their names the parameters into which nothing is transferred.
    """
    own = {name: tensor for name, tensor in encoder.state_dict().items() if not new(name)}
    different = own.keys() ^ state.keys()
    different |= {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape}
    if different:
        raise NeurinoError(
            f"the weights of '{weights.source}' are those of {weights.title}, which the network is not: "
            f"{len(different)} tensors differ, one is '{min(different)}'; choose the network's size accordingly"
        )
    encoder.load_state_dict(state, strict=False)


def checked_tensor(tensor: Tensor, path: Path, name: str) -> Tensor:
    """A weight as float32; ``path`` and ``name`` are for the message where it holds no finite numbers."""
    if not tensor.is_floating_point():
        raise NeurinoError(f"{path}: weight '{name}' holds {tensor.dtype}, expected floating-point numbers")
    tensor = tensor.to(torch.float32, copy=True)
    if not torch.isfinite(tensor).all():
        raise NeurinoError(f"{path}: weight '{name}' holds values that are not finite; get the file again")
    return tensor


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
