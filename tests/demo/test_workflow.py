"""The demo's settings against what they must agree with, and its refusals."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from nnunet_neurino.cli import main as cli
from nnunet_neurino.demo.progress import TrainingBar
from nnunet_neurino.demo.workflow import DemoSettings, Workflow
from nnunet_neurino.errors import NeurinoError


def test_epochs_of_the_bar_are_those_of_the_trainer():
    from nnunet_neurino.trainers import find

    settings = DemoSettings.__dataclass_fields__
    assert find(settings["trainer"].default).defaults.epochs == settings["epochs"].default


def test_full_disk_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 5 * 10**8))
    with pytest.raises(NeurinoError, match="1 GiB is needed"):
        Workflow(DemoSettings(tmp_path / "out")).check_disk()


def test_folders_of_somebody_else_are_not_removed(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    workflow = Workflow(DemoSettings(tmp_path))
    workflow.check_folder()
    model = tmp_path / "nnUNet_results" / "Dataset001_Mine" / "model.pth"
    model.parent.mkdir(parents=True)
    model.touch()
    assert cli.main(["demo", "--output", str(tmp_path), "--device", "cpu"]) == 1
    assert "another folder" in capsys.readouterr().err
    assert model.exists()
    workflow.stamps.mkdir()  # of an earlier demo
    workflow.check_folder()


def test_gpu_asked_for_and_absent_is_one_line(tmp_path, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["demo", "--output", str(tmp_path), "--device", "cuda"]) == 1
    error = capsys.readouterr().err
    assert "no GPU" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_kill_unwinds_the_stack_and_only_meanwhile():
    from nnunet_neurino.cli.demo import _ending_tidily

    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(SystemExit) as ended, _ending_tidily():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 128 + signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_every_command_is_one_of_ours_or_nnunets(tmp_path):
    workflow = Workflow(DemoSettings(tmp_path))
    names = {command[0] for commands in workflow.commands().values() for command in commands}
    assert names == {"neurino", "nnUNetv2_plan_and_preprocess", "nnUNetv2_train", "nnUNetv2_predict"}
    for commands in workflow.commands().values():
        for command in commands:
            if command[0] == "neurino":
                assert command[1] in cli.COMMANDS


def test_training_bar_follows_nnunets_lines():
    with TrainingBar(3) as bar:
        for line in (
            "2026-01-01 10:00:00.0: Epoch 1 ",
            "2026-01-01 10:00:01.0: train_loss -0.25 ",
            "2026-01-01 10:00:01.0: Pseudo dice [np.float32(0.5)] ",
            "2026-01-01 10:00:01.0: Epoch time: 4.0 s",
        ):
            bar(line)
        assert bar._bar.n == 2
        assert bar._values == {"loss": "-0.25", "pseudo dice": "0.50"}
