"""DINeuro through nnU-Net's own commands: thick and thin stacks, resuming, prediction, weights, TASL, the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from e2e_workplace import ANISOTROPIC, ISOTROPIC, Workplace, model_folder, read_json

pytestmark = pytest.mark.xdist_group("end_to_end")
TRAINER = "nnUNetTrainerDINeuro_demo_NoMirroring"


def train(dataset: str, trainer: str = TRAINER, resume: bool = False, **settings: Any) -> None:
    from nnunet_neurino.trainers.launch import Training, launch

    launch(
        Training(dataset, "3d_fullres", 0, trainer, settings=settings, device="cpu", resume=resume, validate="never")
    )


def test_thick_slices_by_the_commands_a_user_types(workplace: Workplace, tmp_path: Path) -> None:
    trainer = "nnUNetTrainerDINeuro_demo_NoMirroring_1epoch"
    workplace.call(
        "neurino", "train", "902", "3d_fullres", "0", "-tr", trainer, "--device", "cpu", "--iterations", "4",
        "--val-iterations", "1", nnUNet_n_proc_DA="0",
    )  # fmt: skip
    model = model_folder(workplace, trainer, ANISOTROPIC.name)
    configuration = read_json(model / "plans.json")["configurations"]["3d_fullres"]
    assert configuration["architecture"]["network_class_name"] == "nnunet_neurino.networks.DINeuro"
    assert configuration["patch_size"] == [16, 64, 64]
    assert all(row[0] == 1 for row in configuration["architecture"]["arch_kwargs"]["strides"])
    # Validation inside the training has segmented whole stacks of 20 slices with patches of 16.
    assert read_json(model / "fold_0" / "validation" / "summary.json")["foreground_mean"]["Dice"] >= 0
    workplace.call(
        "nnUNetv2_predict", "-i", workplace.raw / ANISOTROPIC.name / "imagesTs", "-o", tmp_path / "out", "-d", "902",
        "-c", "3d_fullres", "-f", "0", "-tr", trainer, "-device", "cpu", "-npp", "0", "-nps", "0",
    )  # fmt: skip
    segmentation = tifffile.imread(tmp_path / "out" / "case05.tif")
    assert segmentation.shape == (20, 64, 64)
    assert set(np.unique(segmentation)) <= {0, 1, 2, 3}


@pytest.mark.usefixtures("inside")
def test_cubic_voxels_trained_resumed_predicted_and_looked_at(workplace: Workplace, tmp_path: Path) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunet_neurino.cli.main import main
    from nnunet_neurino.errors import NeurinoError

    short = {"iterations": 12, "val_iterations": 1, "tasl": "localised"}
    train("901", epochs=1, **short)
    model = model_folder(workplace, TRAINER, ISOTROPIC.name)
    final = model / "fold_0" / "checkpoint_final.pth"
    first = torch.load(final, map_location="cpu", weights_only=False)
    with pytest.raises(NeurinoError, match=r"tubes True.*cannot become False"):
        train("901", resume=True, tubes=False)
    train("901", resume=True, epochs=3)
    checkpoint = torch.load(final, map_location="cpu", weights_only=False)
    assert checkpoint["current_epoch"] == 3
    losses = checkpoint["logging"]["train_losses"]
    assert losses[:1] == first["logging"]["train_losses"]
    assert losses[-1] < losses[0]
    assert np.isfinite(checkpoint["logging"]["loss_term/tasl_node"]).all(), "TASL is on"
    assert checkpoint["network_weights"]["encoder.tubes.gate"].abs().max() > 0

    predictor = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(0,))
    images = workplace.raw / ISOTROPIC.name / "imagesTs"
    predictor.predict_from_files_sequential(str(images), str(tmp_path), save_probabilities=True)
    assert tifffile.imread(tmp_path / "case05.tif").shape == (32, 64, 64)
    assert np.isfinite(np.load(tmp_path / "case05.npz")["probabilities"]).all()

    image = images / "case05_0000.tif"
    page = tmp_path / "page.html"
    assert main(["view", "--image", str(image), "--tubes", str(model), "-o", str(page)]) == 0
    assert "Where the tubes of some tokens" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("inside")
def test_very_thin_patches_and_pretrained_weights(workplace: Workplace, tmp_path: Path, monkeypatch) -> None:
    from safetensors.torch import save_file
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    twin = VisionTransformer(embed_dim=64, depth=4, num_heads=2, num_classes=0)
    path = tmp_path / "atto.safetensors"
    save_file(twin.state_dict(), path)
    monkeypatch.setenv("NNUNET_NEURINO_WEIGHTS", str(path))
    trainer = "nnUNetTrainerDINeuro_demo_average_notube"
    train("902", trainer, epochs=1, iterations=1, val_iterations=1, patch_size=[5, 48, 64], lr=1e-6, pretrained=True)
    fold = model_folder(workplace, trainer, ANISOTROPIC.name) / "fold_0"
    weights = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)["network_weights"]
    assert not any("tubes" in name for name in weights)
    kernel = weights["encoder.patch_embed.proj.weight"]
    expected = twin.patch_embed.proj.weight.sum(1) / 2 / 5  # two channels, five slices
    torch.testing.assert_close(kernel[:, 1, 4], expected, atol=1e-4, rtol=0)
    record = read_json(fold / "neurino_settings.json")["pretrained_2d_weights"]
    assert (record["size"], record["source"], record["inflation"]) == ("atto", "atto.safetensors", "average")
