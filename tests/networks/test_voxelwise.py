"""The perceptron of every voxel, in portions, equals PyTorch's own operations in value and derivatives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_neurino.networks.cpu import voxel_portions, voxelwise
from nnunet_neurino.networks.cpu.voxelwise import VoxelMLP, channel_statistics, plain_voxel_mlp, pointwise, voxel_mlp
from nnunet_neurino.networks.layers import VoxelBatchNorm
from nnunet_neurino.networks.mednext_blocks import MedNeXtBlock, MedNeXtUpBlock

CHANNELS, HIDDEN, OUT = 8, 24, 6


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes of the size of a test take several portions, the last one incomplete."""
    monkeypatch.setattr(voxel_portions, "PORTION", 64 * HIDDEN)
    monkeypatch.setattr(voxelwise, "_SMALL", 0)


def _case(
    norm: bool, residual: bool, dtype: torch.dtype = torch.float32, last: bool = True
) -> tuple[Tensor, VoxelMLP, Tensor | None]:
    torch.manual_seed(3)

    def leaf(*shape: int) -> Tensor:
        tensor = torch.randn(shape, dtype=dtype)
        if len(shape) == 5 and last:
            tensor = tensor.contiguous(memory_format=torch.channels_last_3d)
        return tensor.requires_grad_()

    mlp = VoxelMLP(
        leaf(HIDDEN, CHANNELS),
        leaf(HIDDEN),
        leaf(OUT, HIDDEN),
        leaf(OUT),
        leaf(CHANNELS) if norm else None,
        leaf(CHANNELS) if norm else None,
    )
    return leaf(2, CHANNELS, 4, 5, 7), mlp, leaf(2, OUT, 4, 5, 7) if residual else None


def _leaves(volume: Tensor, mlp: VoxelMLP, residual: Tensor | None) -> list[Tensor]:
    return [leaf for leaf in (volume, *mlp, residual) if leaf is not None]


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_portions_equal_plain_operations(norm: bool, residual: bool, last: bool) -> None:
    volume, mlp, added = _case(norm, residual, last=last)
    exact = _case(norm, residual, torch.float64, last)
    for ours, plain in zip(_leaves(volume, mlp, added), _leaves(*exact), strict=True):
        plain.data.copy_(ours.data)
    value, truth = voxel_mlp(volume, mlp, added), plain_voxel_mlp(*exact)
    assert type(value.grad_fn).__name__ == "_PortionsBackward"
    assert value.is_contiguous(memory_format=torch.channels_last_3d)
    grad = torch.randn(value.shape)
    ours = [value, *torch.autograd.grad(value, _leaves(volume, mlp, added), grad)]
    theirs = [truth, *torch.autograd.grad(truth, _leaves(*exact), grad.double())]
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


def test_double_backward() -> None:
    volume, mlp, added = _case(True, True)
    results = []
    for function in (voxel_mlp, plain_voxel_mlp):
        leaves = _leaves(volume, mlp, added)
        value = function(volume, mlp, added)
        first = torch.autograd.grad(value.square().sum() / 100, leaves, create_graph=True)
        bend = sum(g.square().sum() for g in first) / 1e5
        results.append(torch.autograd.grad(bend, leaves))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_without_gradients() -> None:
    volume, mlp, added = _case(True, True)
    with torch.no_grad():
        value = voxel_mlp(volume, mlp, added)
        torch.testing.assert_close(value, plain_voxel_mlp(volume, mlp, added), rtol=1e-4, atol=1e-4)
    assert not value.requires_grad


def test_frozen_parameters_stay_without_gradient() -> None:
    volume, mlp, added = _case(True, True)
    frozen = VoxelMLP(*(None if p is None else p.detach() for p in mlp))  # type: ignore[arg-type]
    voxel_mlp(volume, frozen, added).sum().backward()
    assert volume.grad is not None
    assert added is not None
    assert added.grad is not None
    voxel_mlp(volume.detach(), mlp).sum().backward()
    assert all(parameter.grad is not None for parameter in mlp if parameter is not None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_plain(dtype: torch.dtype) -> None:
    volume, mlp, added = _case(True, True, dtype)
    value = voxel_mlp(volume, mlp, added)
    assert value.dtype == dtype
    torch.testing.assert_close(value, plain_voxel_mlp(volume, mlp, added))


def test_autocast_is_plain() -> None:
    volume, mlp, _ = _case(False, False)
    with torch.autocast("cpu", torch.bfloat16):
        value = voxel_mlp(volume, mlp)
    assert value.dtype == torch.bfloat16


def test_small_volumes_keep_their_hidden_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxelwise, "_SMALL", 2**22)
    volume, mlp, added = _case(True, True)
    assert type(voxel_mlp(volume, mlp, added).grad_fn).__name__ != "_PortionsBackward"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pointwise_is_a_linear_map_of_channels(dtype: torch.dtype) -> None:
    volume, mlp, _ = _case(False, False, dtype)
    truth = torch.einsum("nczyx,hc->nhzyx", volume, mlp.expand_weight)
    torch.testing.assert_close(pointwise(volume, mlp.expand_weight), truth, rtol=1e-5, atol=1e-5)
    with_bias = F.conv3d(volume, mlp.expand_weight[:, :, None, None, None], mlp.expand_bias)
    torch.testing.assert_close(pointwise(volume, mlp.expand_weight, mlp.expand_bias), with_bias)


def test_compiled_whole() -> None:
    torch._dynamo.reset()
    volume, mlp, added = _case(True, True)
    compiled = torch.compile(voxel_mlp, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(volume, mlp, added), plain_voxel_mlp(volume, mlp, added), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("of_batch", [True, False])
@pytest.mark.parametrize("twice", [True, False])
def test_batch_norm_in_front(of_batch: bool, twice: bool) -> None:
    """First and second derivatives go through the statistics of the batch, and only through those."""
    volume, mlp, added = _case(True, True)
    exact = _case(True, True, torch.float64)
    results = []
    for function, (v, m, r) in ((voxel_mlp, (volume, mlp, added)), (plain_voxel_mlp, exact)):
        v.data.mul_(3).add_(2)
        v.data.copy_(volume.data)
        for ours, theirs in zip(_leaves(v, m, r), _leaves(volume, mlp, added), strict=True):
            ours.data.copy_(theirs.data)
        mean, variance = (
            channel_statistics(v) if of_batch else (torch.full((CHANNELS,), 0.5), torch.full((CHANNELS,), 3.0))
        )
        m = m._replace(mean=mean.to(v.dtype), variance=variance.to(v.dtype))
        leaves = [*_leaves(v, m._replace(mean=None, variance=None), r)]
        value = function(v, m, r, 1e-5, of_batch)
        first = torch.autograd.grad(value.square().sum() / 100, leaves, create_graph=twice)
        if twice:
            first = torch.autograd.grad(sum(g.square().sum() for g in first) / 1e5, leaves)
        results.append((value, *first))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 2e-5 * theirs.abs().max()


def test_channel_statistics() -> None:
    volume = torch.randn(2, 5, 9, 8, 7) * 3 + 100
    mean, variance = channel_statistics(volume)
    torch.testing.assert_close(mean, volume.mean((0, 2, 3, 4)))
    torch.testing.assert_close(variance, volume.double().var((0, 2, 3, 4), correction=0).float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("up", [True, False])
def test_blocks_and_their_running_statistics(up: bool, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same outputs, gradients and running statistics in portions and by the norm layer itself."""

    def make() -> MedNeXtBlock | MedNeXtUpBlock:
        return MedNeXtUpBlock(8, 4, (2, 2, 2), 2, "batch", False) if up else MedNeXtBlock(8, 2, "batch", False)

    volume = torch.randn(2, 8, 6, 5, 7, requires_grad=True)
    state = make().state_dict()
    results = []
    for small in (0, 2**40):
        monkeypatch.setattr(voxelwise, "_SMALL", small)
        block = make()
        block.load_state_dict(state)
        assert isinstance(block.norm, VoxelBatchNorm)
        block.train(training)
        values = [block(volume) for _ in range(2)]
        grads = torch.autograd.grad(values[0].sin().sum() + values[1].sum(), [volume, *block.parameters()])
        results.append((*values, *grads, *block.buffers()))
    for ours, theirs in zip(*results, strict=True):
        # The bias in front of a batch norm has the gradient 0, made of large numbers that cancel.
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
