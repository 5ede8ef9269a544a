"""Live bytes on fake CUDA tensors: PyTorch's own dispatch and autocast for CUDA, without a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call


def _fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """What GPUs take; PyTorch looks for one, and finding none would choose the kind that writes the weights down."""
    if torch.is_autocast_enabled("cuda"):
        return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]


def bytes_after_forward(network: nn.Module, shape: Sequence[int], mixed: bool) -> int | None:
    """Of the image, the outputs and all that the backward pass needs; None where there are no fake CUDA tensors.

    Args:
        network: on the meta device.
        shape: of the image (N, C, z, y, x).
        mixed: with mixed precision.
    """
    kept: dict[int, int] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            state = {
                name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda").requires_grad_(tensor.requires_grad)
                for name, tensor in [*network.named_parameters(), *network.named_buffers()]
            }
            image = torch.empty(*shape, device="cuda")
        except (RuntimeError, AssertionError):
            return None
        torch.set_autocast_enabled("cuda", mixed)
        torch.set_autocast_dtype("cuda", torch.float16)
        try:
            with (
                mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", _fused),
                torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor),
            ):
                outputs = functional_call(network.train(), state, (image,))
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
        for tensor in (image, *(outputs if isinstance(outputs, list) else [outputs])):
            remember(tensor)
        for tensor in state.values():
            kept.pop(tensor.untyped_storage()._cdata, None)
    return sum(kept.values())
