"""``neurino doctor``: each thing that can be wrong is found and has a remedy."""

from __future__ import annotations

import pytest

from nnunet_neurino import _startup
from nnunet_neurino.cli import main as cli
from nnunet_neurino.diagnosis import CHECKS, Level, installation, surroundings

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in FOLDERS:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def levels(findings) -> dict[str, Level]:
    findings = list(findings)
    for finding in findings:
        assert finding.remedy or finding.level < Level.PROBLEM
    return {finding.subject: finding.level for finding in findings}


def test_folders_in_place(folders):
    assert max(levels(surroundings.folders()).values()) < Level.PROBLEM


def test_unset_and_missing_folders_are_problems(folders, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    (folders / "nnUNet_results").rmdir()
    seen = levels(surroundings.folders())
    assert seen["nnUNet_raw"] == Level.PROBLEM
    assert seen["nnUNet_results"] == Level.PROBLEM
    assert seen["nnUNet_preprocessed"] < Level.PROBLEM


def test_a_file_in_place_of_a_folder_is_not_to_be_made(folders, monkeypatch):
    (folders / "file").touch()
    monkeypatch.setenv("nnUNet_raw", str(folders / "file"))
    monkeypatch.setenv("nnUNet_results", str(folders / "my results"))
    remedies = {finding.subject: finding.remedy for finding in surroundings.folders()}
    assert remedies["nnUNet_raw"].startswith("export nnUNet_raw=")
    assert remedies["nnUNet_results"] == f"mkdir -p '{folders / 'my results'}'"


def test_a_requirement_out_of_range_is_a_problem(monkeypatch):
    monkeypatch.setattr(installation.metadata, "requires", lambda name: ["numpy>=999", "no-such-package>=1"])
    findings = list(installation.packages())
    assert levels(findings)["numpy"] == Level.PROBLEM
    assert 'pip install "numpy>=999"' in {finding.remedy for finding in findings}
    assert levels(findings)["no-such-package"] == Level.PROBLEM


def test_startup_file_switched_off_is_noted(monkeypatch):
    monkeypatch.setenv(_startup.OPT_OUT, "1")
    findings = list(installation.startup())
    assert findings[0].level == Level.NOTE
    assert _startup.OPT_OUT in findings[0].remedy


def test_another_environments_train_command_on_path_is_a_problem(tmp_path, monkeypatch):
    other = tmp_path / "nnUNetv2_train"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert levels(installation.commands()) == {"nnUNetv2_train": Level.PROBLEM}


def test_named_weights_that_are_not_there_are_a_problem(monkeypatch, tmp_path):
    monkeypatch.setenv("NNUNET_NEURINO_WEIGHTS", str(tmp_path / "none.safetensors"))
    assert levels(surroundings.weights())["2D weights"] == Level.PROBLEM


def test_exit_status_tells(folders, monkeypatch, capsys):
    quick = [check for check in CHECKS if check.look is surroundings.folders]
    monkeypatch.setattr("nnunet_neurino.cli.doctor.CHECKS", quick)
    assert cli.main(["doctor"]) == 0
    monkeypatch.delenv("nnUNet_raw")
    assert cli.main(["doctor"]) == 1
    assert "PROBLEM" in capsys.readouterr().out
