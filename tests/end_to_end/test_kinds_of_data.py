"""Thick slices, several channels, several labels, regions, other plans: trained and predicted inside nnU-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from e2e_workplace import ANISOTROPIC, REGIONS, Workplace, model_folder, read_json

pytestmark = [pytest.mark.xdist_group("end_to_end"), pytest.mark.usefixtures("inside")]
TRAINER = "nnUNetTrainerNeurINO_demo_NoMirroring"
SHORT = {"epochs": 1, "iterations": 3, "val_iterations": 1, "patch_size": None}


def train(dataset: str, trainer: str = TRAINER, plans: str = "nnUNetPlans", **settings: Any) -> None:
    from nnunet_neurino.trainers.launch import Training, launch

    launch(Training(dataset, "3d_fullres", 0, trainer, plans, {**SHORT, **settings}, device="cpu", validate="never"))


def predict(model: Path, images: Path, out: Path) -> np.ndarray:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(0,))
    predictor.predict_from_files_sequential(str(images), str(out), save_probabilities=True)
    probabilities = np.load(out / "case05.npz")["probabilities"]
    assert np.isfinite(probabilities).all()
    return tifffile.imread(out / "case05.tif")


def test_thick_slices_two_channels_three_labels(workplace: Workplace, tmp_path: Path) -> None:
    train("902")
    model = model_folder(workplace, TRAINER, ANISOTROPIC.name)
    configuration = read_json(model / "plans.json")["configurations"]["3d_fullres"]
    # The plan does not halve z at first, and no slice is added to the 20.
    assert configuration["architecture"]["arch_kwargs"]["strides"][1] == [1, 2, 2]
    assert configuration["patch_size"] == [20, 64, 64]
    weights = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert weights["encoder.stem.0.weight"].shape[1:] == (2, 1, 4, 4)
    segmentation = predict(model, workplace.raw / ANISOTROPIC.name / "imagesTs", tmp_path)
    assert segmentation.shape == (20, 64, 64)
    assert set(np.unique(segmentation)) <= {0, 1, 2, 3}


def test_regions(workplace: Workplace, tmp_path: Path) -> None:
    train("903", patch_size=[32, 32, 32])
    model = model_folder(workplace, TRAINER, REGIONS.name)
    segmentation = predict(model, workplace.raw / REGIONS.name / "imagesTs", tmp_path)
    assert segmentation.shape == (32, 64, 64)
    assert set(np.unique(segmentation)) <= {0, 1, 2, 3}
    assert np.load(tmp_path / "case05.npz")["probabilities"].shape[0] == 3


def test_our_plans_serve_nnunets_own_trainer_on_the_same_data(
    workplace: Workplace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_neurino.cli.main import main

    folder = workplace.preprocessed / ANISOTROPIC.name
    data = sorted((path, path.stat().st_mtime_ns) for path in (folder / "nnUNetPlans_3d_fullres").iterdir())
    command = ["plan", "-d", "902", "--size", "atto", "--batch-size", "2", "-np", "1"]
    assert main(command) == 0
    plans = read_json(folder / "nnUNetNeurINOPlans.json")
    assert "3d_fullres: preprocessed before (nnUNetPlans_3d_fullres), used again" in capsys.readouterr().out
    assert sorted((p, p.stat().st_mtime_ns) for p in (folder / "nnUNetPlans_3d_fullres").iterdir()) == data
    assert main(command) == 0
    assert read_json(folder / "nnUNetNeurINOPlans.json") == plans, "planning twice gives the same plans"

    trainer = nnUNetTrainer(
        {**plans, "continue_training": False}, "3d_fullres", 0, read_json(folder / "dataset.json"), torch.device("cpu")
    )
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
    trainer.run_training()
    assert type(trainer.network).__module__ == "nnunet_neurino.networks.neurino"
    assert len(trainer._get_deep_supervision_scales()) == 5
    model = model_folder(workplace, "nnUNetTrainer", ANISOTROPIC.name, "nnUNetNeurINOPlans")
    assert predict(model, workplace.raw / ANISOTROPIC.name / "imagesTs", tmp_path).shape == (20, 64, 64)


def test_pretrained_weights_are_read_when_training_starts_and_never_again(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    from safetensors.torch import save_file

    from nnunet_neurino.trainers.launch import Training, make_trainer

    path = tmp_path / "tiny.safetensors"
    save_file(timm.create_model("convnext_tiny", num_classes=0).state_dict(), path)
    monkeypatch.setenv("NNUNET_NEURINO_WEIGHTS", str(path))
    name = "nnUNetTrainerNeurINO_frozen_noTASL_NoMirroring"
    settings = {"epochs": 2, "iterations": 1, "val_iterations": 1, "patch_size": [16, 16, 16], "batch_size": 2}
    training = Training("902", "3d_fullres", 0, name, settings=settings, device="cpu")
    trainer = make_trainer(training)
    trainer.initialize()
    encoder = {key: tensor.clone() for key, tensor in trainer.network.encoder.state_dict().items()}
    head = trainer.network.decoder.seg_layers[0].weight.clone()
    trainer.num_epochs = 1
    trainer.run_training()
    # Frozen for good: the encoder is still what was inflated; the rest has learned.
    assert all(torch.equal(tensor, encoder[key]) for key, tensor in trainer.network.encoder.state_dict().items())
    assert not torch.equal(trainer.network.decoder.seg_layers[0].weight, head)
    record = read_json(Path(trainer.output_folder) / "neurino_settings.json")["pretrained_2d_weights"]
    assert record["source"] == "tiny.safetensors"
    assert len(record["sha256"]) == 64
    log = Path(trainer.log_file).read_text()
    assert record["sha256"] in log

    # Resuming and validating need no weights, and keep the record of where they came from.
    path.unlink()
    resumed = make_trainer(training)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert resumed.pretraining == record
    assert all(torch.equal(tensor, encoder[key]) for key, tensor in resumed.network.encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in resumed.network.encoder.parameters())

    # Starting anew with a named source that is gone is an error, not a silent start from scratch.
    from nnunet_neurino.errors import NeurinoError

    with pytest.raises(NeurinoError, match="tiny"):
        make_trainer(training).initialize()
