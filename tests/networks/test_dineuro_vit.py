"""The ViT inside DINeuro is timm's: positions, features, and what blocks of equal slices give."""

from __future__ import annotations

from functools import partial

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import Tensor, nn

from nnunet_neurino.networks import DINeuro
from nnunet_neurino.networks.token_positions import resize_positions, rotary_table, turn
from nnunet_neurino.transfer.vit import inflate_vit


def small_twin(vit: str, patch_size: int = 16) -> nn.Module:
    """timm's network of the architecture of ``atto`` or ``atto_v3``, with weights that are far from their start."""
    torch.manual_seed(11)
    common = {"patch_size": patch_size, "embed_dim": 64, "depth": 4, "num_heads": 2, "num_classes": 0}
    if vit == "atto":
        twin: nn.Module = TimmViT(dynamic_img_size=True, **common)
    else:
        twin = Eva(
            dynamic_img_size=True, qkv_bias=True, init_values=1e-5, rope_type="dinov3", rope_temperature=100,
            rope_rotate_half=True, use_rot_pos_emb=True, use_abs_pos_emb=False, num_reg_tokens=4, use_fc_norm=False,
            norm_layer=partial(nn.LayerNorm, eps=1e-5), **common,
        )  # fmt: skip
    for name, parameter in twin.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=1.0 if "norm" in name and "weight" in name else 0.3, std=0.1)
    return twin.eval()


def features_2d(twin: nn.Module, image: Tensor, layers: list[int]) -> list[Tensor]:
    """timm's features of a grey image (N, 1, y, x), each (N, C, y, x)."""
    return twin.forward_intermediates(
        image.expand(-1, 3, -1, -1), indices=layers, norm=True, intermediates_only=True, output_fmt="NCHW"
    )


def transferred(vit: str, twin: nn.Module, rule: str, **options) -> DINeuro:
    network = DINeuro(1, 2, vit=vit, transfer=rule, **options).eval()
    length = None if network.encoder.tubes is None else network.encoder.tubes.views[0].length
    state = inflate_vit(twin.state_dict(), rule, tube_length=length)
    missing, unexpected = network.encoder.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith("tubes.") for name in missing)
    return network


def test_positions_of_the_native_grid_are_the_very_same() -> None:
    positions = torch.randn(1, 1 + 14 * 14, 8)
    assert resize_positions(positions, (14, 14), (14, 14)) is positions


@pytest.mark.parametrize("n_prefix", [1, 5])
@pytest.mark.parametrize("grid", [(8, 8), (20, 9), (14, 28)])
def test_resized_positions_are_timms_with_the_prefix_first(grid: tuple[int, int], n_prefix: int) -> None:
    positions = torch.randn(1, n_prefix + 14 * 14, 8)
    found = resize_positions(positions, (14, 14), grid, n_prefix)
    assert torch.equal(found[:, :n_prefix], positions[:, :n_prefix])
    expected = resample_abs_pos_embed(positions, list(grid), [14, 14], num_prefix_tokens=n_prefix)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_resized_positions_keep_a_plane_and_its_orientation() -> None:
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    positions = torch.cat([torch.full((1, 1, 2), -9.0), torch.stack([rows, columns], -1).view(1, -1, 2)], dim=1)
    found = resize_positions(positions, (14, 14), (28, 14))[0, 1:].view(28, 14, 2)
    middle = found[8:-8, 4:-4]
    torch.testing.assert_close(middle[..., 0], ((torch.arange(8, 20) + 0.5) / 2 - 0.5)[:, None].expand(12, 6))
    torch.testing.assert_close(middle[..., 1], torch.arange(4.0, 10)[None].expand(12, 6))


@pytest.mark.parametrize("grid", [(14, 14), (6, 4)])
def test_rotary_positions_are_timms_and_leave_the_prefix(grid: tuple[int, int]) -> None:
    sines, cosines = rotary_table(grid, 32, n_prefix=5)
    expected = RotaryEmbeddingDinoV3(32, temperature=100.0).get_embed(list(grid))
    torch.testing.assert_close(torch.cat([sines, cosines], dim=-1)[5:], expected, atol=1e-6, rtol=0)
    heads = torch.randn(2, 3, 5 + grid[0] * grid[1], 32)
    turned = turn(heads, (sines, cosines))
    assert torch.equal(turned[:, :, :5], heads[:, :, :5])
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))


@pytest.mark.parametrize("rule", ["center", "average"])
@pytest.mark.parametrize("vit", ["atto", "atto_v3"])
@pytest.mark.parametrize("size", [(224, 224), (96, 64)])
def test_a_block_of_equal_slices_gives_timms_features(vit: str, rule: str, size: tuple[int, int]) -> None:
    twin = small_twin(vit)
    network = transferred(vit, twin, rule)
    image = torch.randn(2, 1, *size)
    with torch.no_grad():
        found = network.encoder(image[:, :, None].expand(-1, -1, 5, -1, -1))
        expected = features_2d(twin, image, [0, 1, 2, 3])
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == (2, 64, 5, size[0] // 16, size[1] // 16)
        for z in range(5):
            torch.testing.assert_close(ours[:, :, z], theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit_small_patch16_224.dino", "vit_small_patch16_dinov3"])
def test_the_real_architectures(name: str) -> None:
    torch.manual_seed(12)
    dynamic = {} if "dinov3" in name else {"dynamic_img_size": True}
    twin = timm.create_model(name, pretrained=False, num_classes=0, **dynamic).eval()
    vit = "small_v3" if "dinov3" in name else "small"
    network = transferred(vit, twin, "center")
    image = torch.randn(1, 1, 64, 96)
    with torch.no_grad():
        found = network.encoder(image[:, :, None])
        expected = features_2d(twin, image, [2, 5, 8, 11])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours[:, :, 0], theirs, atol=1e-5, rtol=1e-5)


def test_with_center_only_the_middle_slice_of_a_block_counts() -> None:
    twin = small_twin("atto")
    network = transferred("atto", twin, "center", tubes=False)
    volume = torch.randn(1, 1, 5, 64, 64)
    with torch.no_grad():
        expected = features_2d(twin, volume[:, :, 2], [3])[0]
        torch.testing.assert_close(network.encoder(volume)[-1][:, :, 2], expected, atol=1e-5, rtol=1e-5)


def test_with_average_a_block_is_seen_as_its_mean() -> None:
    twin = small_twin("atto")
    network = transferred("atto", twin, "average", tubes=False)
    volume = torch.randn(1, 1, 7, 64, 64)
    with torch.no_grad():
        found = network.encoder(volume)[-1]
        for z, block in {3: [1, 2, 3, 4, 5], 0: [0, 0, 0, 1, 2], 6: [4, 5, 6, 6, 6]}.items():
            expected = features_2d(twin, volume[:, :, block].mean(2), [3])[0]
            torch.testing.assert_close(found[:, :, z], expected, atol=1e-5, rtol=1e-5)


def test_a_closed_gate_is_the_network_without_tubes() -> None:
    torch.manual_seed(13)
    twin = small_twin("atto")
    with_tubes, without = (transferred("atto", twin, "center", tubes=tubes) for tubes in (True, False))
    without.decoder.load_state_dict(with_tubes.decoder.state_dict())
    image = torch.randn(1, 1, 6, 48, 64)
    with torch.no_grad():
        for ours, theirs in zip(with_tubes(image), without(image), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_straight_tubes_carry_the_flattened_kernel() -> None:
    twin = small_twin("atto")
    network = transferred("atto", twin, "center")
    grey = twin.patch_embed.proj.weight.sum(1)
    for view in network.encoder.tubes.views:
        torch.testing.assert_close(view.weight[:, 0], grey.flatten(1))
        assert torch.equal(view.bias, twin.patch_embed.proj.bias)
