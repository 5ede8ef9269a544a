"""DINOWindow's trainers: names, settings, plans, weights, memory."""

from __future__ import annotations

import json
import pydoc
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from nnunet_plans import DATASET_JSON, plans
from safetensors.torch import save_file

from nnunet_neurino import trainers
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import DINOWindow
from nnunet_neurino.trainers.families.dinowindow import DEMO, PAPER, WindowSettings
from nnunet_neurino.trainers.families.dinowindow import DINOWindow as Family
from nnunet_neurino.trainers.optimisation import parameter_groups
from nnunet_neurino.trainers.plan_adaptation import adapt_plans
from nnunet_neurino.trainers.pretraining import VARIABLE, find_source, load_into

FAMILY = Family()
BASE = FAMILY.base


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("", {}),
        ("_B", {"size": "base_v3"}),
        ("_single", {"single": True}),
        ("_paper", PAPER),
        ("_demo", DEMO),
        ("_windowloss", {"loss_over": "window"}),
        ("_B_paper_single_last_TASL_2epochs", {**PAPER, "size": "base_v3", "single": True, "layers": "last",
                                               "tasl": "localised", "epochs": 2}),
    ],
)  # fmt: skip
def test_a_name_says_what_differs_from_the_defaults(name: str, changes: dict) -> None:
    trainer = trainers.find(BASE + name)
    assert trainer.__name__ == BASE + name
    assert trainer.defaults == replace(WindowSettings(), **changes)
    assert trainers.find(BASE + name) is trainer


@pytest.mark.parametrize("name", ["DINOWindow_", "DINOWindow_S", "DINOWindow_single_B", "DINOWindow2"])
def test_other_names_are_unknown(name: str) -> None:
    assert trainers.find(f"nnUNetTrainer{name}") is None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"frozen_epochs": 0}, "unknown setting 'frozen_epochs'"),
        ({"magnify": 3}, "choose one of 1, 2, 4"),
        ({"tokens": "some"}, "choose one of cached, computed, augmented"),
        ({"copies": 0}, "must be 1 or more"),
        ({"overlap": 1.0}, "below 1"),
        ({"window": [0, 8, 8]}, "from 1 on"),
        ({"window": [8, 8]}, "three numbers"),
        ({"loss_over": "window", "tasl": "localised"}, "exclude each other"),
        ({"size": "tiny"}, "choose one of small_v3, base_v3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict, line: str) -> None:
    with pytest.raises(NeurinoError, match=line):
        WindowSettings().replaced(changes)


def adapted(volume: tuple[float, ...], settings: WindowSettings, spacing=(1.0, 1.0, 1.0)) -> dict:
    contents = plans((64, 64, 64), spacing)
    contents["configurations"]["3d_fullres"]["median_image_size_in_voxels"] = list(volume)
    adapt_plans(contents, "3d_fullres", DATASET_JSON, FAMILY, settings)
    again = json.loads(json.dumps(contents))
    adapt_plans(again, "3d_fullres", DATASET_JSON, FAMILY, settings)
    assert again == json.loads(json.dumps(contents)), "planning twice gives the same plans"
    return contents["configurations"]["3d_fullres"]


@pytest.mark.parametrize(
    ("volume", "window", "counts"),
    [
        ((64.0, 192.0, 192.0), (32, 96, 96), (2, 2, 2)),
        ((65.0, 100.0, 97.0), (22, 56, 56), (3, 2, 2)),  # divided evenly, whole tokens of 8 voxels
        ((3.0, 50.0, 40.0), (3, 56, 40), (1, 1, 1)),  # three slices, smaller than a window
        ((20.0, 512.0, 300.0), (20, 88, 80), (1, 6, 4)),
    ],
)
def test_the_patch_is_the_whole_volume_in_windows(volume: tuple, window: tuple, counts: tuple) -> None:
    configuration = adapted(volume, WindowSettings())
    assert tuple(configuration["architecture"]["arch_kwargs"]["window"]) == window
    assert configuration["patch_size"] == [w * c for w, c in zip(window, counts, strict=True)]
    assert all(p >= v for p, v in zip(configuration["patch_size"], volume, strict=True))
    assert configuration["batch_size"] == 1
    assert configuration["architecture"]["network_class_name"] == "nnunet_neurino.networks.DINOWindow"
    with torch.device("meta"):
        network = pydoc.locate("nnunet_neurino.networks.DINOWindow")(
            input_channels=1, num_classes=2, **configuration["architecture"]["arch_kwargs"], deep_supervision=False
        )
    assert network.grid(configuration["patch_size"]).counts == counts


def test_one_window_is_the_whole_volume() -> None:
    configuration = adapted((65.0, 100.0, 97.0), replace(WindowSettings(), single=True))
    assert configuration["architecture"]["arch_kwargs"]["window"] == [65, 104, 104] == configuration["patch_size"]


def test_an_arm_for_each_window() -> None:
    configuration = adapted((64.0, 192.0, 96.0), replace(WindowSettings(), per_position=True))
    assert configuration["architecture"]["arch_kwargs"]["arms"] == [2, 2, 1]


def test_the_paper_has_an_arm_for_each_window() -> None:
    settings = trainers.find(f"{BASE}_paper").defaults
    arms = adapted((64.0, 256.0, 128.0), settings)["architecture"]["arch_kwargs"]["arms"]
    assert arms == [1, 2, 1]


@pytest.mark.parametrize("single", [False, True])
def test_less_memory_makes_a_smaller_part_of_the_volume(single: bool) -> None:
    sizes = []
    for gib in (256.0, 4.0, 1.5):
        settings = replace(WindowSettings(), memory=gib, single=single)
        configuration = adapted((512.0, 768.0, 768.0), settings)
        patch, window = configuration["patch_size"], configuration["architecture"]["arch_kwargs"]["window"]
        assert all(p % w == 0 for p, w in zip(patch, window, strict=True))
        sizes.append(patch)
    assert sizes[0] >= [512, 768, 768]
    assert sizes[0] > sizes[1] > sizes[2]
    given = replace(WindowSettings(), memory=1.0, patch_size=(64, 768, 768), single=single)
    assert adapted((512.0, 768.0, 768.0), given)["patch_size"] == [64, 768, 768], "a patch size given is kept"


def test_only_the_decoder_is_in_the_optimiser() -> None:
    network = DINOWindow(1, 2, "atto_v3", (4, 16, 16))
    groups = parameter_groups(network, 1e-3, 1e-2)
    held = {id(p) for group in groups for p in group["params"]}
    assert held == {id(p) for p in network.decoder.parameters()}
    assert {group["peak_lr"] for group in groups} == {1e-3}


def test_weights_are_needed_and_copied_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(NeurinoError, match="freezes its encoder, which needs 2D weights, and there are none") as error:
        find_source(FAMILY, WindowSettings())
    assert "vit_small_patch16_dinov3" in str(error.value)
    assert "random weights" in find_source(FAMILY, replace(WindowSettings(), **DEMO)).notice

    model = timm.create_model("vit_small_patch16_dinov3", pretrained=False, num_classes=0)
    save_file(model.state_dict(), tmp_path / "small_v3.safetensors")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "small_v3.safetensors"))
    source = find_source(FAMILY, WindowSettings())
    network = DINOWindow(1, 2, "small_v3", (4, 16, 16))
    record = load_into(network, str(source.location), FAMILY, WindowSettings())
    assert record["size"] == "small_v3"
    assert torch.equal(network.encoder.patch_embed.proj.weight, model.patch_embed.proj.weight)
    with pytest.raises(NeurinoError, match="which the network is not"):
        load_into(DINOWindow(1, 2, "base_v3", (4, 16, 16)), str(source.location), FAMILY, WindowSettings())
