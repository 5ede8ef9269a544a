"""A trainer with a tiny network, made as ``neurino train`` makes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunet_plans import DATASET_JSON, plans
from recipe_cases import Make

from nnunet_neurino.trainers.launch import Training, make_trainer


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make and initialise a trainer of the smallest network from changed settings."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    data = tmp_path / "preprocessed" / "Dataset001_Test"
    (data / "nnUNetPlans_3d_fullres").mkdir(parents=True)
    (data / "nnUNetPlans_3d_fullres" / "case.b2nd").touch()  # by which nnU-Net knows the storage format
    (data / "nnUNetPlans.json").write_text(json.dumps(plans((16, 16, 16))))
    (data / "dataset.json").write_text(json.dumps(DATASET_JSON))

    def made(trainer: str = "nnUNetTrainerNeurINO_scratch", initialise: bool = True, **settings: Any) -> Any:
        settings = {"size": "atto", "epochs": 10, "iterations": 4, "tasl": None, **settings}
        instance = make_trainer(Training("1", "3d_fullres", 0, trainer, settings=settings, device="cpu"))
        torch.manual_seed(0)
        if initialise:
            instance.initialize()
        return instance

    return made
