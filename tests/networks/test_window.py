"""The window network: frozen encoder as in 2D, decoding, and what it does with odd volumes."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import DINOWindow
from nnunet_neurino.networks.slice_encoder import DEVIATION, MEAN, SliceEncoder, brightness, brightness_range
from nnunet_neurino.networks.vit import ViTSize
from nnunet_neurino.networks.window_decoder import WindowArm
from nnunet_neurino.transfer.vit import fill_slice_encoder, load_vit_weights

WINDOW = (4, 16, 16)


def network(**changes) -> DINOWindow:
    torch.manual_seed(0)
    return DINOWindow(**{"vit": "atto_v3", "window": WINDOW} | changes)


@pytest.fixture(scope="module")
def dinov3(tmp_path_factory):
    """timm's DINOv3 ViT-S/16 with random weights, and a file of them."""
    from safetensors.torch import save_file

    torch.manual_seed(1)
    model = timm.create_model("vit_small_patch16_dinov3", pretrained=False, num_classes=0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.03)
    path = tmp_path_factory.mktemp("vit") / "small_v3.safetensors"
    save_file(model.state_dict(), path)
    return model, path


def test_the_encoder_is_the_2d_network_on_each_slice(dinov3) -> None:
    model, path = dinov3
    ours = network(vit="small_v3", magnify=2, layers=[2, 5, 8, 11])
    weights = load_vit_weights(path)
    assert weights is not None
    fill_slice_encoder(ours, weights)
    slices = torch.rand(3, 32, 48)
    rgb = torch.nn.functional.interpolate(slices[:, None], scale_factor=2, mode="bilinear").expand(-1, 3, -1, -1)
    rgb = (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    with torch.no_grad():
        theirs = model.forward_intermediates(rgb, indices=[2, 5, 8, 11], norm=True, intermediates_only=True)
    torch.testing.assert_close(ours.encoder(slices), torch.cat(theirs, 1), rtol=1e-4, atol=1e-4)


def test_many_slices_are_encoded_in_portions_with_the_same_outcome(monkeypatch) -> None:
    encoder = network().encoder
    slices = torch.rand(7, 16, 24)
    whole = encoder(slices)
    monkeypatch.setattr("nnunet_neurino.networks.slice_encoder._TOKENS_AT_ONCE", 12)
    torch.testing.assert_close(encoder(slices), whole, rtol=1e-5, atol=1e-6)


def test_the_encoder_stays_frozen_and_in_evaluation_mode() -> None:
    ours = network().train()
    assert not any(module.training for module in ours.encoder.modules())
    ours(torch.rand(1, 1, 4, 16, 16)).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in ours.encoder.parameters())
    assert all(p.grad is not None for p in ours.decoder.parameters())


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 7, 5), (4, 16, 16), (9, 20, 33), (8, 32, 32)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_volume_and_several_channels(shape, channels) -> None:
    ours = network(in_channels=channels, num_classes=3, dense_head=True)
    image = torch.rand(2, channels, *shape)
    assert tuple(ours.train()(image).shape) == (2, 3, *shape)
    with torch.no_grad():
        assert tuple(ours.eval()(image).shape) == (2, 3, *shape)


def test_one_window_sees_every_channel() -> None:
    ours = network(in_channels=2).eval()
    image = torch.rand(1, 2, 4, 16, 16)
    for channel in range(2):
        other = image.clone()
        other[:, channel] = other[:, channel].flip(-1)
        assert not torch.allclose(ours(image), ours(other))


def test_windows_without_overlap_are_decoded_each_by_itself() -> None:
    ours = network(overlap=0.0).eval()
    with torch.no_grad():
        ours.decoder.depth_embedding.local.normal_()
    image = torch.rand(1, 1, 8, 32, 16) + 0.1
    whole = ours(image)
    windows = ours.windows(image)
    for number in range(len(windows.grid)):
        alone = ours.decoder(windows.tokens(number), windows.grid, number)
        torch.testing.assert_close(windows.grid.cut(whole, number), alone)


def test_overlap_softens_the_seams_in_evaluation_only() -> None:
    image = torch.rand(1, 1, 4, 16, 64) + 0.1

    def seam(overlap: float, training: bool) -> float:
        ours = network(overlap=overlap, dropout=0.0).train(training)
        with torch.no_grad():
            steps = ours(image).diff(dim=-1).abs().mean((0, 1, 2, 3))
        return float(steps[15::16].mean() / steps.mean())

    assert seam(0.5, False) < 0.8 * seam(0.0, False)
    assert seam(0.5, True) == pytest.approx(seam(0.0, True))


def test_depth_is_told_apart_once_it_is_learned() -> None:
    ours = network().eval()
    image = torch.rand(1, 1, 1, 16, 16).expand(-1, -1, 8, -1, -1) + 0.1
    with torch.no_grad():
        ours.decoder.depth_embedding.local.copy_(torch.randn_like(ours.decoder.depth_embedding.local))
        within = ours(image)[0, :, :4]
        assert (within[:, 0] - within[:, 3]).abs().max() > 1e-3
        ours.decoder.depth_embedding.local.zero_()
        ours.overlap = 0.0
        same = ours(image)
        torch.testing.assert_close(same[:, :, :4], same[:, :, 4:])
        ours.decoder.depth_embedding.across.fill_(0.5)
        other = ours(image)
        assert (other[:, :, :4] - other[:, :, 4:]).abs().max() > 1e-3


def test_arms_for_each_position() -> None:
    ours = network(arms=(2, 1, 2))
    assert len(ours.decoder.arms) == 4
    assert ours.overlap == 0.0
    assert tuple(ours(torch.rand(1, 1, 8, 16, 32)).shape) == (1, 2, 8, 16, 32)
    with pytest.raises(NeurinoError, match="arm for each of"):
        ours(torch.rand(1, 1, 8, 16, 48))


def test_the_dense_head_starts_as_nothing() -> None:
    plain, headed = network().eval(), network(dense_head=True).eval()
    headed.load_state_dict(plain.state_dict(), strict=False)
    image = torch.rand(1, 1, 8, 16, 32)
    assert torch.equal(plain(image), headed(image))


@pytest.mark.parametrize("shape", [(1, 5, 2, 4, 6), (1, 5, 7, 4, 6), (1, 5, 8, 3, 3), (1, 5, 1, 4, 4), (2, 5, 7, 4, 4)])
def test_a_convolution_in_halves_is_the_plain_one(shape) -> None:
    conv = WindowArm(3, 2, 8, 16).double().stages[0][0]
    assert isinstance(conv, torch.nn.Conv3d)
    volume = torch.rand(shape[0], conv.in_channels, *shape[2:], dtype=torch.float64, requires_grad=True)
    found = conv(volume)
    wanted = torch.nn.functional.conv3d(volume, conv.weight, padding=1)
    torch.testing.assert_close(found, wanted)
    weights = torch.rand_like(found)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), (volume, conv.weight)),
        torch.autograd.grad((wanted * weights).sum(), (volume, conv.weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_enlarging_logits_or_features_is_the_same() -> None:
    # Why the arm may do the cheaper of the two.
    arm = WindowArm(8, 2, 8, 16, dropout=0.0).double()
    tokens = torch.rand(1, 8, 2, 3, 3, dtype=torch.float64)
    features = arm.reduce(tokens)
    for stage in arm.stages:
        features = torch.nn.functional.interpolate(
            stage(features), scale_factor=(1, 2, 2), mode="trilinear", align_corners=False
        )
    torch.testing.assert_close(arm(tokens), arm.seg_layers[0](features), rtol=1e-10, atol=1e-12)


def test_brightness_is_that_of_percentiles_without_zeros() -> None:
    values = np.random.default_rng(0).normal(3, 2, (2, 2, 9, 20, 30))
    volume = torch.zeros(2, 2, 9, 40, 30, dtype=torch.float64)
    volume[:, :, :, :20] = torch.from_numpy(values)
    found = brightness(volume)[:, :, :, :20].numpy()
    for n in range(2):
        for c in range(2):
            low, high = np.percentile(values[n, c], [0.5, 99.5], method="nearest")
            np.testing.assert_allclose(found[n, c], np.clip((values[n, c] - low) / (high - low), 0, 1), atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 16, 16), (8, 32, 16), (3, 24, 60), (64, 8, 8), (4096, 1, 1)])
def test_brightness_of_a_large_volume_is_that_of_voxels_everywhere_in_it(shape, monkeypatch) -> None:
    monkeypatch.setattr("nnunet_neurino.networks.slice_encoder._SAMPLE", 256)
    place = torch.stack(torch.meshgrid(*(torch.linspace(1, 2, n) for n in shape), indexing="ij"))  # grows along an axis
    low, high = brightness_range(place[None])
    varied = torch.tensor([n > 1 for n in shape])
    assert bool((low.flatten()[varied] < 1.2).all())
    assert bool((high.flatten()[varied] > 1.8).all())


@pytest.mark.parametrize("value", [0.0, 5.0, float("nan")])
def test_brightness_of_an_even_volume_is_finite_or_what_was_broken_before(value) -> None:
    found = brightness(torch.full((1, 1, 2, 4, 4), value))
    assert bool(found.isfinite().all()) == np.isfinite(value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"window": (4, 20, 16)}, "multiples of 8"),
        ({"window": (4, 16)}, "expected voxels along z, y and x"),
        ({"magnify": 3}, "magnify 3"),
        ({"vit": "huge"}, "vit 'huge'"),
        ({"overlap": 1.0}, "below 1"),
        ({"layers": [0, 1]}, "end with 3"),
        ({"in_channels": 1, "input_channels": 2}, "contradict"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(changes, line) -> None:
    with pytest.raises(NeurinoError, match=line) as error:
        network(**changes)
    assert "\n" not in str(error.value)


def test_an_image_of_other_channels_is_refused() -> None:
    with pytest.raises(NeurinoError, match="an image of 3 channels"):
        network()(torch.rand(1, 3, 4, 16, 16))


def test_weights_of_another_vit_are_refused_and_nothing_is_changed(dinov3) -> None:
    _, path = dinov3
    ours = network()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    weights = load_vit_weights(path)
    assert weights is not None
    with pytest.raises(NeurinoError, match="ViT small_v3, which the network is not"):
        fill_slice_encoder(ours, weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_the_encoder_is_small_in_code_but_whole(dinov3) -> None:
    model, _ = dinov3
    ours = SliceEncoder(ViTSize(384, 12, 6, None, 4, 0.1, 1e-5), [11])
    extra = sum(block.attn.qkv.bias.numel() for block in ours.blocks)  # DINOv3 has none; ours are zeros
    assert sum(p.numel() for p in ours.parameters()) - extra == sum(p.numel() for p in model.parameters())
