"""Inflated encoders against timm's own 2D ConvNeXt with random weights, in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from twin import SMALL, flat, flat_stages, flat_tiny, inflated

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import SIZES, ConvNeXtSize, EncoderGeometry, NeurINO
from nnunet_neurino.transfer import RULES, default_kernel_depth, inflate, inflate_kernel
from nnunet_neurino.transfer.flat import CONVNEXT

ISOTROPIC = EncoderGeometry()
# z waits: not pooled by the stem and the first step, as nnU-Net plans for slices three times as far apart as pixels
COARSE_Z = EncoderGeometry(((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2)))
ONE_STEP = EncoderGeometry(((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)), kernel_depths=(1, 3, 3, 5))
STEM_4 = EncoderGeometry(((4, 4, 4), (2, 2, 2), (2, 2, 2), (2, 2, 2)))
STEM_4_COARSE_Z = EncoderGeometry(((2, 4, 4), (2, 2, 2), (2, 2, 2), (2, 2, 2)))
GEOMETRIES = {
    "isotropic": ISOTROPIC,
    "coarse_z": COARSE_Z,
    "one_step": ONE_STEP,
    "stem_4": STEM_4,
    "stem_4_coarse_z": STEM_4_COARSE_Z,
}


def _stem_stride(geometry: EncoderGeometry) -> int:
    return max(geometry.strides[0])


def _depth_stride(geometry: EncoderGeometry, stage: int) -> int:
    return math.prod(stride[geometry.depth_axis] for stride in geometry.strides[: stage + 1])


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-9 * max(1.0, b.abs().max()))


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("rule", ["center", "center_sym"])
def test_identical_slices_give_what_one_slice_gives(rule: str, name: str) -> None:
    geometry = GEOMETRIES[name]
    network = flat(stem_stride=_stem_stride(geometry))
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    volume = image[:, :, None].expand(-1, -1, 32, -1, -1)
    expected = flat_stages(network, image)
    for ours, theirs in zip(inflated(network, rule, geometry)(volume), expected, strict=True):
        assert _close(ours, theirs[:, :, None].expand_as(ours))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_identical_slices_average_away_from_the_ends(name: str) -> None:
    geometry = GEOMETRIES[name]
    network = flat(stem_stride=_stem_stride(geometry))
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    volume = image[:, :, None].expand(-1, -1, 288, -1, -1)
    expected = flat_stages(network, image)
    for ours, theirs in zip(inflated(network, "average", geometry)(volume), expected, strict=True):
        assert _close(ours[:, :, ours.shape[2] // 2], theirs)


@pytest.mark.parametrize("depth_axis", [1, 2])
def test_any_axis_can_be_the_depth(depth_axis: int) -> None:
    network = flat()
    geometry = EncoderGeometry(depth_axis=depth_axis)
    image = torch.randn(1, 3, 16, 32, dtype=torch.float64)
    volume = image.unsqueeze(2 + depth_axis).expand(*[-1] * (2 + depth_axis), 16, *[-1] * (2 - depth_axis))
    for ours, theirs in zip(inflated(network, "center", geometry)(volume), flat_stages(network, image), strict=True):
        assert _close(ours, theirs.unsqueeze(2 + depth_axis).expand_as(ours))


@pytest.mark.parametrize("name", ["isotropic", "coarse_z", "one_step"])
def test_center_takes_each_slice_through_the_2d_network(name: str) -> None:
    """Any volume: slice j of stages 1 to 4 is what the 2D network makes of slice 2j+1, 4j+3, 8j+7, 16j+15."""
    geometry = GEOMETRIES[name]
    network = flat()
    volume = torch.randn(1, 3, 32, 16, 16, dtype=torch.float64)
    by_slice = flat_stages(network, volume[0].transpose(0, 1))
    for stage, (ours, theirs) in enumerate(zip(inflated(network, "center", geometry)(volume), by_slice, strict=True)):
        step = _depth_stride(geometry, stage)
        if name == "isotropic":
            assert step == 2 ** (stage + 1)
        assert _close(ours[0].transpose(0, 1), theirs[step - 1 :: step])


@pytest.mark.parametrize("rule", ["center", "average", "center_sym"])
def test_tiny_equals_timms_tiny(rule: str) -> None:
    """The real thing, through the public function: one grey channel against RGB of the same grey."""
    network = flat_tiny()
    encoder = NeurINO().encoder.double().eval()
    encoder.load_state_dict(inflate(network.state_dict(), rule))
    grey = torch.randn(1, 1, 1, 16, 16, dtype=torch.float64)
    depth = {"average": 48}.get(rule, 16)
    expected = flat_stages(network, grey[:, :, 0].expand(-1, 3, -1, -1))
    with torch.no_grad():
        stages = encoder(grey.expand(-1, -1, depth, -1, -1))
    # `average` blurs by more slices than a small volume has: the first stage tells (16 slices, methods 1.3).
    for ours, theirs in list(zip(stages, expected, strict=True))[: 1 if rule == "average" else 4]:
        assert _close(ours[:, :, ours.shape[2] // 2], theirs)


def _slices_seen(
    rule: str, geometry: EncoderGeometry, depths: tuple[int, int, int, int], slices: int
) -> list[set[int]]:
    """For each stage, the input slices on which the middle output slice depends."""
    size = ConvNeXtSize(depths, (2, 3, 4, 5))
    encoder = inflated(flat(size), rule, geometry, size)
    volume = torch.randn(1, 3, slices, 16, 16, dtype=torch.float64, requires_grad=True)
    seen = []
    for output in encoder(volume):
        (gradient,) = torch.autograd.grad(output[:, :, output.shape[2] // 2].square().sum(), volume, retain_graph=True)
        seen.append(set(gradient[0].abs().amax((0, 2, 3)).nonzero().flatten().tolist()))
    return seen


def test_center_sees_one_slice() -> None:
    assert [len(seen) for seen in _slices_seen("center", ISOTROPIC, (1, 1, 1, 1), 32)] == [1, 1, 1, 1]


def test_center_sym_loses_no_slice_and_stays_in_register() -> None:
    for stage, seen in enumerate(_slices_seen("center_sym", ISOTROPIC, (1, 1, 1, 1), 64)):
        step = 2 ** (stage + 1)
        middle = 64 // step // 2
        # Exactly the slices that lie inside the output voxel, all of them.
        assert seen == set(range(middle * step, (middle + 1) * step))


def test_average_sees_as_many_slices_as_known() -> None:
    """The counts of Tiny's depths, counted by hand: which slices a voxel of each stage sees."""
    seen = _slices_seen("average", ISOTROPIC, (3, 3, 9, 3), 640)
    assert [len(slices) for slices in seen] == [16, 42, 190, 294]


def test_triplane_prefers_no_axis() -> None:
    geometry = EncoderGeometry(kernel_depths=(7, 7, 7, 7))
    encoder = inflated(flat(), "triplane", geometry)
    volume = torch.randn(1, 3, 32, 16, 16, dtype=torch.float64)
    turn = (0, 1, 3, 4, 2)
    for straight, turned in zip(encoder(volume), encoder(volume.permute(turn)), strict=True):
        assert _close(turned, straight.permute(turn))


def test_triplane_is_the_mean_of_three_turned_kernels() -> None:
    kernel = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    x = torch.randn(1, 3, 8, 8, 8, dtype=torch.float64)

    def apply(volume: Tensor, rule: str) -> Tensor:
        return torch.nn.functional.conv3d(volume, inflate_kernel(kernel, (4, 4, 4), rule), stride=2, padding=1)

    turns = [((0, 1, 2, 3, 4), (0, 1, 2, 3, 4)), ((0, 1, 3, 4, 2), (0, 1, 4, 2, 3)), ((0, 1, 4, 2, 3), (0, 1, 3, 4, 2))]
    expected = sum(apply(x.permute(turn), "center_sym").permute(back) for turn, back in turns) / 3
    assert _close(apply(x, "triplane"), expected)


@pytest.mark.parametrize("rule", ["center", "average", "center_sym", "triplane"])
@pytest.mark.parametrize("taps", [1, 2, 3, 4, 7])
def test_kernels_keep_their_sum(rule: str, taps: int) -> None:
    kernel = torch.randn(2, 1, taps, taps, dtype=torch.float64)
    assert _close(inflate_kernel(kernel, (taps,) * 3, rule).sum((2, 3, 4)), kernel.sum((2, 3)))


def test_an_in_plane_axis_that_is_not_halved_adds_its_taps() -> None:
    kernel = torch.randn(2, 1, 2, 2, dtype=torch.float64)
    assert torch.equal(inflate_kernel(kernel, (1, 1, 2), "center")[:, :, 0], kernel.sum(2, keepdim=True))


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize(("rgb", "factor"), [("sum", 1.0), ("mean", 1 / 3)])
def test_equal_channels_count_as_grey(channels: int, rgb: str, factor: float) -> None:
    network = flat()
    grey = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    three = inflated(network, "average", ISOTROPIC).stem[0]
    any_number = inflated(network, "average", ISOTROPIC, in_channels=channels, rgb=rgb).stem[0]
    bias = three.bias.view(1, -1, 1, 1, 1)
    expected = factor * (three(grey.expand(-1, 3, -1, -1, -1)) - bias) + bias
    assert _close(any_number(grey.expand(-1, channels, -1, -1, -1)), expected)


@pytest.mark.parametrize("rgb", ["sum", "mean", "repeat"])
def test_three_channels_stay_as_they_are(rgb: str) -> None:
    network = flat()
    image = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    volume = image[:, :, None].expand(-1, -1, 16, -1, -1)
    encoder = inflated(network, "center", ISOTROPIC, in_channels=3, rgb=rgb)
    assert _close(encoder(volume)[0][:, :, 0], flat_stages(network, image)[0])


def test_repeated_channels_take_turns() -> None:
    weight = flat().state_dict()["stem.0.weight"]
    stem = inflated(flat(), "center", ISOTROPIC, in_channels=4, rgb="repeat").stem[0].weight
    assert _close(stem[:, 3, 2], weight[:, 0] * 3 / 4)
    assert _close(stem[:, 1, 2], weight[:, 1] * 3 / 4)


def test_a_whole_network_takes_inflated_weights_in_any_plan() -> None:
    state = flat(SIZES["tiny"]).float().state_dict()
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    for rule in ("average", "center_sym"):
        network = NeurINO(2, 3, strides=strides)
        network.encoder.load_state_dict(inflate(state, rule, in_channels=2, strides=strides))
    depth = default_kernel_depth("triplane")
    network = NeurINO(stem_stride=4, kernel_depth=depth)
    network.encoder.load_state_dict(inflate(state, "triplane", stem_stride=4, kernel_depth=depth))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("strides", [None, [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]])
def test_every_rule_fits_the_network_of_the_same_arguments(rule: str, strides: list[list[int]] | None) -> None:
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in NeurINO(strides=strides).encoder.state_dict().items()}
    state = {name: torch.zeros(tensor.shape) for name, tensor in CONVNEXT.expected(SIZES["tiny"]).items()}
    inflated_state = inflate(state, rule, strides=strides)
    assert {name: tensor.shape for name, tensor in inflated_state.items()} == expected


def test_triplane_folds_what_a_flat_kernel_cannot_hold() -> None:
    kernel = torch.randn(2, 1, 7, 7, dtype=torch.float64)
    cube, flat_kernel = (inflate_kernel(kernel, (taps, 7, 7), "triplane") for taps in (7, 3))
    assert _close(flat_kernel[:, :, 1], cube[:, :, 3])
    assert _close(flat_kernel[:, :, 0], cube[:, :, :3].sum(2))
    assert _close(flat_kernel[:, :, 2], cube[:, :, 4:].sum(2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"rule": "middle"},
        {"rgb": "red"},
        {"kernel_depth": 4},
        {"depth_axis": 5},
    ],
)
def test_impossible_wishes_are_named(arguments: dict) -> None:
    with pytest.raises(NeurinoError):
        inflate(flat(SMALL).state_dict(), **arguments)
