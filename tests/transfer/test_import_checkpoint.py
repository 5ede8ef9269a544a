"""``neurino import-checkpoint``: nnU-Net v1 folders of the released code -> nnU-Net v2 folders with the same logits."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from published_fixture import filled, image, published_entries
from published_reference import published_logits
from v1_model_folder import TRAINER, v1_plans, write_v1_folder

from nnunet_neurino.cli.import_checkpoint import _dataset_name
from nnunet_neurino.cli.main import main
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.transfer.safe_pickle import read_pickle, read_torch_archive

TARGET = "nnUNetTrainerNeurINO_released__nnUNetPlans__3d_fullres"


def test_nnunets_predictor_gives_the_published_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("nnUNet_results", "nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(tmp_path / "results"))
    folder = write_v1_folder(tmp_path / "v1", folds=("0", "1"))
    assert main(["import-checkpoint", str(folder)]) == 0
    target = tmp_path / "results" / "Dataset501_Neurons" / TARGET

    predictor_class = pytest.importorskip("nnunetv2.inference.predict_from_raw_data").nnUNetPredictor
    predictor = predictor_class(use_gaussian=False, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(target), (0, 1))
    assert predictor.allowed_mirroring_axes == (0, 1, 2)
    volume = image((32, 32, 32), 2)
    logits = predictor.predict_logits_from_preprocessed_data(volume[0])
    with torch.no_grad():
        expected = published_logits(filled(published_entries("tiny")), volume)[0][0]
    # nnU-Net adds windows up in half precision.
    assert (logits - expected).abs().max() <= 1e-3 * expected.abs().max()
    assert predictor.configuration_manager.patch_size == [32, 32, 32]
    assert predictor.dataset_json["labels"] == {"background": 0, "neuron": 1}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_every_pickle_protocol_reads_alike(protocol: int, tmp_path: Path) -> None:
    folder = write_v1_folder(tmp_path, protocol=protocol)
    read = read_pickle(folder / "plans.pkl")
    expected = v1_plans()
    assert read.keys() == expected.keys()
    assert read["dataset_properties"] == expected["dataset_properties"]
    assert np.array_equal(read["plans_per_stage"][0]["patch_size"], [32, 32, 32])
    assert read["max"] == {1}
    state = read_torch_archive(folder / "fold_0" / "model_best.model", "state_dict")
    assert all(torch.equal(state[name], tensor) for name, tensor in filled(published_entries("tiny")).items())


def test_the_other_networks_of_the_release(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_v1_folder(tmp_path / "v1", folds=("all",), grn=True, stem_stride=4, in_channels=2, num_classes=3)
    output = tmp_path / "out"
    arguments = ["import-checkpoint", str(folder), "-d", "Dataset007_Two", "-o", str(output), "--file-ending", ".tif"]
    assert main(arguments) == 0
    target = output / "nnUNetTrainerNeurINO_paper_stem4__nnUNetPlans__3d_fullres"
    plans = json.loads((target / "plans.json").read_text())
    assert plans["dataset_name"] == "Dataset007_Two"
    assert plans["image_reader_writer"] == "Tiff3DIO"
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == ["ZScoreNormalization"] * 2
    assert configuration["architecture"]["arch_kwargs"]["strides"] == [[1, 1, 1]] + [[2, 2, 2]] * 5
    dataset = json.loads((target / "dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "class_1": 1, "class_2": 2}
    assert dataset["channel_names"] == {"0": "LM", "1": "LM"}
    saved = torch.load(target / "fold_all" / "checkpoint_final.pth", weights_only=True)
    assert saved["trainer_name"] == "nnUNetTrainerNeurINO_paper_stem4"
    assert saved["imported_from"]["trainer"] == TRAINER
    # A second time only on purpose, and never beside folds of something else.
    assert main(arguments) == 1
    assert main([*arguments, "--overwrite"]) == 0
    (target / "fold_3").mkdir()
    assert main([*arguments, "--overwrite"]) == 1
    assert "holds fold_3, too" in capsys.readouterr().err
    (target / "fold_3").rmdir()
    (target / "plans.json").unlink()  # as an interrupted import leaves it
    assert main(arguments) == 0


@pytest.mark.parametrize(
    ("task", "dataset"), [("Task5_a", "Dataset005_a"), ("Task501_Neurons-v2.1", "Dataset501_Neurons-v2.1")]
)
def test_the_task_names_the_data_set(task: str, dataset: str, tmp_path: Path) -> None:
    assert _dataset_name(tmp_path / "nnUNet" / "3d_fullres" / task / "TRAINER__PLANS") == dataset


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.target),))


def _broken(kind: str, folder: Path, trap: Path) -> None:
    """Spoil a good v1 folder."""
    plans, model = folder / "plans.pkl", folder / "fold_0" / "model_best.model"
    info = folder / "fold_0" / "model_best.model.pkl"
    if kind == "bomb in plans":
        plans.write_bytes(pickle.dumps({**v1_plans(), "x": _Bomb(trap)}))
    elif kind == "bomb in pkl":
        info.write_bytes(pickle.dumps(_Bomb(trap)))
    elif kind == "bomb in model":
        saved = torch.load(model, weights_only=False)
        torch.save({**saved, "plot_stuff": _Bomb(trap)}, model)
    elif kind == "bomb by getattr":
        plans.write_bytes(b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'true'\ntR.")
    elif kind == "memory bomb":
        # LONG_BINPUT at the last index: the C unpickler would make a table of 2**33 places.
        plans.write_bytes(b"\x80\x04}r\xff\xff\xff\xff.")
    elif kind == "array bomb":
        plans.write_bytes(b"cnumpy\nndarray\n((I99999999999\ntt\x81.")
    elif kind == "plans cut":
        plans.write_bytes(plans.read_bytes()[:300])
    elif kind == "model cut":
        model.write_bytes(model.read_bytes()[:100_000])
    elif kind == "no plans":
        plans.unlink()
    elif kind == "no model":
        model.unlink()
    elif kind == "other plans":
        plans.write_bytes(pickle.dumps({"plans_per_stage": {0: {}}}))
    elif kind == "other network":
        torch.save({"state_dict": {"conv.weight": torch.zeros(1)}}, model)
    elif kind == "two channels planned":
        plans.write_bytes(pickle.dumps(v1_plans(channels=2)))


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v1_folder(tmp_path_factory.mktemp("v1"))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("bomb in plans", "nothing was executed"),
        ("bomb in pkl", "nothing was executed"),
        ("bomb in model", "nothing was executed"),
        ("bomb by getattr", "nothing was executed"),
        ("memory bomb", "not plans of nnU-Net v1"),
        ("array bomb", "cut short"),
        ("plans cut", "cut short"),
        ("model cut", "cut short"),
        ("no plans", "no plans.pkl"),
        ("no model", "model_best.model"),
        ("other plans", "not complete plans"),
        ("other network", "not a published NeurINO network"),
        ("two channels planned", "takes 1 channels"),
    ],
)
def test_spoiled_folders_are_refused_in_one_line(
    kind: str, says: str, good_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "Task501_Neurons" / "model"
    (folder / "fold_0").mkdir(parents=True)
    for path in good_folder.rglob("*.*"):
        if path.is_file():
            os.link(path, folder / path.relative_to(good_folder))
    for path in folder.rglob("*.pkl"):  # their own files, not links, are spoiled
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    model = folder / "fold_0" / "model_best.model"
    if "model" in kind or "network" in kind:
        content = model.read_bytes()
        model.unlink()
        model.write_bytes(content)
    _broken(kind, folder, tmp_path / "trap")
    assert main(["import-checkpoint", str(folder), "-o", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert says in message
    assert str(folder) in message
    assert not (tmp_path / "trap").exists()
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("plans.json"))


def test_tensors_that_claim_more_than_is_stored_are_refused(tmp_path: Path) -> None:
    stretched = torch.zeros(1).expand(2**20, 2**20)
    torch.save({"state_dict": {"a": stretched}}, tmp_path / "stretched.model")
    with pytest.raises(NeurinoError, match="claims more"):
        read_torch_archive(tmp_path / "stretched.model", "state_dict")
