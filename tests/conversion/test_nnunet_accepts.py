"""nnU-Net's own command verifies, plans and preprocesses a converted anisotropic data set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_neurino.cli.main import main


def test_plan_and_preprocess_with_verification(make_pairs: Callable[..., Path], tmp_path: Path):
    command = shutil.which("nnUNetv2_plan_and_preprocess", path=os.path.dirname(sys.executable) + ":" + os.defpath)
    if command is None:
        pytest.skip("nnU-Net's commands are not installed beside this Python")
    data, folders = make_pairs(2), {f"nnUNet_{k}": str(tmp_path / k) for k in ("raw", "preprocessed", "results")}
    options = ["--images", data, "--tracings", data, "--dataset-id", 7, "--name", "T", "--spacing", 1, 0.25, 0.3]
    assert main([str(a) for a in ("convert", *options, "--output", tmp_path / "raw", "--workers", 1)]) == 0
    arguments = ["-d", "7", "--verify_dataset_integrity", "-npfp", "1", "-np", "1", "-c", "3d_fullres", "--no_pbar"]
    run = subprocess.run([command, *arguments], env=os.environ | folders, capture_output=True, text=True)
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-2000:]
    assert "verify_dataset_integrity Done" in output
    assert "Warning" not in output.replace("FutureWarning", ""), output
    plans = json.loads((tmp_path / "preprocessed" / "Dataset007_T" / "nnUNetPlans.json").read_text())
    assert plans["image_reader_writer"] == "Tiff3DIO"
    assert plans["original_median_spacing_after_transp"] == [1.0, 0.25, 0.3]
    assert plans["configurations"]["3d_fullres"]["spacing"][0] == 1.0
    done = list((tmp_path / "preprocessed" / "Dataset007_T" / "nnUNetPlans_3d_fullres").glob("cell*"))
    assert {p.name.split(".")[0].split("_")[0] for p in done} == {"cell0", "cell1"}
