"""Where a training looks for 2D weights, what it says and what it records."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import NeurINO
from nnunet_neurino.trainers import pretraining
from nnunet_neurino.trainers.families.neurino import NeurINO as Family
from nnunet_neurino.trainers.families.neurino import NeurINOSettings
from nnunet_neurino.trainers.pretraining import VARIABLE, find_source, load_into
from nnunet_neurino.transfer import hub
from nnunet_neurino.transfer.weights import find_file

FAMILY = Family()
TINY = NeurINOSettings()


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(hub, "cached", lambda name: None)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model("convnext_tiny", num_classes=0).state_dict(), path)
    return path


def test_scratch_never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere.safetensors")
    monkeypatch.setattr(hub, "cached", lambda name: pytest.fail("looked into the cache"))
    assert find_source(FAMILY, replace(TINY, pretrained=False)) == pretraining.Source(None, "")


def test_without_weights_one_notice_says_what_to_do() -> None:
    source = find_source(FAMILY, TINY)
    assert source.location is None
    assert "TRAINED FROM SCRATCH" in source.notice
    for remedy in (VARIABLE, "convnext_tiny.dinov3_lvd1689m", "licence", "neurino weights", "_scratch"):
        assert remedy in source.notice
    assert "\n\n" not in source.notice, "one paragraph"


def test_metas_own_page_in_the_cache_will_do(monkeypatch: pytest.MonkeyPatch, weights_file: Path) -> None:
    meta = "facebook/dinov3-convnext-tiny-pretrain-lvd1689m"
    monkeypatch.setattr(hub, "cached", lambda name: weights_file if name == meta else None)
    assert find_source(FAMILY, TINY).location == str(weights_file)
    assert find_file("tiny") == weights_file


def test_the_variable_comes_before_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(hub, "cached", lambda name: asked.append(name) or tmp_path / "model.safetensors")
    assert find_source(FAMILY, replace(TINY, size="small")).location == str(tmp_path / "model.safetensors")
    assert asked == ["convnext_small.dinov3_lvd1689m"]
    monkeypatch.setenv(VARIABLE, "/mine.pth")
    assert find_source(FAMILY, TINY).location == "/mine.pth"
    monkeypatch.setenv(VARIABLE, "none")
    assert find_source(FAMILY, TINY).location is None
    assert len(asked) == 1


def test_a_frozen_encoder_needs_weights() -> None:
    with pytest.raises(NeurinoError, match=f"freezes its encoder.*{VARIABLE}"):
        find_source(FAMILY, replace(TINY, frozen_epochs=-1))


def test_what_is_named_and_missing_is_an_error() -> None:
    with pytest.raises(NeurinoError, match=r"/nowhere\.safetensors"):
        load_into(NeurINO(size="atto"), "/nowhere.safetensors", FAMILY, TINY)


def test_weights_arrive_and_are_recorded(weights_file: Path) -> None:
    network = NeurINO(size="tiny")
    kept = {id(p) for p in network.parameters()}
    record = load_into(network, str(weights_file), FAMILY, replace(TINY, inflation="center"))
    assert {id(p) for p in network.parameters()} == kept, "an optimiser made before still holds them"
    two_d = timm.create_model("convnext_tiny", num_classes=0)
    from safetensors.torch import load_file

    two_d.load_state_dict(load_file(weights_file))
    middle = network.encoder.stages[2].blocks[4].conv_dw.weight[:, :, 1]
    assert torch.equal(middle, two_d.stages[2].blocks[4].conv_dw.weight)
    assert record["sha256"] == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert (record["size"], record["inflation"], record["rgb"]) == ("tiny", "center", "sum")
    assert str(weights_file.parent) not in str(record), "no path of this machine in a model that is shared"


def test_weights_of_another_size_are_refused_whole(weights_file: Path) -> None:
    network = NeurINO(size="atto")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(NeurinoError, match="tiny"):
        load_into(network, str(weights_file), FAMILY, TINY)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
