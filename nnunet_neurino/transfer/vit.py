"""2D vision transformers, such as DINO's, into DINeuro: where the weights come from and how they become 3D.

Sources and errors are those of ``load_2d_weights``. Only the patch embedding changes: it is inflated to a block of
slices, and flattened to the taps of the tubes. Everything behind it is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.block_embedding import inflate_block_kernel
from nnunet_neurino.networks.dineuro import BlockViT
from nnunet_neurino.networks.tubes import flatten_kernel
from nnunet_neurino.transfer.inflate import adapt_channels
from nnunet_neurino.transfer.tensor_files import open_tensors
from nnunet_neurino.transfer.vit_names import RenamedViT, renamed_vit, vit_of
from nnunet_neurino.transfer.weights import Weights2D, checked_tensor, find_file, sha256_of

VIT_PAGES = {
    "small": "vit_small_patch16_224.dino",
    "base": "vit_base_patch16_224.dino",
    "small_v3": "vit_small_patch16_dinov3.lvd1689m",
    "base_v3": "vit_base_patch16_dinov3.lvd1689m",
}
"""timm's names of DINO's (Apache-2.0) and DINOv3's (Meta's own licence) ViTs, by our names."""


class ViTWeights(Weights2D):
    """The weights of a 2D ViT; ``size`` is a name of ``nnunet_neurino.networks.VITS``."""

    @property
    def architecture(self) -> str:
        """What was found, in words."""
        return f"ViT {self.size}, {sum(t.numel() for t in self.state.values()):,} parameters"


def load_vit_weights(source: str | Path) -> ViTWeights | None:
    """Load the weights of a 2D ViT with patches of 16 pixels: DINO's or DINOv3's, S or B.

    Args:
        source: ``none`` (None comes back); ``small``, ``base``, ``small_v3`` or ``base_v3``: from timm's page on the
            hub; or whatever else ``load_2d_weights`` takes: a timm model, a page, a folder, a file.

    Raises:
        NeurinoError: what is missing or wrong, and how to get it.
    """
    if str(source) == "none":
        return None
    return read_vit_weights(find_file(VIT_PAGES.get(str(source), source)), str(source))


def read_vit_weights(path: Path, source: str | None = None) -> ViTWeights:
    """Load the weights in one file; ``source`` is what messages call it."""
    with open_tensors(path) as tensors:
        try:
            found = renamed_vit(tensors.shapes)
            shown = {ours: next(iter(parts.values())) for ours, parts in found.pieces.items()}
            size = vit_of(found.shapes(tensors.shapes), lambda ours: shown.get(ours, ours))
        except NeurinoError as error:
            raise NeurinoError(f"{path}: {error}") from None
        names = [name for parts in found.pieces.values() for name in parts.values()]
        state = _assembled(found, {name: checked_tensor(tensors.load(name), path, name) for name in names})
    return ViTWeights(size, source or str(path), found.scheme, sha256_of(path), state)


def _assembled(found: RenamedViT, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By our names: queries, keys and values together, biases that a library leaves out or masks as zeros."""
    state = {}
    for ours, parts in found.pieces.items():
        if "" in parts:
            state[ours] = tensors[parts[""]]
        else:
            zeros = torch.zeros_like(tensors[next(iter(parts.values()))])
            state[ours] = torch.cat([tensors[parts[part]] if part in parts else zeros for part in ("q", "k", "v")])
    for name in found.masked & state.keys():
        query, key, value = state[name].chunk(3)
        state[name] = torch.cat([query, torch.zeros_like(key), value])
    for name in [name for name in state if name.endswith("qkv.weight")]:
        state.setdefault(name.replace("weight", "bias"), torch.zeros_like(state[name][:, 0]))
    return state


def inflate_vit(
    weights: Weights2D | Mapping[str, Tensor],
    rule: str = "center",
    *,
    in_channels: int = 1,
    rgb: str = "sum",
    block_depth: int = 5,
    tube_length: int | None = None,
) -> dict[str, Tensor]:
    """Make what DINeuro's encoder has of a 2D ViT's weights.

    Args:
        weights: from ``load_vit_weights``, or a state dict as timm, transformers or Meta's files name it. Not changed.
        rule: ``center`` or ``average``: from the 2D kernel to a block of slices. The tubes get the 2D kernel as it is,
            with either rule (how the paper combines the two is not said; this is ours).
        in_channels: channels of the image.
        rgb: how three input channels become ``in_channels``; see ``adapt_channels``.
        block_depth: slices of a block.
        tube_length: taps of the tubes; None where there are none.

    Returns:
        names and tensors of ``DINeuro(...).encoder``. It also has parameters with nothing to transfer into: the tubes'
        offset heads, their mixing and gate.
    """
    if isinstance(weights, Weights2D):
        state = weights.state
    else:
        found = renamed_vit(weights)
        vit_of(found.shapes({name: tuple(tensor.shape) for name, tensor in weights.items()}))
        state = _assembled(found, weights)
    kernel = adapt_channels(state["patch_embed.weight"], in_channels, rgb)
    result = {f"vit.{name}": tensor.clone() for name, tensor in state.items() if not name.startswith("patch_embed.")}
    result["embedding.conv.weight"] = inflate_block_kernel(kernel, block_depth, rule).contiguous()
    result["embedding.conv.bias"] = state["patch_embed.bias"].clone()
    if tube_length is not None:
        for axis in range(3):
            result[f"tubes.views.{axis}.weight"] = flatten_kernel(kernel, tube_length).contiguous()
            result[f"tubes.views.{axis}.bias"] = state["patch_embed.bias"].clone()
    return result


def inflate_vit_into(network: nn.Module, weights: Weights2D, rule: str | None = None, rgb: str = "sum") -> None:
    """Fill the encoder of ``network`` (a ``DINeuro``) with 2D weights, wholly or not at all.

    The tensors stay the same objects, so an optimiser that holds them keeps working.

    Args:
        network: whose ``encoder`` is filled.
        weights: from ``load_vit_weights``.
        rule: see ``inflate_vit``; None takes the network's own.
        rgb: see ``inflate_vit``.
    """
    encoder = network.get_submodule("encoder")
    if not isinstance(encoder, BlockViT):
        raise NeurinoError(f"{type(network).__name__} has no ViT that 2D weights can be put into")
    inflated = inflate_vit(
        weights,
        str(network.transfer) if rule is None else rule,
        in_channels=encoder.embedding.conv.in_channels,
        rgb=rgb,
        block_depth=encoder.embedding.depth,
        tube_length=None if encoder.tubes is None else encoder.tubes.length,
    )
    own = encoder.state_dict()
    new = {name for name in own if name.startswith(("tubes.mix.", "tubes.gate")) or ".head." in name}
    different = [name for name in {*own, *inflated} if name not in new and (name not in own or name not in inflated)]
    different += [name for name in own if name in inflated and own[name].shape != inflated[name].shape]
    if different:
        raise NeurinoError(
            f"the weights of '{weights.source}' are those of ViT {weights.size}, which the network is not: "
            f"{len(different)} tensors differ, one is '{min(different)}'; choose the network's size accordingly"
        )
    encoder.load_state_dict(inflated, strict=False)
