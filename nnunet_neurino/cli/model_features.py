"""Feature maps of a trained model, loaded by nnU-Net itself, for ``neurino view --features``."""

from __future__ import annotations

import contextlib
import inspect
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures import encoder_features, feature_figure
from nnunet_neurino.images import read_stack

if TYPE_CHECKING:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from torch import nn

_MOST_VOXELS = 3_000_000  # shown to the encoder, unless its patch is larger


def model_feature_figure(
    model_folder: Path,
    image: Path,
    spacing: tuple[float, float, float] | None = None,
    weights: str | None = None,
    device: str = "cpu",
) -> Figure:
    """Main components of the encoder's features on a patch of ``image``: after training, and with fresh weights.

    Args:
        model_folder: nnU-Net's model folder (the one that holds plans.json), or a fold in it.
        image: a stack with as many channels as the model takes.
        spacing: voxel size z, y, x in micrometres; default is what the file says, else that of the plans.
        weights: 2D weights (see ``neurino weights``): adds a row with them, before any training.
        device: torch's name of the device.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunet_neurino.trainers.families import family_of_network
    from nnunet_neurino.trainers.pretraining import load_into

    folder, fold, checkpoint = find_checkpoint(model_folder)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(device=torch.device(device), verbose=False, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), use_folds=(fold,), checkpoint_name=checkpoint)
        network = _untrained(predictor).to(device)
    family = family_of_network(predictor.configuration_manager.network_arch_class_name)
    if family is not None and not family.encoder_learns:
        raise NeurinoError(
            f"{folder}: the encoder of a {family.title} is a 2D network that was never trained here: there is no "
            "before and after to compare; pictures of features are for models of NeurINO and DINeuro"
        )
    patch, patch_spacing = preprocessed_patch(predictor, image, spacing)
    untrained = {"random weights": encoder_features(network, patch)}
    if weights is not None:
        if family is None:
            raise NeurinoError(f"--weights {weights}: a {type(network).__name__} starts from no 2D weights")
        load_into(network, weights, family, family.settings)
        untrained = {"2D weights, untrained": encoder_features(network, patch), **untrained}
    network.load_state_dict(predictor.list_of_parameters[0])
    rows = {f"trained ({checkpoint})": encoder_features(network, patch), **untrained}
    return feature_figure(patch, rows, patch_spacing, title=folder.name.split("__")[0])


def _untrained(predictor: nnUNetPredictor) -> nn.Module:
    """The model's network with the weights it is made with (the predictor's has the trained ones)."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    plans, configuration, dataset = predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
    build = recursive_find_trainer_class_by_name(predictor.trainer_name).build_network_architecture
    if "plans_manager" not in inspect.signature(build).parameters:
        raise NeurinoError(f"{predictor.trainer_name} builds its network in the way of nnU-Net before 2.7: update it")
    return build(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset),
        plans.get_label_manager(dataset).num_segmentation_heads,
        enable_deep_supervision=False,
    )


def find_checkpoint(folder: Path) -> tuple[Path, str, str]:
    """Model folder, fold and checkpoint file to look into: the best there is of the first fold."""
    folder = folder.resolve()
    if folder.name.startswith("fold_"):
        folds, folder = [folder], folder.parent
    else:
        folds = sorted(folder.glob("fold_*"))
    if not (folder / "plans.json").is_file():
        raise NeurinoError(f"{folder}: expected nnU-Net's model folder, with plans.json and fold_... in it")
    for fold in folds:
        for name in ("checkpoint_final.pth", "checkpoint_best.pth", "checkpoint_latest.pth"):
            if (fold / name).is_file():
                return folder, fold.name.removeprefix("fold_"), name
    raise NeurinoError(f"{folder}: no fold with a checkpoint in it yet: train first")


def preprocessed_patch(
    predictor: nnUNetPredictor, image: Path, spacing: tuple[float, float, float] | None
) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """A preprocessed part (channels, z, y, x) of the image: all of it, or the brightest part of a large one."""
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    stack = read_stack(image, spacing=spacing)
    wanted = len(predictor.dataset_json["channel_names"])
    if len(stack.channels) != wanted:
        raise NeurinoError(f"{image}: has {len(stack.channels)} channels, the model takes {wanted}")
    size = stack.spacing or tuple(float(step) for step in plans.original_median_spacing_after_transp)
    preprocessor = configuration.preprocessor_class(verbose=False)
    voxels, _, _ = preprocessor.run_case_npy(
        np.ascontiguousarray(stack.channels, dtype=np.float32),
        None,
        {"spacing": size},
        plans,
        configuration,
        predictor.dataset_json,
    )
    if len(configuration.patch_size) != 3:
        raise NeurinoError("the model is a 2D one: features are drawn for 3d configurations")
    patch_size = _region(np.array(configuration.patch_size), np.array(voxels.shape[1:]))
    missing = np.maximum(patch_size - voxels.shape[1:], 0)
    voxels = np.pad(voxels, ((0, 0), *((int(m // 2), int(m - m // 2)) for m in missing)))
    mean = uniform_filter(voxels[0], size=np.maximum(patch_size // 2, 1))
    peak = np.array(np.unravel_index(int(np.argmax(mean)), mean.shape))
    start = np.clip(peak - patch_size // 2, 0, np.array(voxels.shape[1:]) - patch_size)
    box = tuple(slice(int(low), int(low + length)) for low, length in zip(start, patch_size, strict=True))
    return voxels[(slice(None), *box)], tuple(float(step) for step in configuration.spacing)


def _region(patch_size: NDArray[np.int64], shape: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole patches, whose size every encoder can halve often enough: as many as the image and the memory hold."""
    count = -(-shape // patch_size)
    while np.prod(count * patch_size) > _MOST_VOXELS and count.max() > 1:
        count[int(np.argmax(count))] -= 1
    return count * patch_size
