"""The depthwise convolution equals conv3d in value, first and second derivative, on whichever way it takes."""

from __future__ import annotations

import itertools
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.networks.cpu.depthwise import DepthwiseConv3d, depthwise_conv3d, runs_fast
from nnunet_neurino.networks.cpu.depthwise_weight import choose_axes, weight_gradient

KERNELS = [(3, 7, 7), (3, 3, 3), (1, 3, 3), (1, 7, 7), (5, 5, 5), (7, 7, 7), (3, 1, 5), (7, 3, 1), (1, 1, 1), (5, 3, 7)]
FORMATS = [torch.channels_last_3d, torch.contiguous_format]


def _case(
    kernel: tuple[int, int, int],
    size: tuple[int, int, int] = (5, 8, 9),
    samples: int = 2,
    channels: int = 3,
    dtype: torch.dtype = torch.float64,
    memory_format: torch.memory_format = torch.channels_last_3d,
) -> tuple[Tensor, Tensor, Tensor]:
    """Random volume, weight and bias, all wanting gradients."""
    generator = torch.Generator().manual_seed(sum(kernel) + samples)
    volume = torch.randn((samples, channels, *size), generator=generator, dtype=dtype)
    weight = torch.randn((channels, 1, *kernel), generator=generator, dtype=dtype)
    bias = torch.randn(channels, generator=generator, dtype=dtype)
    volume = volume.contiguous(memory_format=memory_format)
    return tuple(t.requires_grad_() for t in (volume, weight, bias))  # type: ignore[return-value]


def _same(kernel: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(size // 2 for size in kernel)  # type: ignore[return-value]


def _derivatives(implementation: str, leaves: tuple[Tensor, ...], padding: tuple[int, int, int]) -> list[Tensor]:
    """Value, all first derivatives and all second derivatives of a scalar that bends in every argument."""
    volume, weight, bias = leaves
    value = depthwise_conv3d(volume, weight, bias, padding, implementation=implementation)
    slopes = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view(value.shape)
    first = torch.autograd.grad((slopes * value + value.square() / 2).sum(), leaves, create_graph=True)
    bend = sum((g * torch.linspace(0, 1, g.numel(), dtype=g.dtype).view(g.shape)).sum() for g in first)
    second = torch.autograd.grad(bend, leaves)
    return [value, *first, *second]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("kernel", KERNELS)
def test_fast_way_equals_conv3d(kernel: tuple[int, int, int], samples: int, memory_format: torch.memory_format) -> None:
    leaves = _case(kernel, samples=samples, memory_format=memory_format)
    fast, plain = (_derivatives(way, leaves, _same(kernel)) for way in ("fast", "torch"))
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("padding", [(0, 0, 0), (2, 0, 1), (0, 3, 4), (1, 6, 6)])
def test_any_padding(padding: tuple[int, int, int]) -> None:
    leaves = _case((3, 7, 7), size=(4, 9, 8))
    fast, plain = (_derivatives(way, leaves, padding) for way in ("fast", "torch"))
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 2, 2), (1, 9, 2), (2, 1, 12), (3, 4, 1)])
@pytest.mark.parametrize("kernel", [(3, 7, 7), (7, 7, 7), (3, 3, 3), (5, 5, 5)])
def test_volumes_smaller_than_the_kernel(kernel: tuple[int, int, int], size: tuple[int, int, int]) -> None:
    leaves = _case(kernel, size=size)
    fast, plain = (_derivatives(way, leaves, _same(kernel)) for way in ("fast", "torch"))
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("kernel", [(3, 3, 5), (3, 5, 1)])
def test_gradcheck_of_both_orders(kernel: tuple[int, int, int]) -> None:
    leaves = _case(kernel, size=(3, 4, 4), samples=1, channels=2)

    def fast(volume: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return depthwise_conv3d(volume, weight, bias, _same(kernel), implementation="fast")

    assert torch.autograd.gradcheck(fast, leaves)
    assert torch.autograd.gradgradcheck(fast, leaves)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("channels", [16, 24, 5])
@pytest.mark.parametrize("kernel", [(3, 7, 7), (3, 3, 3), (5, 5, 5), (1, 3, 3)])
def test_single_precision_against_double(
    kernel: tuple[int, int, int], channels: int, memory_format: torch.memory_format
) -> None:
    """float32 is the way that users run: oneDNN's kernels, not the reference ones that float64 reaches."""
    leaves = _case(kernel, (9, 18, 17), 2, channels, torch.float32, memory_format)
    assert runs_fast(leaves[0], leaves[1], _same(kernel))
    exact = tuple(leaf.detach().double().requires_grad_() for leaf in leaves)
    for ours, truth in zip(
        _derivatives("auto", leaves, _same(kernel)), _derivatives("torch", exact, _same(kernel)), strict=True
    ):
        assert ours.dtype == torch.float32
        assert (ours.double() - truth).abs().max() <= 2e-5 * truth.abs().max()


@pytest.mark.parametrize("memory_format", FORMATS)
def test_memory_format_is_kept(memory_format: torch.memory_format) -> None:
    volume, weight, bias = _case((3, 7, 7), (6, 16, 16), 2, 16, torch.float32, memory_format)
    value = depthwise_conv3d(volume, weight, bias, (1, 3, 3))
    assert value.is_contiguous(memory_format=memory_format)
    for gradient_format in FORMATS:
        gradient = torch.ones_like(value).contiguous(memory_format=gradient_format)
        (of_volume,) = torch.autograd.grad(value, volume, gradient, retain_graph=True)
        assert of_volume.is_contiguous(memory_format=memory_format)


def test_only_wanted_gradients_are_computed() -> None:
    volume, weight, bias = _case((3, 3, 3))
    for wanted in itertools.product((False, True), repeat=3):
        if not any(wanted):
            continue
        leaves = [leaf.detach().requires_grad_(want) for leaf, want in zip((volume, weight, bias), wanted, strict=True)]
        depthwise_conv3d(*leaves, (1, 1, 1), implementation="fast").square().sum().backward()
        assert [leaf.grad is not None for leaf in leaves] == list(wanted)


def test_without_bias() -> None:
    volume, weight, _ = _case((3, 7, 7))
    fast, plain = (depthwise_conv3d(volume, weight, None, (1, 3, 3), implementation=way) for way in ("fast", "torch"))
    torch.testing.assert_close(fast, plain)


def test_way_that_is_taken() -> None:
    volume, weight, _ = _case((3, 7, 7), (4, 8, 8), 1, 4, torch.float32)
    pads = (1, 3, 3)
    assert runs_fast(volume, weight, pads)
    with torch.no_grad():
        assert not runs_fast(volume, weight, pads)
    assert not runs_fast(volume.detach(), weight.detach(), pads)
    assert not runs_fast(volume.double(), weight.double(), pads)
    assert not runs_fast(volume.bfloat16(), weight.bfloat16(), pads)
    assert not runs_fast(volume, weight, pads, (2, 2, 2))
    assert not runs_fast(volume, weight[..., :6], (1, 3, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert not runs_fast(volume, weight, pads)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not runs_fast(volume, weight, pads)


def test_unknown_implementation() -> None:
    volume, weight, _ = _case((3, 3, 3))
    with pytest.raises(ValueError, match="auto, fast, torch"):
        depthwise_conv3d(volume, weight, None, 1, implementation="cudnn")


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("kernel", [(4, 4, 4), (3, 3, 3), (2, 3, 3)])
def test_strides_and_even_kernels_fall_back(kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    volume, weight, bias = _case(kernel, dtype=torch.float32)
    ours = depthwise_conv3d(volume, weight, bias, (1, 1, 1), stride)
    torch.testing.assert_close(ours, F.conv3d(volume, weight, bias, stride, (1, 1, 1), groups=3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    volume, weight, bias = (leaf.detach().to(dtype) for leaf in _case((3, 3, 3), channels=16))
    layer = DepthwiseConv3d(16, 3).to(dtype)
    layer.load_state_dict({"weight": weight, "bias": bias})
    plain = nn.Conv3d(16, 16, 3, padding=1, groups=16).to(dtype)
    plain.load_state_dict(layer.state_dict())
    results = []
    for module in (layer, plain):
        leaf = volume.clone().requires_grad_()
        value = module(leaf)
        assert value.dtype == dtype
        value.float().square().sum().backward()
        results.append((value, leaf.grad, module.weight.grad, module.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_autocast_follows_conv3d() -> None:
    volume, weight, bias = _case((3, 3, 3), channels=16, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = depthwise_conv3d(volume, weight, bias, (1, 1, 1))
        theirs = F.conv3d(volume, weight, bias, padding=1, groups=16)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    torch.testing.assert_close(ours, theirs)
    ours.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_module_is_a_drop_in() -> None:
    layer, plain = DepthwiseConv3d(6, (3, 7, 7)), nn.Conv3d(6, 6, (3, 7, 7), padding=(1, 3, 3), groups=6)
    assert {k: v.shape for k, v in layer.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    layer.load_state_dict(plain.state_dict())
    volume = torch.randn(1, 6, 5, 9, 8)
    torch.testing.assert_close(layer(volume), plain(volume))
    torch.manual_seed(0)
    ours = DepthwiseConv3d(6, 3).weight
    torch.manual_seed(0)
    torch.testing.assert_close(ours, nn.Conv3d(6, 6, 3, groups=6).weight)


def test_a_volume_without_a_batch_axis_is_taken_as_conv3d_does() -> None:
    ours = DepthwiseConv3d(4, (3, 5, 5))
    theirs = nn.Conv3d(4, 4, (3, 5, 5), padding=(1, 2, 2), groups=4)
    theirs.load_state_dict(ours.state_dict())
    volume = torch.randn(4, 5, 6, 7)
    torch.testing.assert_close(ours(volume), theirs(volume))
    for module in (ours, theirs):
        module(volume).square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_tracing_shows_a_convolution() -> None:
    """Tools that count operations trace the network; they must see a convolution."""
    layer = DepthwiseConv3d(4, 3)
    graph = torch.jit.trace(layer, torch.randn(1, 4, 5, 5, 5)).inlined_graph
    assert "aten::_convolution" in str(graph)


def test_checkpointing_and_repeated_backward() -> None:
    layer = DepthwiseConv3d(8, (3, 7, 7))
    volume = torch.randn(1, 8, 4, 9, 9, requires_grad=True)
    plain = torch.autograd.grad(layer(volume).square().sum(), [volume, layer.weight])
    value = torch.utils.checkpoint.checkpoint(layer, volume, use_reentrant=False)
    again = torch.autograd.grad(value.square().sum(), [volume, layer.weight])
    for a, b in zip(plain, again, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiles_without_graph_break(backend: str) -> None:
    if backend == "inductor" and shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch._dynamo.reset()
    # Every tap of the longer kernels is code of its own, which inductor compiles for half a minute.
    layer = DepthwiseConv3d(16, (3, 3, 3) if backend == "inductor" else (3, 7, 7))
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    volume = torch.randn(2, 16, 5, 9, 8).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    results = []
    for function in (compiled, layer):
        value = function(volume)
        results.append((value, *torch.autograd.grad(value.square().sum(), [volume, layer.weight, layer.bias])))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_weight_gradient_is_its_own_definition() -> None:
    """The sum in the docstring, term by term."""
    volume, _, _ = _case((3, 7, 7), size=(4, 5, 6), channels=2)
    grad = torch.randn(2, 2, 4, 5, 6, dtype=torch.float64)
    padded = F.pad(volume.detach(), (3, 3, 3, 3, 1, 1))
    truth = torch.zeros(2, 1, 3, 7, 7, dtype=torch.float64)
    for i, j, k in itertools.product(range(3), range(7), range(7)):
        truth[:, 0, i, j, k] = (grad * padded[:, :, i : i + 4, j : j + 5, k : k + 6]).sum((0, 2, 3, 4))
    torch.testing.assert_close(weight_gradient(volume.detach(), grad, (3, 7, 7), (1, 3, 3)), truth)


def test_axes_put_a_short_kernel_inside() -> None:
    for kernel in itertools.product((1, 3, 5, 7), repeat=3):
        outer, middle, inner = choose_axes(kernel)
        assert sorted((outer, middle, inner)) == [0, 1, 2]
        assert kernel[inner] <= 3 or min(kernel) > 3
        assert kernel[outer] <= kernel[middle]
    assert choose_axes((3, 3, 3)) == (0, 1, 2)
    assert choose_axes((3, 7, 7))[2] == 0


def test_long_sums_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of planes in a call gives the same gradient."""
    volume, _, _ = _case((3, 3, 3), size=(7, 5, 6), channels=2)
    grad = torch.randn_like(volume)
    whole = weight_gradient(volume.detach(), grad, (3, 3, 3), (1, 1, 1))
    for products in (1, 60, 90):
        monkeypatch.setattr("nnunet_neurino.networks.cpu.depthwise_weight._PRODUCTS", products)
        torch.testing.assert_close(weight_gradient(volume.detach(), grad, (3, 3, 3), (1, 1, 1)), whole)
