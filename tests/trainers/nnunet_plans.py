"""Plans as nnU-Net 2.8 writes them, cut down to what trainers read."""

from __future__ import annotations

from typing import Any


def plans(
    patch_size: tuple[int, ...] = (128, 128, 128),
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
    strides: tuple[tuple[int, ...], ...] | None = None,
    batch_size: int = 2,
    network: str = "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    **configurations: dict[str, Any],
) -> dict[str, Any]:
    """Plans with a 3d_fullres configuration and further ones by name."""
    strides = strides or ((1, 1, 1), *[(2, 2, 2)] * 5)
    fullres = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch_size,
        "patch_size": list(patch_size),
        "spacing": list(spacing),
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": False,
        "architecture": {
            "network_class_name": network,
            "arch_kwargs": {"n_stages": len(strides), "strides": [list(row) for row in strides]},
            "_kw_requires_import": [],
        },
    }
    return {
        "dataset_name": "Dataset001_Test",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": fullres, **configurations},
    }


DATASET_JSON: dict[str, Any] = {
    "channel_names": {"0": "light"},
    "labels": {"background": 0, "neuron": 1},
    "numTraining": 5,
    "file_ending": ".tif",
}
