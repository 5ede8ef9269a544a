"""NeurINO: sizes as published, any patch, nnU-Net's contract."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import MedNeXt, NeurINO

ANISOTROPIC = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 1]]

# (network's arguments, published count); see `_never_used`
PUBLISHED = {"tiny": 39_212_555, "small": 61_524_491}


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _macs(network: nn.Module) -> float:
    image = torch.zeros(1, 1, 64, 64, 64)
    analysis = pytest.importorskip("fvcore.nn").FlopCountAnalysis(network.eval(), image)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        return analysis.total() / 1e9


@pytest.fixture(scope="module")
def tiny() -> NeurINO:
    torch.manual_seed(0)
    network = NeurINO()
    for name, parameter in network.named_parameters():
        if name.endswith(".gamma"):
            nn.init.constant_(parameter, 0.5)  # so that the encoder's blocks matter
    return network


@pytest.mark.parametrize("size", PUBLISHED)
def test_parameters_are_the_published_ones(size: str) -> None:
    never_used = 2 * 768 + 1  # weight and bias of a final norm, and a parameter that works around a bug
    with torch.device("meta"):
        assert _parameters(NeurINO(size=size, grn=True)) == PUBLISHED[size] - never_used
        assert _parameters(NeurINO(size=size).encoder) == {"tiny": 30_019_104, "small": 52_331_040}[size] - 2 * 768


@pytest.mark.parametrize(("size", "published"), [("tiny", 43.56), ("small", 54.97)])
def test_multiply_accumulates_are_the_published_ones(size: str, published: float) -> None:
    assert _macs(NeurINO(size=size)) == pytest.approx(published, rel=0.005)


def test_mednext_is_the_baseline_of_the_paper() -> None:
    network = MedNeXt()
    never_used = 1  # the parameter that works around a bug
    assert _parameters(network) == 61_971_147 - never_used
    assert _macs(network) == pytest.approx(61.547, rel=0.005)


@pytest.mark.parametrize("size", ["base", "large"])
def test_larger_sizes_keep_the_pattern(size: str) -> None:
    with torch.device("meta"):
        network = NeurINO(size=size)
        shapes = [tuple(logits.shape) for logits in network(torch.zeros(1, 1, 32, 32, 32))]
    assert shapes == [(1, 2, n, n, n) for n in (32, 16, 8, 4, 2)]


@pytest.mark.parametrize("stem_stride", [2, 4])
@pytest.mark.parametrize("strides", [None, ANISOTROPIC])
@pytest.mark.parametrize(
    ("patch", "channels", "classes"), [((16, 16, 16), 1, 2), ((8, 96, 96), 2, 3), ((17, 22, 31), 4, 5)]
)
def test_logits_have_nnunets_target_shapes(
    stem_stride: int, strides: list[list[int]] | None, patch: tuple[int, ...], channels: int, classes: int
) -> None:
    if stem_stride == 4 and strides is not None:
        strides = [*strides[:5], [2, 2, 2]]
    with torch.device("meta"):
        network = NeurINO(channels, classes, stem_stride=stem_stride, strides=strides)
        logits = network(torch.zeros(2, channels, *patch))
    rows = torch.tensor(network.levels.rows)
    scales = rows.cumprod(0)[:-1].tolist()  # nnU-Net's rule: the last row has no target
    assert len(logits) == len(scales) == 5
    for output, scale in zip(logits, scales, strict=True):
        assert output.shape == (2, classes, *(-(-n // s) for n, s in zip(patch, scale, strict=True)))


@pytest.mark.parametrize("patch", [(16, 16, 16), (9, 18, 21)])
def test_every_parameter_learns_from_the_smallest_batch(tiny: NeurINO, patch: tuple[int, ...]) -> None:
    network = copy.deepcopy(tiny).train()
    sum(logits.square().mean() for logits in network(torch.randn(1, 1, *patch))).backward()
    without = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)


def test_padding_is_zeros_at_the_far_ends(tiny: NeurINO) -> None:
    image = torch.randn(1, 1, 16, 30, 32)
    padded = torch.zeros(1, 1, 16, 32, 32)
    padded[:, :, :, :30] = image
    with torch.no_grad():
        short, full = tiny.eval()(image), tiny(padded)
    assert torch.equal(short[0], full[0][:, :, :, :30])


def test_switch_of_deep_supervision_as_nnunet_uses_it(tiny: NeurINO) -> None:
    network = copy.deepcopy(tiny).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        listed = network(image)
        network.decoder.deep_supervision = False
        single = network(image)
    assert torch.equal(single, listed[0])
    # Prediction builds the network with the switch off and loads the whole checkpoint, strictly.
    predicting = NeurINO(deep_supervision=False)
    predicting.load_state_dict(network.state_dict())
    fixed = [name for name, parameter in predicting.named_parameters() if not parameter.requires_grad]
    assert len(fixed) == 8
    assert all(name.startswith("decoder.seg_layers.") and ".seg_layers.0." not in name for name in fixed)


def test_nnunet_builds_it_from_plans() -> None:
    get_network = pytest.importorskip("nnunetv2.utilities.get_network_from_plans").get_network_from_plans
    arguments = json.loads(json.dumps({"size": "tiny", "strides": ANISOTROPIC[:5], "norm": "group"}))
    network = get_network("nnunet_neurino.networks.NeurINO", arguments, [], 2, 3, deep_supervision=True)
    assert not hasattr(network, "initialize")
    assert [tuple(row) for row in network.levels.rows] == [tuple(row) for row in ANISOTROPIC[:5]]
    assert len(network.eval()(torch.zeros(1, 2, 8, 32, 32))) == 4
    assert network.get_submodule(network.key_to_encoder) is network.encoder
    assert network.get_submodule(network.key_to_stem) is network.encoder.stem
    assert network.get_submodule(network.keys_to_in_proj[0]).weight.shape[1] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": "huge"},
        {"stem_stride": 3},
        {"norm": "none"},
        {"strides": [[1, 1, 1], [2, 2, 2]]},
        {"strides": [[2, 2, 2]] * 5},
        {"strides": [[1, 1, 1], *[[3, 3, 3]] * 4]},
        {"strides": "isotropic"},
        {"kernel_depth": 2},
        {"depth_axis": 3},
        {"in_channels": 3, "input_channels": 2},
    ],
)
def test_impossible_arguments_are_named(arguments: dict) -> None:
    with pytest.raises(NeurinoError):
        NeurINO(**arguments)


def test_activation_checkpointing_changes_nothing(tiny: NeurINO) -> None:
    image = torch.randn(2, 1, 16, 16, 16)
    gradients, statistics = [], []
    for checkpointing in (False, True):
        network = copy.deepcopy(tiny).train()
        network.encoder.checkpointing = network.decoder.checkpointing = checkpointing
        sum(logits.square().mean() for logits in network(image)).backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
        statistics.append({name: b for name, b in network.named_buffers() if "running" in name})
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(*gradients, strict=True))
    assert all(torch.allclose(statistics[0][name], statistics[1][name]) for name in statistics[0])


def test_compilers_see_one_graph() -> None:
    """nnU-Net compiles by default on CUDA; a graph break in the network would cost most of what that gains."""
    network = NeurINO(size="atto", checkpointing=True, grn=True).train()
    image = torch.randn(1, 1, 16, 16, 16)
    state = copy.deepcopy(network.state_dict())
    compiled = torch.compile(network, backend="eager", fullgraph=True)(image)
    network.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(compiled, network(image), strict=True))
