"""Model folders as nnU-Net v1 writes them, with the network that the released NeurINO code trains."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from published_fixture import filled, published_entries

TRAINER = "NeurINO_CenterInfla_SGL_T_kernel3"


def v1_plans(channels: int = 1, patch: tuple[int, int, int] = (32, 32, 32)) -> dict[str, Any]:
    """plans.pkl: numpy arrays and numpy scalars in the places where v1's planner leaves them."""
    stage = {
        "batch_size": 2,
        "num_pool_per_axis": [5, 5, 5],
        "patch_size": np.array(patch),
        "median_patient_size_in_voxels": np.array([40, 96, 100]),
        "current_spacing": np.array([1.0, 1.0, 1.0]),
        "original_spacing": np.array([1.0, 1.0, 1.0]),
        "do_dummy_2D_data_aug": np.bool_(False),
        "pool_op_kernel_sizes": [[2, 2, 2]] * 5,
        "conv_kernel_sizes": [[3, 3, 3]] * 6,
    }
    intensities = OrderedDict(
        (
            channel,
            {
                "local_props": OrderedDict(case_0={"mean": np.float64(3.5)}),
                "median": np.float32(100.0),
                "mean": np.float32(110.0),
                "sd": np.float32(35.0),
                "mn": np.float32(0.0),
                "mx": np.float32(255.0),
                "percentile_99_5": np.float64(250.0),
                "percentile_00_5": np.float64(2.0),
            },
        )
        for channel in range(channels)
    )
    return {
        "num_stages": 1,
        "num_modalities": channels,
        "modalities": dict.fromkeys(range(channels), "LM"),
        "normalization_schemes": OrderedDict((channel, "nonCT") for channel in range(channels)),
        "dataset_properties": {"intensityproperties": intensities, "all_classes": [1]},
        "original_spacings": [np.array([1.0, 1.0, 1.0])] * 3,
        "original_sizes": [np.array([40, 96, 100])] * 3,
        "num_classes": 1,
        "all_classes": [1],
        "use_mask_for_norm": OrderedDict((channel, False) for channel in range(channels)),
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "data_identifier": "nnUNetData_plans_v2.1_trgSp_1x1x1",
        "plans_per_stage": {0: stage},
        "preprocessor_name": "GenericPreprocessor",
        "min_size_per_class": None,
        "max": {np.int64(1)},
    }


def write_v1_folder(folder: Path, folds: tuple[str, ...] = ("0",), protocol: int = 4, **network: Any) -> Path:
    """A model folder below ``folder``; returns the one with plans.pkl."""
    task = folder / "nnUNet" / "3d_fullres" / "Task501_Neurons"
    model = task / f"{TRAINER}__nnUNetPlansv2.1_trgSp_1x1x1"
    plans = v1_plans(network.get("in_channels", 1))
    model.mkdir(parents=True)
    (model / "plans.pkl").write_bytes(pickle.dumps(plans, protocol))
    state = OrderedDict(filled(published_entries(**{"size": "tiny", **network})))
    for fold in folds:
        inside = model / f"fold_{fold}"
        inside.mkdir()
        saved = {
            "epoch": 110,
            "state_dict": state,
            "optimizer_state_dict": {
                "state": {0: {"exp_avg": torch.zeros(3)}},
                "param_groups": [{"lr": np.float64(1e-3)}],
            },
            "lr_scheduler_state_dict": None,
            "plot_stuff": ([np.float64(0.5)], [np.float32(0.4)], [], [np.mean([0.5, 0.6])]),
            "best_stuff": (None, np.float64(0.4), np.float64(0.55)),
            "amp_grad_scaler": {"scale": 65536.0},
        }
        torch.save(saved, inside / "model_best.model", pickle_protocol=max(2, min(protocol, 4)))
        info = OrderedDict(
            init=(str(model / "plans.pkl"), fold, str(model), str(task), True, 0, True, False, True),
            name=TRAINER,
            plans=plans,
        )
        info["class"] = f"<class '{TRAINER}'>"
        (inside / "model_best.model.pkl").write_bytes(pickle.dumps(info, protocol))
    return model
