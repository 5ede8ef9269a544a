"""The 2D networks that weights come from, ConvNeXt and ViT: what of their state dicts our encoders take.

timm makes the networks on the meta device, which tells names and shapes and takes no memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.convnext import SIZES, ConvNeXtSize
from nnunet_neurino.networks.vit import VITS, ViTSize
from nnunet_neurino.transfer.libraries import CONVNEXT_LIBRARIES, VIT_LIBRARIES, Library, Renamed, import_timm, renamed

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class FlatNetwork:
    """A kind of 2D network."""

    kind: str  # its name
    encoder: str  # what a file may hold none of, or two
    title: Callable[[str], str]  # what a size is called in messages
    libraries: tuple[Library, ...]  # that may have named its weights, timm first
    unused: str  # pattern of (timm's) names of weights that our encoders do without
    sizes: Mapping[str, Any]  # all known ones by name
    model: Callable[[Any], nn.Module]  # timm's network of a size
    # the name of the size that a state dict can be of; ``NeurinoError`` if there is none
    size_of: Callable[[State], str]

    def find(self, names: Iterable[str]) -> Renamed:
        """The weights that our encoder takes, by timm's names, among all ``names`` in a file."""
        found = renamed(names, self.libraries, self.encoder)
        used = {timms: name for timms, name in found.theirs.items() if not re.fullmatch(self.unused, timms)}
        return replace(found, theirs=used)

    def expected(self, size: Any) -> dict[str, Tensor]:
        """What our encoder takes of a network of this size, on the meta device."""
        with torch.device("meta"):
            state = self.model(size).state_dict()
        return assembled({timms: state[name] for timms, name in self.find(state).theirs.items()})

    def checked(self, state: State, found: Renamed) -> str:
        """The name of the size that ``state`` is of, every name and shape checked.

        Args:
            state: what our encoder is to take; tensors on the meta device will do.
            found: the names in the file, for messages.
        """
        size = self.size_of(state)
        title, expected = self.title(size), self.expected(self.sizes[size])
        for name in state:
            if name not in expected:
                raise NeurinoError(
                    f"weight '{_shown(name, found)}' does not belong to a {self.kind} as {found.library} names it"
                )
        missing = [name for name in expected if name not in state]
        if missing:
            raise NeurinoError(
                f"{len(missing)} weights of {title} are missing, the first is '{missing[0]}'; the file is incomplete"
            )
        for name, tensor in expected.items():
            if state[name].shape != tensor.shape:
                raise NeurinoError(
                    f"weight '{_shown(name, found)}' has shape {tuple(state[name].shape)}; {title} has "
                    f"{tuple(tensor.shape)} there"
                )
        return size


def _shown(name: str, found: Renamed) -> str:
    """The name in the file of what became ``name``."""
    return found.theirs.get(name) or found.theirs.get(name.replace(".qkv.", ".q."), name)


def assembled(weights: State) -> dict[str, Tensor]:
    """Weights as our encoders take them.

    1x1 convolutions are matrices. Queries, keys and values are together; their bias is zero where a library leaves it
    out, and for keys where it is masked.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if part := re.fullmatch(r"(.+\.attn)\.[qkv]\.(weight|bias)", name):
            whole = f"{part[1]}.qkv.{part[2]}"
            if whole not in state:
                state[whole] = _together(weights, part[1], part[2])
        elif not name.endswith("qkv.bias_mask"):
            state[name] = tensor.reshape(tensor.shape[:2]) if tensor.shape[2:] == (1, 1) else tensor
    for name in [name for name in state if name.endswith("attn.qkv.weight")]:
        bias = name.replace("weight", "bias")
        state.setdefault(bias, state[name].new_zeros(state[name].shape[:1]))
        if f"{bias}_mask" in weights:
            # DINOv3's files multiply the keys' bias by a mask of zeros.
            state[bias] = state[bias].clone()
            width = state[bias].numel() // 3
            state[bias].view(-1)[width : 2 * width] = 0
    return state


def _together(weights: State, layer: str, kind: str) -> Tensor:
    parts = [weights.get(f"{layer}.{part}.{kind}") for part in "qkv"]
    query = parts[0]
    if kind == "bias" and parts[1] is None and query is not None:
        parts[1] = torch.zeros_like(query)
    for part, tensor in zip("qkv", parts, strict=True):
        if tensor is None:
            raise NeurinoError(f"of weight '{layer}.qkv.{kind}' the part '{part}' is missing; the file is incomplete")
        if query is not None and tensor.shape != query.shape:
            raise NeurinoError(f"the parts of weight '{layer}.qkv.{kind}' have different shapes")
    return torch.cat([tensor for tensor in parts if tensor is not None])


def _convnext(size: ConvNeXtSize) -> nn.Module:
    return import_timm().create_model("convnext_tiny", pretrained=False, depths=size.depths, dims=size.widths)


def _convnext_size(state: State) -> str:
    widths = tuple(state[name].shape[0] if (name := f"stages.{n}.blocks.0.gamma") in state else 0 for n in range(4))
    depths = tuple(
        len({name.split(".")[3] for name in state if name.startswith(f"stages.{n}.blocks.")}) for n in range(4)
    )
    if not all(widths) or not all(depths):
        raise NeurinoError("the weights of at least one of the four stages are missing; the file is incomplete")

    def apart(size: ConvNeXtSize) -> tuple[int, ...]:
        pairs = ((size.widths, widths), (size.depths, depths))
        return tuple(sum(abs(x - y) for x, y in zip(a, b, strict=True)) for a, b in pairs)

    nearest = min(SIZES, key=lambda name: apart(SIZES[name]))
    size = SIZES[nearest]
    if size.widths != widths or any(found > wanted for found, wanted in zip(depths, size.depths, strict=True)):
        known = "; ".join(f"{name}: {size.widths}, {size.depths}" for name, size in SIZES.items())
        raise NeurinoError(f"a ConvNeXt of widths {widths} and depths {depths} is not one of the sizes known ({known})")
    return nearest


def _vit(size: ViTSize) -> nn.Module:
    name = "vit_small_patch16_dinov3_qkvb" if size.native is None else "vit_small_patch16_224"
    return import_timm().create_model(
        name, pretrained=False, embed_dim=size.width, depth=size.depth, num_heads=size.heads, num_classes=0
    )


def _vit_size(state: State) -> str:
    if "cls_token" not in state:
        raise NeurinoError("the class token is missing; the file is incomplete, or not a ViT of DINO or DINOv3")
    width = state["cls_token"].shape[-1]
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    rotary = "pos_embed" not in state
    fits = [name for name, size in VITS.items() if size.width == width and (size.native is None) == rotary]
    if not fits or depth > VITS[fits[0]].depth:
        known = "; ".join(f"{name}: {size.width}, {size.depth}" for name, size in VITS.items())
        kind = "rotary" if rotary else "learned"
        raise NeurinoError(
            f"a ViT of width {width} and {depth} blocks with {kind} positions is not one of those known ({known})"
        )
    return fits[0]


CONVNEXT = FlatNetwork(
    kind="ConvNeXt",
    encoder="ConvNeXt encoder",
    title=lambda size: f"ConvNeXt-{size.capitalize()}",
    libraries=CONVNEXT_LIBRARIES,
    unused=r"(head|norm_pre|norms?|layer_norm|pool)\..+",
    sizes=SIZES,
    model=_convnext,
    size_of=_convnext_size,
)

VIT = FlatNetwork(
    kind="ViT/16",
    encoder="vision transformer",
    title="ViT {}".format,
    libraries=VIT_LIBRARIES,
    unused=r"(head|head_dist|fc_norm|local_cls_norm|pooler|classifier|rope\w*)\..+|mask_token",
    sizes=VITS,
    model=_vit,
    size_of=_vit_size,
)
