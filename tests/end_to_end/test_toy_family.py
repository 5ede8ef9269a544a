"""A network that is one file in a user's own folder, through nnU-Net's own commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from e2e_workplace import ISOTROPIC, Workplace, model_folder

pytestmark = pytest.mark.xdist_group("end_to_end")

TOY = Path(__file__).parents[1] / "trainers" / "toy_family.py"


def test_trained_resumed_and_predicted(workplace: Workplace, tmp_path: Path) -> None:
    theirs = tmp_path / "trainers"
    theirs.mkdir()
    shutil.copy(TOY, theirs)
    variables = {"nnUNet_extTrainer": str(theirs)}
    name = "nnUNetTrainerToy_wide_noTASL_EMA"
    fold = model_folder(workplace, name) / "fold_0"
    said = workplace.train("901", "3d_fullres", "0", "-tr", name, **variables)
    assert "Epoch 0" in said
    # As a training of two epochs leaves it that was stopped after the first.
    checkpoint = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    checkpoint["init_args"]["neurino"]["settings"]["epochs"] = 2
    torch.save(checkpoint, fold / "checkpoint_latest.pth")
    (fold / "checkpoint_final.pth").unlink()
    resumed = workplace.train("901", "3d_fullres", "0", "-tr", name, "--c", **variables)
    assert "Epoch 1" in resumed
    assert "Epoch 0" not in resumed

    final = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert final["current_epoch"] == 2
    first, second = (c["network_weights"]["encoder.stages.0.0.convs.0.conv.weight"] for c in (checkpoint, final))
    assert first.shape == second.shape == (8, 1, 3, 3, 3)
    assert not torch.equal(first, second)
    assert len(final["optimizer_state"]["state"]["buffers"]) > 0, "batch norm's statistics are averaged, too"
    workplace.run(
        "nnUNetv2_predict", "-d", "901", "-c", "3d_fullres", "-f", "0", "-tr", name, "-device", "cpu", "-npp", "0",
        "-nps", "0", "-i", workplace.raw / ISOTROPIC.name / "imagesTs", "-o", tmp_path / "out", **variables,
    )  # fmt: skip
    (segmentation,) = (tmp_path / "out").glob("*.tif")
    assert set(np.unique(tifffile.imread(segmentation))) <= {0, 1}
