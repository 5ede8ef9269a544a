"""DINeuro's trainers: names, settings, plans, learning rates, weights."""

from __future__ import annotations

import json
import math
import pydoc
from dataclasses import fields, replace
from pathlib import Path

import pytest
import timm
import torch
from nnunet_plans import DATASET_JSON, plans
from safetensors.torch import save_file

from nnunet_neurino import trainers
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks import DINeuro
from nnunet_neurino.trainers.checkpoints import resumed_settings
from nnunet_neurino.trainers.families import TransferRecipe
from nnunet_neurino.trainers.families.dineuro import DEMO, PAPER, DINeuroSettings
from nnunet_neurino.trainers.families.dineuro import DINeuro as Family
from nnunet_neurino.trainers.optimisation import parameter_groups
from nnunet_neurino.trainers.plan_adaptation import adapt_plans
from nnunet_neurino.trainers.pretraining import VARIABLE, find_source, load_into
from nnunet_neurino.transfer import hub

FAMILY = Family()
BASE = FAMILY.base


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("", {}),
        ("_B", {"size": "base"}),
        ("_v3", {"size": "small_v3"}),
        ("_average", {"inflation": "average"}),
        ("_notube", {"tubes": False}),
        ("_scratch", {"pretrained": False}),
        ("_paper", PAPER),
        ("_demo", DEMO),
        ("_1epoch", {"epochs": 1}),
        ("_TASL_100epochs", {"tasl": "localised", "epochs": 100}),
        ("_B_paper_average_notube_2epochs", {**PAPER, "inflation": "average", "tubes": False, "epochs": 2}),
    ],
)
def test_a_name_says_what_differs_from_the_defaults(name: str, changes: dict) -> None:
    trainer = trainers.find(BASE + name)
    assert trainer.__name__ == BASE + name
    assert trainer.defaults == replace(DINeuroSettings(), **changes)
    assert trainers.find(BASE + name) is trainer


@pytest.mark.parametrize("name", ["DINeuro_", "DINeuro_S", "DINeuro_notube_B", "DINeuro2", "DINeuro_stem4"])
def test_other_names_are_unknown(name: str) -> None:
    assert trainers.find(f"nnUNetTrainer{name}") is None


@pytest.mark.parametrize(
    ("patch", "spacing", "expected"),
    [
        ((128, 128, 128), (1.0, 1.0, 1.0), (48, 128, 128)),
        ((20, 64, 64), (1.0, 0.3, 0.3), (20, 64, 64)),
        ((5, 100, 90), (2.0, 0.3, 0.3), (5, 112, 96)),
        ((10, 40, 40), (1.0, 1.0, 1.0), (10, 48, 48)),
    ],
)
def test_plans_keep_thin_stacks_as_they_are(patch: tuple, spacing: tuple, expected: tuple) -> None:
    contents = plans(patch, spacing)
    settings = replace(DINeuroSettings(), memory=24.0)
    adapt_plans(contents, "3d_fullres", DATASET_JSON, FAMILY, settings)
    configuration = contents["configurations"]["3d_fullres"]
    assert tuple(configuration["patch_size"]) == expected
    architecture = configuration["architecture"]
    assert architecture["network_class_name"] == "nnunet_neurino.networks.DINeuro"
    kwargs = architecture["arch_kwargs"]
    # A tap has one length in micrometres along all axes.
    lengths = [step * s for step, s in zip(kwargs["tube_step"], spacing, strict=True)]
    assert lengths == pytest.approx([0.5 * min(spacing)] * 3, rel=1e-4)
    assert all(row[0] == 1 for row in kwargs["strides"]), "slices are never left out"

    again = json.loads(json.dumps(contents))
    adapt_plans(again, "3d_fullres", DATASET_JSON, FAMILY, settings)
    assert again == json.loads(json.dumps(contents)), "planning twice gives the same plans"

    with torch.device("meta"):
        network = pydoc.locate(architecture["network_class_name"])(input_channels=1, num_classes=2, **kwargs)
    # What nnU-Net makes targets of: the products of the rows, the last one left out.
    assert network.levels.n_heads == len(kwargs["strides"]) - 1
    assert all(n % s == 0 for n, s in zip(expected, network.levels.totals[-1], strict=True))


def test_less_memory_makes_a_smaller_patch() -> None:
    sizes = []
    for gib in (24.0, 8.0, 4.0):
        contents = plans((20, 512, 512), (1.0, 0.3, 0.3))
        adapt_plans(contents, "3d_fullres", DATASET_JSON, FAMILY, replace(DINeuroSettings(), memory=gib))
        patch = contents["configurations"]["3d_fullres"]["patch_size"]
        assert patch[1] % 16 == patch[2] % 16 == 0
        sizes.append(math.prod(patch))
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3


def test_the_papers_constants() -> None:
    settings = trainers.find(f"{BASE}_paper").defaults
    # TransSeg's recipe (arXiv 2302.04303) and the tubes of the paper (arXiv 2410.22078).
    assert (settings.size, settings.decoder, settings.decoder_width, settings.layers) == (
        "base", "upernet", 768, (3, 5, 7, 11),
    )  # fmt: skip
    assert (settings.lr, settings.weight_decay, settings.clip, settings.poly_power) == (3e-5, 0.05, 1.0, 1.0)
    assert settings.warmup_epochs * settings.iterations == 20
    assert settings.epochs * settings.iterations == 25_000
    assert settings.full_precision
    assert (settings.tube_length, settings.tube_controls, settings.block_depth) == (256, 256, 5)
    contents = plans((16, 96, 96))
    adapt_plans(contents, "3d_fullres", DATASET_JSON, FAMILY, settings)
    configuration = contents["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == [5, 100, 100]
    kwargs = configuration["architecture"]["arch_kwargs"]
    assert kwargs["tube_step"] == [1.0, 1.0, 1.0]
    with torch.device("meta"):
        network = DINeuro(1, 2, **kwargs)
        tokens = network.encoder(torch.zeros(1, 1, 5, 100, 100))
    assert tokens[0].shape[2:] == (5, 14, 14), "DINO's own grid"


def test_settings_from_the_command_line_and_mistakes() -> None:
    settings = DINeuroSettings().replaced({"tubes": False, "tube_step": None, "layers": [1, 3, 5, 11], "epochs": 3})
    assert settings == DINeuroSettings(tubes=False, tube_step=None, layers=(1, 3, 5, 11), epochs=3)
    for changes, message in [
        ({"size": "tiny"}, "size is 'tiny'.*small"),
        ({"inflation": "triplane"}, "triplane.*choose one of center, average"),
        ({"decoder": "unet"}, "decoder is 'unet'.*pyramid"),
        ({"grn": True}, "unknown setting 'grn'"),
        ({"tube_step": 0.0}, "tube_step"),
        ({"tube_length": 100}, "tube_length is 100; .*divisor"),
        ({"tube_gate": float("nan")}, "tube_gate is nan"),
        ({"tube": True}, "unknown setting 'tube'"),
    ]:
        with pytest.raises(NeurinoError, match=message):
            DINeuroSettings().replaced(changes)


def test_what_is_new_learns_at_the_full_rate_what_is_transferred_ever_slower() -> None:
    network = DINeuro(vit="atto")
    groups = parameter_groups(network, 1.0, 0.05, layer_decay=0.5)
    held = sorted(id(p) for group in groups for p in group["params"])
    assert held == sorted(id(p) for p in network.parameters())
    rate = {id(p): group["peak_lr"] for group in groups for p in group["params"]}
    by_name = {name: rate[id(p)] for name, p in network.named_parameters()}
    for name, value in by_name.items():
        if name.startswith("decoder.") or ".head." in name or ".gate" in name or ".mix." in name:
            assert value == 1.0, name
    blocks = [by_name[f"encoder.blocks.{number}.attn.qkv.weight"] for number in range(4)]
    assert blocks == [0.125, 0.25, 0.5, 1.0]
    for name in ("patch_embed.proj.weight", "pos_embed", "cls_token", "tubes.views.0.weight"):
        assert by_name[f"encoder.{name}"] == 0.0625
    assert by_name["encoder.norm.weight"] == 1.0


def test_weights_are_looked_for_by_the_vits_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    asked = []
    monkeypatch.setattr(hub, "cached", lambda name: asked.append(name))
    notice = find_source(FAMILY, DINeuroSettings()).notice
    assert asked == ["vit_small_patch16_224.dino"]
    for remedy in (VARIABLE, "vit_small_patch16_224.dino", "nnUNetTrainerDINeuro_scratch", "DINO weights"):
        assert remedy in notice
    assert "licence" not in notice
    assert "licence" in find_source(FAMILY, DINeuroSettings(size="base_v3")).notice
    monkeypatch.setattr(hub, "cached", lambda name: tmp_path / name)
    assert find_source(FAMILY, DINeuroSettings(size="base_v3")).location.endswith("vit_base_patch16_dinov3.lvd1689m")


def test_weights_arrive_and_are_recorded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    twin = timm.create_model("vit_small_patch16_224.dino", pretrained=False, num_classes=0)
    path = tmp_path / "dino.safetensors"
    save_file(twin.state_dict(), path)
    network = DINeuro(vit="small")
    record = load_into(network, str(path), FAMILY, DINeuroSettings(inflation="average"))
    assert torch.equal(network.encoder.blocks[7].mlp.fc1.weight, twin.blocks[7].mlp.fc1.weight)
    kernel = network.encoder.patch_embed.proj.weight
    torch.testing.assert_close(kernel[:, 0, 0], twin.patch_embed.proj.weight.sum(1) / 5)
    assert (record["size"], record["inflation"], record["source"]) == ("small", "average", "dino.safetensors")
    assert len(record["sha256"]) == 64


def test_a_trained_network_cannot_change_when_resumed() -> None:
    assert set(TransferRecipe.fixed) < set(DINeuroSettings.fixed)
    assert set(DINeuroSettings.fixed) <= {field.name for field in fields(DINeuroSettings)}
    trainer = trainers.find(f"{BASE}_demo")
    with pytest.raises(NeurinoError, match=r"tubes True.*cannot become False"):
        resumed_settings({"plans": {}}, trainer.defaults, {"tubes": False}, "checkpoint.pth")


def test_nnunet_crops_the_papers_blocks_whole_and_turns_them_in_plane_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    contents = plans((16, 96, 96)) | {"continue_training": False}
    trainer = trainers.find(f"{BASE}_paper")(contents, "3d_fullres", 0, DATASET_JSON, torch.device("cpu"))
    _, dummy_2d, initial_patch, _ = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    # Slices are neither mixed nor added: the loader cuts five of them, as many as a block of the paper's has.
    assert dummy_2d
    assert initial_patch[0] == 5
    assert min(initial_patch[1:]) >= 100
