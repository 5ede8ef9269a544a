"""Checkpoints of earlier versions, whose encoders had names of our own, go on working."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn

from nnunet_neurino.networks import DINeuro, DINOWindow, MedNeXt, NeurINO
from nnunet_neurino.networks.old_names import with_current_names

NETWORKS = {
    "neurino": lambda: NeurINO(size="atto"),
    "dineuro": lambda: DINeuro(vit="atto"),
    "dineuro_v3": lambda: DINeuro(vit="atto_v3", tubes=False),
    "dino_window": lambda: DINOWindow(vit="atto_v3", window=(4, 16, 16)),
    "mednext": lambda: MedNeXt(size="S", width=8),
}


def as_before(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """A state dict of today as version 0.1 would have written it."""
    convnext = {"stem.0": "stem.conv", "stem.1": "stem.norm", "downsample.0": "downsample.norm",
                "downsample.1": "downsample.conv", "conv_dw": "depthwise", "mlp.fc1": "expand",
                "mlp.fc2": "project"}  # fmt: skip
    vit = {"attn.qkv": "qkv", "attn.proj": "proj", "mlp.fc1": "fc1", "mlp.fc2": "fc2", "gamma_1": "gamma1",
           "gamma_2": "gamma2", "patch_embed.proj": "patch_embed"}  # fmt: skip
    if isinstance(network, DINeuro):
        vit["patch_embed.proj"] = "embedding.conv"
    result = {}
    for name, tensor in state.items():
        if name.startswith("encoder.") and not isinstance(network, MedNeXt):
            bare = name.removeprefix("encoder.")
            for new, old in (convnext if isinstance(network, NeurINO) else vit).items():
                bare = re.sub(rf"(^|\.){re.escape(new)}(\.|$)", rf"\g<1>{old}\2", bare)
            inside = not isinstance(network, NeurINO) and not bare.startswith(("patch_embed", "embedding", "tubes"))
            name = f"encoder.{'vit.' if inside else ''}{bare}"
        result[name] = tensor
    return result


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dicts_of_earlier_versions_load_strictly(name: str) -> None:
    source, target = NETWORKS[name](), NETWORKS[name]()
    before = as_before(source.state_dict(), source)
    assert (before.keys() == source.state_dict().keys()) == (name == "mednext")
    target.load_state_dict(before)
    assert all(torch.equal(target.state_dict()[key], tensor) for key, tensor in source.state_dict().items())
    assert with_current_names(before).keys() == source.state_dict().keys()
    # Copies (nnU-Net makes some) and wrapped networks read them, too.
    nn.ModuleDict({"module": copy.deepcopy(target)}).load_state_dict({f"module.{k}": v for k, v in before.items()})


OLD = {
    "neurino": ("stem.conv.weight", "stages.3.downsample.norm.bias", "stages.2.blocks.5.depthwise.weight"),
    "dineuro": ("embedding.conv.weight", "vit.pos_embed", "vit.blocks.3.fc2.weight", "tubes.views.0.weight"),
    "dino_window": ("patch_embed.bias", "vit.reg_token", "vit.blocks.0.gamma1", "vit.norm.weight"),
    "mednext": ("levels.0.blocks.1.depthwise.weight",),
}


@pytest.mark.parametrize("name", OLD)
def test_old_names_as_they_were(name: str) -> None:
    network = NETWORKS[name]()
    assert {f"encoder.{old}" for old in OLD[name]} <= as_before(network.state_dict(), network).keys()


def test_what_is_of_no_version_is_still_refused() -> None:
    network = NeurINO(size="atto")
    with pytest.raises(RuntimeError, match=r"encoder\.stem\.dense\.weight"):
        network.load_state_dict(network.state_dict() | {"encoder.stem.dense.weight": torch.zeros(1)})
