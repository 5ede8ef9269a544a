"""Published checkpoints -> our networks, with the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from published_fixture import filled, image, published_entries
from published_reference import published_logits

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import NeurINO
from nnunet_neurino.transfer import describe_published, from_published


def _loaded(state: dict[str, torch.Tensor]) -> NeurINO:
    is_like = describe_published(state)
    network = NeurINO(
        is_like.in_channels,
        is_like.num_classes,
        is_like.size,
        is_like.stem_stride,
        grn=is_like.grn,
        deep_supervision=is_like.deep_supervision,
        norm=is_like.norm,
    )
    network.load_state_dict(from_published(state))
    return network.eval()


def test_logits_of_the_published_tiny_network(shared: Path) -> None:
    case = json.loads((shared / "parity" / "tiny_32.json").read_text())
    expected = np.load(shared / "parity" / "tiny_32_logits.npz")
    network = _loaded(filled(case["state_dict"]))
    with torch.no_grad():
        logits = network(image(case["input_shape"][-3:], case["image_seed"]))
    assert len(logits) == 5
    for head, ours in enumerate(logits):
        theirs = expected[f"head{head}"]
        assert ours.shape == theirs.shape
        assert np.abs(ours.numpy() - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_names_of_the_published_tiny_network(shared: Path) -> None:
    case = json.loads((shared / "parity" / "tiny_32.json").read_text())
    names = {(name, tuple(shape), dtype) for name, shape, dtype in case["state_dict"]}
    assert names == set(published_entries("tiny"))


CASES = {
    "tiny": {"size": "tiny"},
    "tiny, GRN, two channels, four classes": {"size": "tiny", "grn": True, "in_channels": 2, "num_classes": 4},
    "tiny, 4x stem": {"size": "tiny", "stem_stride": 4},
    "small, GRN, 4x stem": {"size": "small", "grn": True, "stem_stride": 4, "in_channels": 3},
    "base, GRN": {"size": "base", "grn": True},
    "tiny, one head": {"size": "tiny", "deep_supervision": False},
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_published_formulas(case: str) -> None:
    state = filled(published_entries(**CASES[case]))
    network = _loaded({f"module.{name}": tensor for name, tensor in state.items()})
    assert describe_published(state).size == CASES[case]["size"]
    size = (32, 64, 32) if "4x" in case else (16, 48, 32)
    patch = image(size, 3).expand(-1, CASES[case].get("in_channels", 1), -1, -1, -1)
    with torch.no_grad():
        expected = published_logits(state, patch)
        logits = network(patch)
    logits = logits if isinstance(logits, list) else [logits]
    assert len(logits) == len(expected) == (1 if "one head" in case else 5)
    for ours, theirs in zip(logits, expected, strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_and_transformers_5_do_not_matter(prefix: str) -> None:
    with torch.device("meta"):
        state = {name: torch.zeros(shape) for name, shape, _ in published_entries("tiny")}
    newer = {prefix + name.replace("encoder.", "encoder.model."): tensor for name, tensor in state.items()}
    assert from_published(newer).keys() == from_published(state).keys() == NeurINO().state_dict().keys()


def test_group_norms_are_recognised() -> None:
    state = {name: t for name, t in filled(published_entries("tiny")).items() if "running" not in name}
    state = {name: t for name, t in state.items() if not name.endswith(("num_batches_tracked", "_buf"))}
    assert describe_published(state).norm == "group"
    assert _loaded(state)(torch.randn(1, 1, 16, 16, 16))[0].isfinite().all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder.stages.0.downsample_layers.0.weight": None}, "missing"),
        ({"up_7.conv9.weight": torch.zeros(1)}, "up_7.conv9.weight"),
        ({"encoder.stages.2.layers.9.gamma": torch.zeros(384)}, "third stage"),
        # What the released code can be told, but its trainers never tell it.
        ({"bottleneck.0.conv1.weight": None}, "1 weights of NeurINO-Tiny are missing, .*bottleneck.0.depthwise.weight"),
        ({"dec_block_2.1.conv1.weight": torch.zeros(192, 1, 5, 5, 5)}, "'dec_block_2.1.conv1.weight' is .*5, 5, 5"),
        ({"encoder.stages.1.layers.0.layer_norm.running_mean": torch.zeros(192)}, "not a name of the published"),
        ({"out_2.conv_out.bias": torch.zeros(3)}, "'out_2.conv_out.bias' is"),
    ],
)
def test_other_networks_are_refused(change: dict, says: str) -> None:
    state = {name: torch.zeros(shape) for name, shape, _ in published_entries("tiny")} | change
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    with pytest.raises(NeurinoError, match=says):
        from_published(state)
