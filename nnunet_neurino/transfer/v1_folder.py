"""A model folder of nnU-Net v1, in which the released NeurINO code trains, as nnU-Net v2 wants it.

Pure conversion: what nnU-Net's plans and dataset files say, as dictionaries. Nothing here imports nnU-Net.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.neurino import neurino_levels
from nnunet_neurino.transfer.published import PublishedNetwork, describe_published, from_published
from nnunet_neurino.transfer.safe_pickle import read_pickle, read_torch_archive

CHECKPOINTS = {"best": "model_best.model", "final": "model_final_checkpoint.model"}
READERS = {
    ".nii.gz": "SimpleITKIO",
    ".nrrd": "SimpleITKIO",
    ".mha": "SimpleITKIO",
    ".tif": "Tiff3DIO",
    ".tiff": "Tiff3DIO",
}
PLANS_NAME = "nnUNetPlans"
_NETWORK = "nnunet_neurino.networks.NeurINO"
_RESAMPLING = {"order": 3, "order_z": 0, "force_separate_z": None}


@dataclass(frozen=True)
class V1Model:
    """A model folder of nnU-Net v1."""

    folder: Path  # the one with plans.pkl
    trainer: str  # name of the class that trained it
    configuration: str  # ``3d_fullres`` or ``3d_lowres``
    plans: Mapping[str, Any]  # content of plans.pkl
    folds: dict[str, Path]  # fold (``0`` ... or ``all``) -> its checkpoint


def open_v1_folder(folder: Path, checkpoint: str = "best") -> V1Model:
    """Find plans and checkpoints in a model folder of nnU-Net v1.

    Args:
        folder: ``.../3d_fullres/TaskXXX_NAME/TRAINER__PLANS`` with plans.pkl and fold_0, fold_1, ... or fold_all.
        checkpoint: ``best`` or ``final``; where a fold lacks the one asked for, the other is an error, not a stand-in.
    """
    if not (folder / "plans.pkl").is_file():
        raise NeurinoError(
            f"{folder}: no plans.pkl here; give the folder TRAINER__PLANS of nnU-Net v1, which holds plans.pkl and "
            "fold_0, fold_1, ..."
        )
    file_name = CHECKPOINTS[checkpoint]
    folds = {path.name[5:]: path / file_name for path in sorted(folder.glob("fold_*")) if (path / file_name).is_file()}
    if not folds:
        raise NeurinoError(f"{folder}: no fold_*/{file_name} here; choose with --checkpoint {' or '.join(CHECKPOINTS)}")
    plans = read_pickle(folder / "plans.pkl")
    if not isinstance(plans, Mapping) or "plans_per_stage" not in plans:
        raise NeurinoError(f"{folder / 'plans.pkl'}: not plans of nnU-Net v1")
    info_path = Path(f"{next(iter(folds.values()))}.pkl")
    info = read_pickle(info_path) if info_path.is_file() else {}
    trainer = str(info.get("name", folder.name.split("__")[0])) if isinstance(info, Mapping) else ""
    return V1Model(folder, trainer, _configuration(folder, plans, info), plans, folds)


def _configuration(folder: Path, plans: Mapping[str, Any], info: Any) -> str:
    """From the folder's name, else from the stage that the checkpoint was trained in."""
    named = [part for part in folder.resolve().parts if part in ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")]
    if named:
        if named[-1] not in ("3d_fullres", "3d_lowres"):
            raise NeurinoError(f"{folder}: configuration {named[-1]}; only 3d_fullres and 3d_lowres can be imported")
        return named[-1]
    arguments: Any = info.get("init", ()) if isinstance(info, Mapping) else ()
    stage = arguments[5] if len(arguments) > 5 else None
    last = max(plans["plans_per_stage"])
    return "3d_lowres" if stage is not None and stage != last else "3d_fullres"


@dataclass(frozen=True)
class ImportedNetwork:
    """A network of the released code as ours."""

    description: PublishedNetwork  # the arguments of our network
    state: dict[str, Tensor]  # its state dict


def read_network(checkpoint: Path) -> ImportedNetwork:
    """The network of one fold."""
    published = read_torch_archive(checkpoint, "state_dict")
    try:
        return ImportedNetwork(describe_published(published), from_published(published))
    except NeurinoError as error:
        raise NeurinoError(f"{checkpoint}: {error}") from None


def v2_architecture(network: PublishedNetwork) -> dict[str, Any]:
    """The ``architecture`` block of nnU-Net v2's plans."""
    kwargs = {
        "size": network.size,
        "stem_stride": network.stem_stride,
        "grn": network.grn,
        "norm": network.norm,
        "strides": neurino_levels(None, network.stem_stride).rows,
        "kernel_depth": [3, 3, 3, 3],
        "checkpointing": False,
    }
    return {"network_class_name": _NETWORK, "arch_kwargs": kwargs, "_kw_requires_import": []}


def v2_plans(model: V1Model, network: PublishedNetwork, dataset_name: str, file_ending: str) -> dict[str, Any]:
    """nnU-Net v2's plans.json for a v1 model: the same spacing, patch, normalisation and axes."""
    plans = model.plans
    try:
        stages = plans["plans_per_stage"]
        stage = stages[max(stages) if model.configuration == "3d_fullres" else min(stages)]
        channels = range(int(plans["num_modalities"]))
        median = _plain(stage["median_patient_size_in_voxels"])
        configuration = {
            "data_identifier": f"{PLANS_NAME}_{model.configuration}",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": int(stage["batch_size"]),
            "patch_size": [int(n) for n in stage["patch_size"]],
            "median_image_size_in_voxels": [float(n) for n in median],
            "spacing": [float(s) for s in stage["current_spacing"]],
            "normalization_schemes": [_normalisation(plans["normalization_schemes"][c]) for c in channels],
            "use_mask_for_norm": [bool(plans["use_mask_for_norm"][c]) for c in channels],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"is_seg": False, **_RESAMPLING},
            "resampling_fn_seg_kwargs": {"is_seg": True, **_RESAMPLING, "order": 1},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {"is_seg": False, **_RESAMPLING, "order": 1},
            "architecture": v2_architecture(network),
            "batch_dice": True,
        }
        return {
            "dataset_name": dataset_name,
            "plans_name": PLANS_NAME,
            "original_median_spacing_after_transp": [float(s) for s in stage["original_spacing"]],
            "original_median_shape_after_transp": [int(n) for n in median],
            "image_reader_writer": READERS[file_ending],
            "transpose_forward": [int(axis) for axis in plans["transpose_forward"]],
            "transpose_backward": [int(axis) for axis in plans["transpose_backward"]],
            "configurations": {model.configuration: configuration},
            "experiment_planner_used": "nnU-Net v1, imported by nnunet_neurino",
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": _intensities(plans, len(channels)),
        }
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NeurinoError(
            f"{model.folder / 'plans.pkl'}: not complete plans of nnU-Net v1 ({type(error).__name__}: {error})"
        ) from None


def v2_dataset(model: V1Model, network: PublishedNetwork, file_ending: str) -> dict[str, Any]:
    """nnU-Net v2's dataset.json; v1 keeps no names of labels in a model folder."""
    modalities = model.plans.get("modalities", {})
    labels = {"background": 0} | {f"class_{label}": label for label in range(1, network.num_classes)}
    if network.num_classes == 2:
        labels = {"background": 0, "neuron": 1}
    return {
        "channel_names": {str(c): str(modalities.get(c, f"channel_{c}")) for c in range(network.in_channels)},
        "labels": labels,
        "numTraining": len(_plain(model.plans.get("original_sizes", []))),
        "file_ending": file_ending,
        "overwrite_image_reader_writer": READERS[file_ending],
    }


def checked_alike(networks: Mapping[str, ImportedNetwork], model: V1Model) -> PublishedNetwork:
    """The description that all folds share, and that plans.pkl agrees with."""
    first = next(iter(networks.values()))
    for fold, network in networks.items():
        if network.description != first.description:
            raise NeurinoError(
                f"{model.folder}: fold_{fold} holds another network ({asdict(network.description)}) than the first "
                f"fold ({asdict(first.description)})"
            )
    planned = int(model.plans.get("num_modalities", first.description.in_channels))
    if planned != first.description.in_channels:
        raise NeurinoError(
            f"{model.folder}: the network takes {first.description.in_channels} channels, but plans.pkl says {planned}"
        )
    return first.description


def _normalisation(scheme: Any) -> str:
    """v1's names: CT, CT2 (both from the data set's intensities), noNorm, and anything else by each image itself."""
    if re.fullmatch("ct2?", str(scheme).lower()):
        return "CTNormalization"
    return "NoNormalization" if str(scheme) == "noNorm" else "ZScoreNormalization"


def _intensities(plans: Mapping[str, Any], channels: int) -> dict[str, dict[str, float]]:
    found = plans.get("dataset_properties", {}).get("intensityproperties") or {}
    names = {"mn": "min", "mx": "max", "sd": "std", "mean": "mean", "median": "median"}
    names |= {"percentile_00_5": "percentile_00_5", "percentile_99_5": "percentile_99_5"}
    result = {}
    for channel in range(channels):
        values = {ours: float(found.get(channel, {}).get(theirs, 0.0)) for theirs, ours in names.items()}
        result[str(channel)] = values
    return result


def _plain(value: Any) -> list[Any]:
    return np.asarray(value).tolist() if isinstance(value, np.ndarray) else list(value)
