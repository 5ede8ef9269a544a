"""The path of ``-num_gpus 2``, with two gloo processes on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from e2e_workplace import Workplace, model_folder, read_json

pytestmark = pytest.mark.xdist_group("end_to_end")
TRAINERS = (
    "nnUNetTrainerNeurINO_demo_EMA_NoMirroring",
    "nnUNetTrainerDINeuro_demo_TASL_NoMirroring",
    "nnUNetTrainerDINOWindow_demo_TASL_NoMirroring",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def reports(workplace: Workplace) -> Path:
    """What each of the two processes saw with each of the trainers: ``TRAINER.RANK.json``."""
    folder = workplace.folder / "reports"
    folder.mkdir()
    result = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "ddp_program.py"), str(free_port()), str(folder), *TRAINERS],
        env={**os.environ, **workplace.environment, "nnUNet_n_proc_DA": "0"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.mark.parametrize("trainer", TRAINERS)
def test_two_processes_train_one_model(workplace: Workplace, reports: Path, trainer: str) -> None:
    ranks = [read_json(reports / f"{trainer}.{rank}.json") for rank in (0, 1)]
    # nnU-Net divides the batch of 3 over the processes; their gradients are averaged, so their weights stay the same.
    assert sorted(size for rank in ranks for size in rank["batch_sizes"]) == [1, 2]
    assert ranks[0]["losses"] != ranks[1]["losses"]
    assert ranks[0]["weights_sum"] == ranks[1]["weights_sum"]
    assert ranks[0]["weights_norm"] == ranks[1]["weights_norm"]
    # What is logged is the mean over both.
    both = np.mean([rank["losses"] for rank in ranks])
    assert ranks[0]["logged_loss"] == pytest.approx(both, abs=1e-5)
    assert ranks[0]["terms"], "TASL is on"
    for key in ranks[0]["terms"]:
        values = np.array([rank["terms"][key] for rank in ranks])
        assert ranks[0]["logged_terms"][key] == pytest.approx(np.nanmean(values), abs=1e-6)
    folder = model_folder(workplace, trainer)
    assert read_json(folder / "fold_1" / "validation" / "summary.json")["foreground_mean"]["Dice"] >= 0
    assert (folder / "fold_1" / "checkpoint_final.pth").is_file()
