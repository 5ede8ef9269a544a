"""Published checkpoints -> our networks, with the same logits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from published_fixture import filled, image, published_entries

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
