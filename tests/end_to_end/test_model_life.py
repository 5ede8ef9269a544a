"""The life of a model through the commands a user types."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from e2e_workplace import ISOTROPIC, Workplace, model_folder, read_json
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from nnunet_neurino.cli.main import main

pytestmark = pytest.mark.xdist_group("end_to_end")

TRAINER = "nnUNetTrainerNeurINO_demo_EMA"
SETTINGS = ("--epochs", "3", "--iterations", "4", "--val-iterations", "1", "--lr", "3e-3")


@pytest.fixture(scope="module")
def trained(workplace: Workplace) -> Path:
    """A model folder: started with settings from the command line, killed, resumed by nnU-Net's command."""
    folder = model_folder(workplace, TRAINER)
    latest = folder / "fold_0" / "checkpoint_latest.pth"
    command = ("neurino", "train", "901", "3d_fullres", "0", "-tr", TRAINER, *SETTINGS, "--device", "cpu")
    process = workplace.start(command, nnUNet_n_proc_DA="0")
    deadline = time.monotonic() + 300
    while not latest.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    was_running = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    assert latest.is_file(), output
    assert was_running, f"the training ended before it could be killed:\n{output}"
    workplace.train("901", "3d_fullres", "0", "-tr", TRAINER, "--c")
    return folder


def checkpoint(folder: Path, name: str = "final") -> dict:
    return torch.load(folder / "fold_0" / f"checkpoint_{name}.pth", map_location="cpu", weights_only=False)


def test_a_killed_run_is_resumed_with_the_settings_it_was_started_with(trained: Path) -> None:
    final = checkpoint(trained)
    assert final["current_epoch"] == 3
    assert {key: len(values) for key, values in final["logging"].items()} == dict.fromkeys(final["logging"], 3)
    assert final["init_args"]["neurino"]["settings"]["lr"] == 3e-3
    assert final["trainer_name"] == TRAINER
    logs = "".join(path.read_text() for path in sorted((trained / "fold_0").glob("training_log*.txt")))
    assert logs.count("Epoch 0 \n") == 1, "the resumed run began anew"
    assert "Training done." in logs


def test_settings_are_recorded_in_the_model_folder(trained: Path) -> None:
    plans = read_json(trained / "plans.json")
    assert plans["neurino_settings"] == {"epochs": 3, "iterations": 4, "val_iterations": 1, "lr": 3e-3}
    record = read_json(trained / "fold_0" / "neurino_settings.json")
    assert record["settings"]["epochs"] == 3
    assert record["settings"]["size"] == "atto"
    assert record["pretrained_2d_weights"] is None
    assert set(record["versions"]) >= {"nnunet_neurino", "nnunetv2", "torch"}
    assert (trained / "fold_0" / "progress.png").stat().st_size > 10_000
    assert not list(trained.rglob(".unfinished*"))


def test_validation_only_gives_the_same_scores(workplace: Workplace, trained: Path) -> None:
    summary = trained / "fold_0" / "validation" / "summary.json"
    before = read_json(summary)["foreground_mean"]["Dice"]
    summary.unlink()
    workplace.call("nnUNetv2_train", "901", "3d_fullres", "0", "-tr", TRAINER, "--val", "-device", "cpu")
    assert read_json(summary)["foreground_mean"]["Dice"] == pytest.approx(before, abs=1e-3)


def test_best_configuration_is_found(workplace: Workplace, trained: Path) -> None:
    workplace.call(
        "nnUNetv2_find_best_configuration", "901", "-c", "3d_fullres", "-tr", TRAINER, "-f", "0", "-np", "1",
        "--disable_ensembling", "--no_overwrite",
    )  # fmt: skip
    instructions = (workplace.results / ISOTROPIC.name / "inference_instructions.txt").read_text()
    assert f"-tr {TRAINER}" in instructions


@pytest.fixture(scope="module")
def prediction(workplace: Workplace, trained: Path) -> Path:
    """The held-out case, predicted by ``nnUNetv2_predict``: mask (``.tif``) and probabilities (``.npz``)."""
    out = workplace.folder / "predicted"
    workplace.call(
        "nnUNetv2_predict", "-i", workplace.raw / ISOTROPIC.name / "imagesTs", "-o", out, "-d", "901",
        "-c", "3d_fullres", "-tr", TRAINER, "-f", "0", "-device", "cpu", "-npp", "0", "-nps", "0", "--disable_tta",
        "--save_probabilities",
    )  # fmt: skip
    return out / "case05.tif"


def probabilities_by_hand(network: torch.nn.Module, image: np.ndarray, tile: tuple[int, ...]) -> np.ndarray:
    """Probabilities (classes, z, y, x) of a network, tile by tile, added up in half precision as nnU-Net does."""
    image = (image - image.mean()) / image.std()
    weight = compute_gaussian(tile, sigma_scale=1.0 / 8, value_scaling_factor=10, device=torch.device("cpu"))
    total = torch.zeros(2, *image.shape, dtype=torch.half)
    weights = torch.zeros(image.shape, dtype=torch.half)
    for corner in itertools.product(*compute_steps_for_sliding_window(image.shape, tile, 0.5)):
        place = tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))
        with torch.no_grad():
            total[(slice(None), *place)] += weight * network(torch.from_numpy(image[place])[None, None])[0]
        weights[place] += weight
    return (total / weights).float().softmax(0).numpy()


def test_prediction_is_that_of_the_trained_weights(trained: Path, prediction: Path, workplace: Workplace) -> None:
    # The network that the plans name, with the checkpoint's weights.
    from nnunet_neurino.networks import NeurINO

    plans = read_json(trained / "plans.json")
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["architecture"]["network_class_name"] == "nnunet_neurino.networks.NeurINO"
    network = NeurINO(
        input_channels=1, num_classes=2, deep_supervision=False, **configuration["architecture"]["arch_kwargs"]
    ).eval()
    image = tifffile.imread(workplace.raw / ISOTROPIC.name / "imagesTs" / "case05_0000.tif").astype(np.float32)
    tile = tuple(configuration["patch_size"])
    untrained = probabilities_by_hand(network, image, tile)
    network.load_state_dict(checkpoint(trained)["network_weights"])
    expected = probabilities_by_hand(network, image, tile)
    found = np.load(prediction.with_suffix(".npz"))["probabilities"]
    assert found.shape == expected.shape
    # Another order of additions inside the network tips the last bit of a few half-precision numbers.
    assert np.abs(found - expected).mean() < 1e-4
    assert np.abs(found - untrained).mean() > 0.02, "any weights would have passed"
    assert np.array_equal(tifffile.imread(prediction), found.argmax(0))


def test_model_zip_predicts_elsewhere_without_network_and_weights(
    workplace: Workplace, trained: Path, prediction: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "model.zip"
    workplace.call(
        "nnUNetv2_export_model_to_zip", "-d", "901", "-o", archive, "-c", "3d_fullres", "-tr", TRAINER, "-f", "0"
    )
    # With workers that are spawned, as users have them.
    variables = {"HF_HUB_OFFLINE": "1", "NNUNET_NEURINO_WEIGHTS": "/nowhere/weights.safetensors", "PYTHONPATH": ""}
    elsewhere = Workplace(tmp_path, variables)
    for folder in (elsewhere.raw, elsewhere.preprocessed, elsewhere.results):
        folder.mkdir()
    elsewhere.run("nnUNetv2_install_pretrained_model_from_zip", archive)
    out = tmp_path / "predicted"
    elsewhere.run(
        "nnUNetv2_predict_from_modelfolder", "-i", workplace.raw / ISOTROPIC.name / "imagesTs", "-o", out,
        "-m", model_folder(elsewhere, TRAINER), "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_tta",
    )  # fmt: skip
    assert np.array_equal(tifffile.imread(out / "case05.tif"), tifffile.imread(prediction))


@pytest.mark.usefixtures("inside")
def test_a_resumed_run_takes_new_epochs_but_no_other_network(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("train", "901", "3d_fullres", "0", "-tr", TRAINER, "--c", "--device", "cpu", "--no-val")
    assert main([*common, "--size", "tiny"]) == 1
    said = capsys.readouterr().err
    assert "started with size atto" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert checkpoint(trained)["current_epoch"] == 3, "a refused run changed the checkpoint"

    assert main([*common, "--epochs", "4"]) == 0
    final = checkpoint(trained)
    assert final["current_epoch"] == 4
    assert final["init_args"]["plans"]["neurino_settings"]["epochs"] == 4
    assert final["init_args"]["neurino"]["settings"]["lr"] == 3e-3, "what is not given anew stays"


@pytest.mark.usefixtures("inside")
def test_another_fold_with_another_network_is_refused(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "901", "3d_fullres", "1", "-tr", TRAINER, "--size", "tiny", "--device", "cpu"]) == 1
    assert "fold_0 was trained with another architecture" in capsys.readouterr().err.splitlines()[-1]
    assert (
        read_json(trained / "plans.json")["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["size"]
        == "atto"
    )
