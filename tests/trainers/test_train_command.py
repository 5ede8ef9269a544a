"""``neurino train`` and ``neurino plan``: what is wrong is said in one line, before anything is written."""

from __future__ import annotations

import importlib
import json
import shlex
from pathlib import Path

import pytest
import torch
from nnunet_plans import DATASET_JSON, plans

from nnunet_neurino.cli import main as cli
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers import launch


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nnU-Net's folders with one planned data set (no images)."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    dataset = tmp_path / "preprocessed" / "Dataset001_Test"
    dataset.mkdir()
    (dataset / "nnUNetPlans.json").write_text(json.dumps(plans((32, 32, 32))))
    (dataset / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return tmp_path


def complaint(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a refused command says: one line."""
    assert cli.main(shlex.split(command)) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("7 3d_fullres 0", "data set 7: there is none in"),
        ("Test 3d_fullres 0", "give its number (7) or its name"),
        ("1 3d_lowres 0", "no configuration 3d_lowres; there are 3d_fullres"),
        ("1 3d_fullres first", "fold 'first'"),
        ("1 3d_fullres 0 -tr nnUNetTrainerNeurIN0", "no trainer is called nnUNetTrainerNeurIN0"),
        ("1 3d_fullres 0 -tr nnUNetTrainer --epochs 5", "nnUNetTrainer takes no epochs"),
        ("1 3d_fullres 0 -p nnUNetNeurINOPlans", "there are nnUNetPlans (-p); plan and preprocess with: neurino plan"),
        ("1 3d_fullres 0 --epochs 0", "setting epochs is 0"),
        ("1 3d_fullres 0 --set size=huge", "setting size is 'huge'; choose one of tiny"),
        ("1 3d_fullres 0 --set momentum=0.9", "unknown setting 'momentum'"),
        ("1 3d_fullres 0 --set network=mednext", "unknown setting 'network'"),
        ("1 3d_fullres 0 -tr nnUNetTrainerDINeuro --set stem_stride=4", "unknown setting 'stem_stride'"),
        ("1 3d_fullres 0 -tr nnUNetTrainerMedNeXt --set inflation=center", "unknown setting 'inflation'"),
        ("1 3d_fullres 0 -tr nnUNetTrainerTASL --epochs 5", "nnUNetTrainerTASL takes no epochs"),
        ("1 3d_fullres 0 --set epochs", "write NAME=VALUE"),
        ("1 3d_fullres 0 --c --val", "give one of them"),
        ("1 3d_fullres 0 --num-gpus 2 --device cpu", "needs --device cuda"),
        ("1 3d_fullres 0 --val", "the training is not finished"),
        ("1 3d_fullres 0 --num-gpus 0", "--num-gpus 0: give 1 or more"),
        ("1 3d_fullres 0 --size huge", "setting size is 'huge'; choose one of tiny"),
        ("1 3d_fullres 0 -tr nnUNetTrainerMedNeXt --size huge", "choose one of S, B, M, L"),
        ("1 3d_fullres 0 -tr nnUNetTrainerNeurINO_scratch --weights tiny", "starts from scratch and would not read"),
        ("1 3d_fullres 0 -tr nnUNetTrainer --weights tiny", "starts from scratch and would not read"),
        ("1 3d_fullres 0 --c --pretrained-model x.pth", "without --c and --val"),
        ("1 3d_fullres 0 --pretrained-model /nowhere.pth", "/nowhere.pth: no such file"),
    ],
)
def test_mistakes_are_one_line(folders: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    device = "" if "--device" in arguments else " --device cpu"
    said = complaint(f"train {arguments}{device}", capsys)
    assert message in said
    assert not list((folders / "results").rglob("checkpoint*"))


def test_a_gpu_that_is_not_there(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "mps"):
        assert "--device cpu" in complaint(f"train 1 3d_fullres 0 --device {device}", capsys)


@pytest.mark.parametrize("name", ["raw", "preprocessed", "results"])
def test_folders_that_are_not_set(
    folders: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(f"nnUNet_{name}")
    assert f"nnUNet_{name} is not set; point it to a folder" in complaint("train 1 3d_fullres 0 --device cpu", capsys)


def test_plan_refuses_what_it_cannot_plan(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Dataset001_Test: no dataset.json" in complaint("plan -d 1", capsys)
    assert "must not hold one" in complaint("plan -d 1 --plans-name my__plans", capsys)
    assert "--processes 0: give 1 or more" in complaint("plan -d 1 --processes 0", capsys)
    assert "setting memory is -1.0" in complaint("plan -d 1 --memory -1", capsys)


@pytest.mark.parametrize("command", ["train", "plan"])
def test_help_shows_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"nnunet_neurino.cli.{command}")
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert module.EXAMPLE in capsys.readouterr().out
    first = shlex.split(module.EXAMPLE.splitlines()[0])
    assert first[:2] == ["neurino", command]
    cli._command_parser(command, module).parse_args(first[2:])


def test_command_line_settings_reach_the_trainer(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(launch, "launch", seen.append)
    command = (
        "train 1 3d_fullres all -tr nnUNetTrainerNeurINO_S --epochs 7 --lr 1e-4 --batch-size 5 --patch-size 16 32 32 "
        "--set ema=0.99 --set tasl=none --set tta=false --set warmup-epochs=2 --device cpu --npz --no-val --c"
    )
    assert cli.main(shlex.split(command)) == 0
    (training,) = seen
    assert (training.fold, training.resume, training.validate, training.probabilities) == ("all", True, "never", True)
    trainer = launch.make_trainer(training)
    settings = trainer.settings
    assert (settings.size, settings.epochs, settings.lr, settings.batch_size) == ("small", 7, 1e-4, 5)
    assert (settings.ema, settings.tasl, settings.tta, settings.warmup_epochs) == (0.99, None, False, 2.0)
    assert trainer.configuration_manager.batch_size == 5
    assert trainer.configuration_manager.patch_size == [16, 32, 32]
    assert (trainer.num_epochs, trainer.initial_lr) == (7, 1e-4)


@pytest.mark.parametrize(
    ("trainer", "size", "network"),
    [("nnUNetTrainerMedNeXt", "S", "MedNeXt"), ("nnUNetTrainerDINeuro_demo", "atto_v3", "DINeuro")],
)
def test_sizes_of_other_networks(
    folders: Path, monkeypatch: pytest.MonkeyPatch, trainer: str, size: str, network: str
) -> None:
    seen = []
    monkeypatch.setattr(launch, "launch", seen.append)
    assert cli.main(shlex.split(f"train 1 3d_fullres 0 -tr {trainer} --size {size} --device cpu")) == 0
    made = launch.make_trainer(seen[0])
    assert made.settings.size == size
    assert made.configuration_manager.network_arch_class_name == f"nnunet_neurino.networks.{network}"


def test_weights_named_on_the_command_line_are_looked_for(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunet_neurino.trainers.families import families
    from nnunet_neurino.trainers.pretraining import VARIABLE, find_source

    monkeypatch.setenv(VARIABLE, "something else")
    monkeypatch.setattr(launch, "launch", lambda training: None)
    cli.main(shlex.split("train 1 3d_fullres 0 --device cpu --weights /data/tiny.safetensors"))
    family = families()["nnUNetTrainerNeurINO"]
    assert find_source(family, family.settings).location == "/data/tiny.safetensors"


def test_plans_carry_changed_settings_only(folders: Path) -> None:
    training = launch.Training("1", "3d_fullres", 0, settings={"epochs": 3}, device="cpu")
    assert launch.make_trainer(training).plans_manager.plans["neurino_settings"] == {"epochs": 3}
    plain = launch.Training("1", "3d_fullres", 0, device="cpu")
    assert "neurino_settings" not in launch.make_trainer(plain).plans_manager.plans
    with pytest.raises(NeurinoError, match="unknown setting 'speed'"):
        launch.make_trainer(launch.Training("1", "3d_fullres", 0, settings={"speed": 3}, device="cpu"))


def test_an_epoch_count_works_for_nnunets_own_network(folders: Path) -> None:
    trainer = launch.make_trainer(launch.Training("1", "3d_fullres", 0, "nnUNetTrainerTASL_5epochs", device="cpu"))
    assert trainer.num_epochs == 5
    assert Path(trainer.output_folder_base).name == "nnUNetTrainerTASL_5epochs__nnUNetPlans__3d_fullres"
    assert "PlainConvUNet" in trainer.configuration_manager.network_arch_class_name
