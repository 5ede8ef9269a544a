"""The depthwise transposed convolution equals conv_transpose3d in value, first and second derivative."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nnunet_neurino.networks.cpu.depthwise_transposed import DepthwiseConvTranspose3d, depthwise_conv_transpose3d
from nnunet_neurino.networks.cpu.depthwise_weight import weight_gradient

Triple = tuple[int, int, int]
FORMATS = [torch.channels_last_3d, torch.contiguous_format]


def _leaves(kernel: Triple, size: Triple, dtype: torch.dtype, last: torch.memory_format) -> list[Tensor]:
    torch.manual_seed(1)
    volume = torch.randn(2, 16, *size, dtype=dtype).contiguous(memory_format=last)
    leaves = [volume, torch.randn(16, 1, *kernel, dtype=dtype), torch.randn(16, dtype=dtype)]
    return [leaf.requires_grad_() for leaf in leaves]


def _derivatives(way: str, leaves: list[Tensor], stride: Triple, padding: Triple) -> list[Tensor]:
    value = depthwise_conv_transpose3d(*leaves, stride, padding, way)
    slopes = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view(value.shape)
    first = torch.autograd.grad((slopes * value + value.square() / 2).sum(), leaves, create_graph=True)
    bend = sum((g * torch.linspace(0, 1, g.numel(), dtype=g.dtype).view(g.shape)).sum() for g in first)
    return [value, *first, *torch.autograd.grad(bend, leaves)]


@pytest.mark.parametrize("last", FORMATS)
@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize(
    ("kernel", "padding"), [((3, 3, 3), (1, 1, 1)), ((3, 5, 5), (1, 2, 0)), ((1, 3, 3), (0, 0, 1))]
)
@pytest.mark.parametrize("size", [(3, 4, 5), (1, 2, 2)])
def test_equals_conv_transpose3d(
    size: Triple, kernel: Triple, padding: Triple, stride: Triple, last: torch.memory_format
) -> None:
    leaves = _leaves(kernel, size, torch.float64, last)
    for ours, theirs in zip(
        _derivatives("fast", leaves, stride, padding), _derivatives("torch", leaves, stride, padding), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("last", FORMATS)
def test_single_precision(last: torch.memory_format) -> None:
    leaves = _leaves((3, 3, 3), (6, 8, 7), torch.float32, last)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    setting = ((2, 2, 2), (1, 1, 1))
    value, *derivatives = _derivatives("auto", leaves, *setting)
    assert type(value.grad_fn).__name__ == "_TransposedBackward"
    assert value.is_contiguous(memory_format=last)
    for ours, truth in zip([value, *derivatives], _derivatives("torch", exact, *setting), strict=True):
        assert (ours - truth).abs().max() <= 1e-5 * truth.abs().max()


def test_module_is_a_drop_in() -> None:
    ours = DepthwiseConvTranspose3d(4, (3, 3, 3), (1, 2, 2), (1, 1, 1))
    plain = nn.ConvTranspose3d(4, 4, 3, stride=(1, 2, 2), padding=1, groups=4)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    ours.load_state_dict(plain.state_dict())
    volume = torch.randn(1, 4, 3, 5, 4)
    torch.testing.assert_close(ours(volume), plain(volume))
    with torch.no_grad():
        torch.testing.assert_close(ours(volume), plain(volume))
    with pytest.raises(ValueError, match="output_size"):
        ours(volume, output_size=[4, 10, 8])


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 3, 2)])
@pytest.mark.parametrize("kernel", [(3, 3, 3), (3, 7, 7), (5, 5, 5), (2, 4, 4)])
def test_weight_gradient_with_stride(kernel: Triple, stride: Triple) -> None:
    """Against PyTorch's own, for sizes that the stride divides and sizes that it does not."""
    padding = tuple(size // 2 for size in kernel)
    for size in ((4, 8, 9), (5, 7, 6)):
        volume = torch.randn(2, 3, *size, dtype=torch.float64)
        weight = torch.randn(3, 1, *kernel, dtype=torch.float64, requires_grad=True)
        value = nn.functional.conv3d(volume, weight, None, stride, padding, groups=3)
        grad = torch.randn_like(value)
        (truth,) = torch.autograd.grad(value, weight, grad)
        ours = weight_gradient(volume, grad, kernel, padding, stride)  # type: ignore[arg-type]
        torch.testing.assert_close(ours, truth)


def test_compiles_without_graph_break() -> None:
    torch._dynamo.reset()
    layer = DepthwiseConvTranspose3d(16, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    volume = torch.randn(1, 16, 3, 4, 5, requires_grad=True)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    results = []
    for function in (compiled, layer):
        value = function(volume)
        results.append((value, *torch.autograd.grad(value.square().sum(), [volume, layer.weight])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
