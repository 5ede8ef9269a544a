"""Layers and blocks against plain reference formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nnunet_neurino.networks import NeurINO
from nnunet_neurino.networks.layers import ChannelNorm, GlobalResponseNorm, PatchNorm, VoxelBatchNorm
from nnunet_neurino.networks.mednext_blocks import MedNeXtDownBlock, MedNeXtUpBlock


def _filled(module: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    module.double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module


@pytest.mark.parametrize("shape", [(2, 6, 6, 6, 6), (1, 6, 6, 3, 2), (1, 6, 2, 3, 6), (2, 6, 1, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_channel_norm_takes_the_channel_axis_whatever_the_sizes(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    norm = _filled(ChannelNorm(6))
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=layout)
    mean, variance = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    expected = (x - mean) / (variance + 1e-6).sqrt() * norm.weight.view(1, -1, 1, 1, 1) + norm.bias.view(1, -1, 1, 1, 1)
    assert torch.allclose(norm(x), expected, atol=1e-12)


def test_encoder_normalises_channels_when_depth_equals_width() -> None:
    """The published network fails here: 192 slices make 96 slices of 96 channels after the stem."""
    from nnunet_neurino.networks import NeurINO

    stem = _filled(NeurINO().encoder.stem)
    image = torch.randn(1, 1, 192, 4, 4, dtype=torch.float64)
    before, after = stem[0](image), stem(image)
    assert before.shape == (1, 96, 96, 2, 2)
    reference = torch.stack(
        [
            F.layer_norm(before[..., z, :, :].permute(0, 2, 3, 1), (96,), stem[1].weight, stem[1].bias, 1e-6)
            for z in range(96)
        ],
        dim=1,
    ).permute(0, 4, 1, 2, 3)
    assert torch.allclose(after, reference, atol=1e-10)


def test_global_response_norm_is_the_published_formula() -> None:
    norm = _filled(GlobalResponseNorm(5))
    x = torch.randn(2, 5, 3, 4, 2, dtype=torch.float64)
    energy = x.square().sum((2, 3, 4), keepdim=True).sqrt()
    share = energy / (energy.mean(1, keepdim=True) + 1e-6)
    weight, bias = norm.weight.view(1, -1, 1, 1, 1), norm.bias.view(1, -1, 1, 1, 1)
    assert torch.allclose(norm(x), weight * (x * share) + bias + x, atol=1e-12)
    assert torch.equal(GlobalResponseNorm(5)(x.float()), x.float())


def test_global_response_norm_survives_half_precision() -> None:
    x = torch.full((1, 4, 8, 8, 8), 60.0, dtype=torch.float16)  # the sum of squares is beyond float16
    norm = GlobalResponseNorm(4)
    torch.nn.init.ones_(norm.weight)
    assert norm(x).isfinite().all()
    # A network that is in half precision itself stays in it.
    assert norm.half()(x).dtype == torch.float16
    assert (
        NeurINO(size="atto", grn=True).bfloat16().eval()(torch.zeros(1, 1, 16, 16, 16).bfloat16())[0].isfinite().all()
    )


def test_batch_norm_of_a_single_voxel_uses_the_running_statistics() -> None:
    norm = VoxelBatchNorm(3).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.randn(1, 3, 1, 1, 1)
    before = norm.running_mean.clone()
    assert torch.allclose(norm(x), (x - before.view(1, 3, 1, 1, 1)) / (1 + 1e-5) ** 0.5)
    assert torch.equal(norm.running_mean, before)


def test_patch_norm_treats_patches_and_channels_alone() -> None:
    x = torch.randn(2, 3, 4, 4, 4)
    y = PatchNorm(3)(x)
    assert torch.allclose(y.mean((2, 3, 4)), torch.zeros(2, 3), atol=1e-5)
    assert torch.equal(PatchNorm(3).train()(torch.ones(1, 3, 1, 1, 1)), torch.zeros(1, 3, 1, 1, 1))


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (2, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("grn", [False, True])
def test_up_block_is_two_transposed_convolutions(stride: tuple[int, int, int], grn: bool) -> None:
    block = _filled(MedNeXtUpBlock(6, 4, stride, 2, "batch", grn)).eval()
    x = torch.randn(2, 6, 3, 4, 2, dtype=torch.float64)
    main = block.mix(F.conv_transpose3d(x, block.depthwise.weight, block.depthwise.bias, stride, 1, groups=6))
    weight = block.shortcut.weight.T[:, :, None, None, None]
    shortcut = F.conv_transpose3d(x, weight, block.shortcut.bias, stride)
    z, y, x_ = (s - 1 for s in stride)
    expected = F.pad(main, (x_, 0, y, 0, z, 0)) + F.pad(shortcut, (x_, 0, y, 0, z, 0))
    result = block(x)
    assert result.shape[2:] == tuple(n * s for n, s in zip(x.shape[2:], stride, strict=True))
    assert torch.allclose(result, expected, atol=1e-12)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
def test_down_block_is_two_convolutions(stride: tuple[int, int, int]) -> None:
    block = _filled(MedNeXtDownBlock(4, 6, stride, 2, "group", True)).eval()
    x = torch.randn(2, 4, 6, 4, 8, dtype=torch.float64)
    main = block.mix(F.conv3d(x, block.depthwise.weight, block.depthwise.bias, stride, 1, groups=4))
    weight = block.shortcut.weight[:, :, None, None, None]
    expected = main + F.conv3d(x, weight, block.shortcut.bias, stride)
    assert torch.allclose(block(x), expected, atol=1e-12)
