"""3d_lowres, then 3d_cascade_fullres, through the commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import torch
from e2e_workplace import ISOTROPIC, Workplace, read_json

pytestmark = pytest.mark.xdist_group("end_to_end")
TRAINER = "nnUNetTrainerNeurINO_demo_NoMirroring"
PLANS = "nnUNetCascadePlans"


def test_low_resolution_then_full(workplace: Workplace) -> None:
    # The generated images are too small for nnU-Net to plan a cascade by itself.
    folder = workplace.preprocessed / ISOTROPIC.name
    plans = read_json(folder / "nnUNetPlans.json") | {"plans_name": PLANS}
    plans["configurations"]["3d_lowres"] = {
        "inherits_from": "3d_fullres",
        "data_identifier": f"{PLANS}_3d_lowres",
        "spacing": [2.0, 2.0, 2.0],
        "patch_size": [16, 32, 32],
        "median_image_size_in_voxels": [16, 32, 32],
        "next_stage": "3d_cascade_fullres",
    }
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    (folder / f"{PLANS}.json").write_text(json.dumps(plans))
    workplace.call("nnUNetv2_preprocess", "-d", "901", "-plans_name", PLANS, "-c", "3d_lowres", "-np", "1")

    common = (
        "-tr",
        TRAINER,
        "-p",
        PLANS,
        "--device",
        "cpu",
        "--epochs",
        "1",
        "--iterations",
        "2",
        "--val-iterations",
        "1",
    )
    # Fold "all" validates every case and so writes what the next stage starts from.
    for stage, patch in (("3d_lowres", "16"), ("3d_cascade_fullres", "32")):
        workplace.call(
            "neurino", "train", "901", stage, "all", *common, "--patch-size", patch, "32", "32",
            *(["--no-val"] if stage == "3d_cascade_fullres" else []), nnUNet_n_proc_DA="0",
        )  # fmt: skip
    model = workplace.results / ISOTROPIC.name / f"{TRAINER}__{PLANS}__3d_cascade_fullres"
    weights = torch.load(model / "fold_all" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert weights["encoder.stem.0.weight"].shape[1] == 2, "the image and the first stage's neuron"

    images = workplace.raw / ISOTROPIC.name / "imagesTs"
    predict = ("-d", "901", "-tr", TRAINER, "-p", PLANS, "-f", "all", "-device", "cpu", "-npp", "0", "-nps", "0")
    first, second = workplace.folder / "first_stage", workplace.folder / "second_stage"
    workplace.call("nnUNetv2_predict", "-i", images, "-o", first, "-c", "3d_lowres", *predict)
    workplace.call(
        "nnUNetv2_predict", "-i", images, "-o", second, "-c", "3d_cascade_fullres",
        "-prev_stage_predictions", first, *predict,
    )  # fmt: skip
    segmentation = tifffile.imread(second / "case05.tif")
    assert segmentation.shape == ISOTROPIC.shape
    assert set(np.unique(segmentation)) <= {0, 1}
