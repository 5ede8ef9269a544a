"""Plans as nnU-Net 2.8 writes them, cut down to what trainers read; benchmarks use them, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def plans(
    patch_size: Sequence[int] = (128, 128, 128),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    strides: Sequence[Sequence[int]] | None = None,
    batch_size: int = 2,
    network: str = "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    median: Sequence[int] | None = None,
    **configurations: dict[str, Any],
) -> dict[str, Any]:
    """Plans with a 3d_fullres configuration and further ones by name; sizes in voxels (z, y, x)."""
    strides = strides or ((1, 1, 1), *[(2, 2, 2)] * 5)
    stages = len(strides)
    arch_kwargs = {
        "n_stages": stages,
        "features_per_stage": [min(320, 8 * 2**stage) for stage in range(stages)],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [list(row) for row in strides],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
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
            "arch_kwargs": arch_kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    if median is not None:
        fullres["median_image_size_in_voxels"] = list(median)
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
