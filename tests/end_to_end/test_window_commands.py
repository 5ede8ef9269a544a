"""DINOWindow through nnU-Net's own commands: cache, resuming, prediction, weights, kinds of data."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from e2e_workplace import ANISOTROPIC, BLOB, ISOTROPIC, REGIONS, Workplace, model_folder, read_json

from nnunet_neurino.cli.main import main
from nnunet_neurino.errors import NeurinoError

pytestmark = pytest.mark.xdist_group("end_to_end")
TRAINER = "nnUNetTrainerDINOWindow_demo"


@pytest.fixture(scope="module")
def weights(workplace: Workplace) -> Path:
    """A small DINOv3 in timm's naming, as stand-in for what the hub has."""
    from safetensors.torch import save_file

    from nnunet_neurino.networks.vit import VITS
    from nnunet_neurino.transfer.flat import VIT

    torch.manual_seed(0)
    path = workplace.folder / "atto_v3.safetensors"
    shapes = {name: tensor.shape for name, tensor in VIT.expected(VITS["atto_v3"]).items()}
    save_file({name: 0.05 * torch.randn(shape) for name, shape in shapes.items()}, path)
    return path


def train(dataset: str, trainer: str = TRAINER, resume: bool = False, **settings: Any) -> None:
    from nnunet_neurino.trainers.launch import Training, launch

    launch(
        Training(dataset, "3d_fullres", 0, trainer, settings=settings, device="cpu", resume=resume, validate="never")
    )


def losses(model: Path) -> list[float]:
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    return [float(loss) for loss in checkpoint["logging"]["train_losses"]]


def cached(workplace: Workplace, dataset: str) -> dict[str, int]:
    """The kept tokens and when they were written."""
    folder = workplace.preprocessed / dataset / "neurino_tokens"
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*.npy"))}


def test_a_life_by_the_commands_a_user_types(workplace: Workplace, weights: Path, tmp_path: Path, capsys) -> None:
    settings = ("--epochs", "3", "--iterations", "6", "--val-iterations", "1", "--set", "pretrained=true")
    command = ("neurino", "train", "904", "3d_fullres", "0", "-tr", TRAINER, *settings, "--weights", str(weights))
    folder = model_folder(workplace, TRAINER, BLOB.name)
    latest = folder / "fold_0" / "checkpoint_latest.pth"
    process = workplace.start((*command, "--device", "cpu"), nnUNet_n_proc_DA="0")
    deadline = time.monotonic() + 300
    while not latest.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    was_running = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    said, _ = process.communicate()
    assert latest.is_file(), said
    assert was_running, f"the training ended before it could be killed:\n{said}"
    assert "4 volumes x 2 copies" in said, "the size of the cache is announced"
    before = cached(workplace, BLOB.name)
    assert len(before) == 4 * 2 + 1  # and one of the volume that validates

    # Neither the weights nor the tokens are looked for or computed again.
    said = workplace.train("904", "3d_fullres", "0", "-tr", TRAINER, "--c")
    assert cached(workplace, BLOB.name) == before
    assert len(losses(folder)) == 3
    configuration = read_json(folder / "plans.json")["configurations"]["3d_fullres"]
    assert configuration["architecture"]["network_class_name"] == "nnunet_neurino.networks.DINOWindow"
    assert configuration["patch_size"] == [26, 48, 64], "whole volumes, in plane of whole tokens"
    record = read_json(folder / "fold_0" / "neurino_settings.json")["pretrained_2d_weights"]
    assert (record["size"], record["source"]) == ("atto_v3", "atto_v3.safetensors")
    assert read_json(folder / "fold_0" / "validation" / "summary.json")["foreground_mean"]["Dice"] >= 0

    workplace.call(
        "nnUNetv2_predict", "-i", workplace.raw / BLOB.name / "imagesTs", "-o", tmp_path / "out", "-d", "904",
        "-c", "3d_fullres", "-f", "0", "-tr", TRAINER, "-device", "cpu", "-npp", "0", "-nps", "0", "--disable_tta",
    )  # fmt: skip
    segmentation = tifffile.imread(tmp_path / "out" / "case05.tif")
    assert segmentation.shape == BLOB.shape
    assert set(np.unique(segmentation)) <= {0, 1}

    image = workplace.raw / BLOB.name / "imagesTs" / "case05_0000.tif"
    assert main(["view", "--image", str(image), "--features", str(folder), "-o", str(tmp_path / "view.html")]) == 1
    assert "a 2D network that was never trained here" in capsys.readouterr().err
    assert not (tmp_path / "view.html").exists()


@pytest.mark.usefixtures("inside")
def test_from_the_cache_and_without_it_the_losses_are_the_same(workplace: Workplace) -> None:
    short = {"epochs": 2, "iterations": 5, "val_iterations": 1, "copies": 3, "dropout": 0.0}
    found = {}
    for tokens in ("cached", "computed"):
        torch.manual_seed(0)
        trainer = f"{TRAINER}_EMA" if tokens == "computed" else f"{TRAINER}_NoMirroring_2epochs"
        train("904", trainer, tokens=tokens, mirroring=True, ema=0.0, **short)
        found[tokens] = losses(model_folder(workplace, trainer, BLOB.name))
    np.testing.assert_allclose(found["cached"], found["computed"], atol=1e-3, rtol=1e-3)
    assert found["cached"][1] < found["cached"][0]


@pytest.mark.usefixtures("inside")
def test_other_weights_make_other_tokens(workplace: Workplace, weights: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("NNUNET_NEURINO_WEIGHTS", str(weights))
    short = {"epochs": 1, "iterations": 1, "val_iterations": 1, "pretrained": True}
    trainer = f"{TRAINER}_1epoch"
    train("904", trainer, **short)
    before = cached(workplace, BLOB.name)
    state = torch.load(
        model_folder(workplace, trainer, BLOB.name) / "fold_0" / "checkpoint_final.pth", weights_only=False
    )["network_weights"]
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    assert torch.equal(state["encoder.cls_token"], tensors["cls_token"])
    tensors["blocks.0.mlp.fc1.weight"] += 0.01
    other = weights.with_name("other.safetensors")
    save_file(tensors, other)
    monkeypatch.setenv("NNUNET_NEURINO_WEIGHTS", str(other))
    train("904", trainer, **short)
    after = cached(workplace, BLOB.name)
    renewed = [name for name, written in after.items() if before.get(name) != written]
    assert len(renewed) == 4 * 2 + 1
    train("904", trainer, **short)
    assert cached(workplace, BLOB.name) == after, "nothing to do the second time"


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("dataset", "trainer", "settings"),
    [
        (ANISOTROPIC, "_demo_head_1epoch", {"window": [3, 24, 24]}),  # two channels, three labels, thin windows
        (REGIONS, "_demo_1epoch", {}),
        (BLOB, "_demo_single_TASL_1epoch", {}),
        (BLOB, "_demo_augmented_1epoch", {}),
        (BLOB, "_demo_windowloss_1epoch", {}),
        (ISOTROPIC, "_demo_1epoch", {"patch_size": [16, 32, 32]}),  # volumes of several patches
    ],
)
def test_kinds_of_data_and_training(workplace: Workplace, dataset, trainer: str, settings, tmp_path: Path) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    trainer = "nnUNetTrainerDINOWindow" + trainer
    train(dataset.name[7:10], trainer, iterations=2, val_iterations=1, **settings)
    model = model_folder(workplace, trainer, dataset.name)
    assert np.isfinite(losses(model)).all()
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(0,))
    images = workplace.raw / dataset.name / "imagesTs"
    predictor.predict_from_files_sequential(str(images), str(tmp_path))
    assert tifffile.imread(tmp_path / "case05.tif").shape == dataset.shape


@pytest.mark.usefixtures("inside")
def test_what_cannot_be_trained_is_refused_in_one_line(workplace: Workplace, weights: Path, monkeypatch) -> None:
    with pytest.raises(NeurinoError, match="freezes its encoder, which needs 2D weights") as missing:
        train("904", "nnUNetTrainerDINOWindow_1epoch")
    monkeypatch.setenv("NNUNET_NEURINO_WEIGHTS", str(weights))
    with pytest.raises(NeurinoError, match="those of ViT atto_v3, which the network is not") as wrong:
        train("904", "nnUNetTrainerDINOWindow_1epoch")
    monkeypatch.setenv("NNUNET_NEURINO_WEIGHTS", "none")
    for error in (missing, wrong):
        assert "\n" not in str(error.value)
    from nnunet_neurino.trainers import find
    from nnunet_neurino.trainers.datasets import load_dataset_json, load_plans

    plans = load_plans(BLOB.name, "nnUNetPlans") | {"continue_training": False}
    plans["configurations"]["second"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_fullres"}
    with pytest.raises(NeurinoError, match="second stage of a cascade"):
        find(TRAINER)(plans, "second", 0, load_dataset_json(BLOB.name), torch.device("cpu"))
