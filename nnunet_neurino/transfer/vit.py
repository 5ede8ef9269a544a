"""2D vision transformers, such as DINO's, into DINeuro and DINOWindow.

Sources and errors are those of ``load_2d_weights``. For DINeuro only the patch embedding changes: it is inflated to a
block of slices, and flattened to the taps of the tubes. Everything else is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.block_embedding import inflate_block_kernel
from nnunet_neurino.networks.dineuro import BlockViT
from nnunet_neurino.networks.slice_encoder import SliceEncoder
from nnunet_neurino.networks.tubes import flatten_kernel
from nnunet_neurino.transfer.flat import VIT
from nnunet_neurino.transfer.inflate import adapt_channels
from nnunet_neurino.transfer.weights import Weights2D, encoder_state, fill, find_file, read_weights

VIT_PAGES = {
    "small": "vit_small_patch16_224.dino",
    "base": "vit_base_patch16_224.dino",
    "small_v3": "vit_small_patch16_dinov3.lvd1689m",
    "base_v3": "vit_base_patch16_dinov3.lvd1689m",
}
"""timm's names of DINO's (Apache-2.0) and DINOv3's (Meta's own licence) ViTs, by our names."""


def load_vit_weights(source: str | Path) -> Weights2D | None:
    """Load the weights of a 2D ViT with patches of 16 pixels: DINO's or DINOv3's, S or B.

    Args:
        source: ``none`` (None comes back); ``small``, ``base``, ``small_v3`` or ``base_v3``: from timm's page on the
            hub; or whatever else ``load_2d_weights`` takes: a timm model, a page, a folder, a file.

    Raises:
        NeurinoError: what is missing or wrong, and how to get it.
    """
    if str(source) == "none":
        return None
    return read_weights(find_file(VIT_PAGES.get(str(source), source)), VIT, str(source))


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
    result = {name: tensor.clone() for name, tensor in encoder_state(weights, VIT).items()}
    kernel, bias = adapt_channels(result["patch_embed.proj.weight"], in_channels, rgb), result["patch_embed.proj.bias"]
    result["patch_embed.proj.weight"] = inflate_block_kernel(kernel, block_depth, rule).contiguous()
    if tube_length is not None:
        for axis in range(3):
            result[f"tubes.views.{axis}.weight"] = flatten_kernel(kernel, tube_length).contiguous()
            result[f"tubes.views.{axis}.bias"] = bias.clone()
    return result


def inflate_vit_into(network: nn.Module, weights: Weights2D, rule: str | None = None, rgb: str = "sum") -> None:
    """Fill the encoder of ``network`` (a ``DINeuro``) with 2D weights, in place, wholly or not at all.

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
        in_channels=encoder.patch_embed.proj.in_channels,
        rgb=rgb,
        block_depth=encoder.patch_embed.depth,
        tube_length=None if encoder.tubes is None else encoder.tubes.length,
    )
    fill(encoder, inflated, weights, lambda name: name.startswith(("tubes.mix.", "tubes.gate")) or ".head." in name)


def fill_slice_encoder(network: nn.Module, weights: Weights2D) -> None:
    """Fill the frozen encoder of ``network`` (a ``DINOWindow``) with 2D weights as they are, wholly or not at all."""
    encoder = network.get_submodule("encoder")
    if not isinstance(encoder, SliceEncoder):
        raise NeurinoError(f"{type(network).__name__} has no frozen 2D ViT that 2D weights can be put into")
    fill(encoder, weights.state, weights)
