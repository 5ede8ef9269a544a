"""The fast ways under autocast: the types and, up to rounding, the values and gradients of PyTorch's own operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from nnunet_neurino.networks.cpu.depthwise import DepthwiseConv3d
from nnunet_neurino.networks.cpu.depthwise_transposed import DepthwiseConvTranspose3d
from nnunet_neurino.networks.cpu.voxelwise import VoxelMLP, plain_voxel_mlp, voxel_mlp

OPERATIONS: dict[str, Callable[[str], nn.Module]] = {
    "depthwise": lambda way: DepthwiseConv3d(6, (3, 5, 3), implementation=way),
    "transposed": lambda way: DepthwiseConvTranspose3d(6, (3, 3, 3), (1, 2, 2), (1, 1, 1), implementation=way),
}


def with_gradients(module: nn.Module, x: Tensor, inside: bool) -> list[Tensor]:
    """Result, and the gradients of input and parameters; the backward pass inside autocast or, as usual, outside."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = module(x)
        loss = (result.float() * torch.linspace(-1, 1, result.numel()).view_as(result)).sum()
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return [result, x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_depthwise_convolutions(operation: str, dtype: torch.dtype, inside: bool) -> None:
    torch.manual_seed(0)
    fast, plain = (OPERATIONS[operation](way) for way in ("fast", "torch"))
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 6, 5, 7, 6).to(dtype)
    found, expected = (with_gradients(module, x, inside) for module in (fast, plain))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == theirs.dtype
        largest = float(theirs.detach().float().abs().max())
        torch.testing.assert_close(mine.float(), theirs.float(), rtol=0.03, atol=0.03 * largest)


def test_float64_is_left_alone() -> None:
    module = OPERATIONS["depthwise"]("fast").double()
    with torch.autocast("cpu", torch.bfloat16):
        assert module(torch.randn(1, 6, 4, 4, 4, dtype=torch.float64)).dtype == torch.float64


def test_perceptrons_take_the_plain_way() -> None:
    torch.manual_seed(0)
    volume = torch.randn(1, 16, 40, 40, 40).to(memory_format=torch.channels_last_3d).requires_grad_()
    shapes = ((128, 16), (128,), (16, 128), (16,), (16,), (16,))
    mlp = VoxelMLP(*(torch.randn(shape).mul_(0.1).requires_grad_() for shape in shapes))
    results = []
    for way in (voxel_mlp, plain_voxel_mlp):
        with torch.autocast("cpu", torch.bfloat16):
            result = way(volume, mlp)
        results.append((result, *torch.autograd.grad(result.float().square().mean(), [volume, *mlp[:6]])))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)
