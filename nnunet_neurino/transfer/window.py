"""A 2D vision transformer's weights into the frozen encoder of a window network: copied as they are."""

from __future__ import annotations

from torch import nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.slice_encoder import SliceEncoder
from nnunet_neurino.transfer.weights import Weights2D


def fill_slice_encoder(network: nn.Module, weights: Weights2D) -> None:
    """Fill the encoder of ``network`` (a ``DINOWindow``) with 2D weights, wholly or not at all.

    Args:
        network: whose ``encoder`` is filled.
        weights: from ``load_vit_weights``.
    """
    encoder = network.get_submodule("encoder")
    if not isinstance(encoder, SliceEncoder):
        raise NeurinoError(f"{type(network).__name__} has no frozen 2D ViT that 2D weights can be put into")
    state = {
        name if name.startswith("patch_embed.") else f"vit.{name}": tensor for name, tensor in weights.state.items()
    }
    own = encoder.state_dict()
    different = [name for name in {*own, *state} if name not in own or name not in state]
    different += [name for name in own if name in state and own[name].shape != state[name].shape]
    if different:
        raise NeurinoError(
            f"the weights of '{weights.source}' are those of ViT {weights.size}, which the network is not: "
            f"{len(different)} tensors differ, one is '{min(different)}'; choose the network's size accordingly"
        )
    encoder.load_state_dict(state)
