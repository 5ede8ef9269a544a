"""Pictures of a trained model, loaded by nnU-Net itself, for ``neurino view --features`` and ``--tubes``."""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures import encoder_features, feature_figure
from nnunet_neurino.figures.tubes import brightest_tokens, tube_figure, tube_lines
from nnunet_neurino.images import read_stack

if TYPE_CHECKING:
    from torch import nn

_MOST_VOXELS = 3_000_000  # shown to the encoder, unless its patch is larger
_TOKENS = 6  # whose tubes are shown


def model_feature_figure(
    model_folder: Path, image: Path, spacing: Sequence[float] | None = None, weights: str | None = None
) -> Figure:
    """Main components of the encoder's features on a patch of ``image``: after training, and with fresh weights.

    Args:
        model_folder: nnU-Net's model folder (the one that holds plans.json), or a fold in it.
        image: a stack with as many channels as the model takes.
        spacing: voxel size z, y, x in micrometres; default is what the file says, else that of the plans.
        weights: 2D weights (see ``neurino weights``): adds a row with them, before any training.
    """
    from nnunet_neurino.trainers.families import family_of_network
    from nnunet_neurino.trainers.pretraining import load_into

    model = _Model(model_folder)
    network = model.untrained()
    family = family_of_network(model.predictor.configuration_manager.network_arch_class_name)
    if family is not None and not family.encoder_learns:
        raise NeurinoError(
            f"{model.folder}: the encoder of a {family.title} is a 2D network that was never trained here: there is no "
            "before and after to compare; pictures of features are for models of NeurINO and DINeuro"
        )
    patch = model.patch(image, spacing)
    untrained = {"random weights": encoder_features(network, patch)}
    if weights is not None:
        if family is None:
            raise NeurinoError(f"--weights {weights}: a {type(network).__name__} starts from no 2D weights")
        load_into(network, weights, family, family.settings)
        untrained = {"2D weights, untrained": encoder_features(network, patch), **untrained}
    rows = {f"trained ({model.checkpoint})": encoder_features(model.trained(), patch), **untrained}
    return feature_figure(patch, rows, model.spacing, title=model.trainer)


def model_tube_figure(model_folder: Path, image: Path, spacing: Sequence[float] | None = None) -> Figure:
    """The tubes of the brightest tokens of a DINeuro on a patch of ``image``; arguments as above."""
    model = _Model(model_folder)
    network: Any = model.trained()
    if getattr(getattr(network, "encoder", None), "tubes", None) is None:
        raise NeurinoError(
            f"{model.folder}: the model has no tubes: --tubes is for models of DINeuro trainers with tubes"
        )
    patch = model.patch(image, spacing)
    lines = tube_lines(network, patch)
    tokens = brightest_tokens(patch[0], lines[0].shape[:3], _TOKENS)
    gate = network.encoder.tubes.gate.abs().mean().item()
    title = f"{model.trainer} ({model.checkpoint}): mean |gate| {gate:.3f}"
    return tube_figure(patch, lines, tokens, model.spacing, title)


class _Model:
    """A trained model, opened by nnU-Net on the CPU."""

    def __init__(self, folder: Path) -> None:
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        self.folder, fold, self.checkpoint = find_checkpoint(folder)
        self.predictor = nnUNetPredictor(device=torch.device("cpu"), verbose=False, allow_tqdm=False)
        with contextlib.redirect_stdout(io.StringIO()):
            self.predictor.initialize_from_trained_model_folder(
                str(self.folder), use_folds=(fold,), checkpoint_name=self.checkpoint
            )
        self.trainer = self.folder.name.split("__")[0]
        self.spacing = tuple(float(step) for step in self.predictor.configuration_manager.spacing)

    def trained(self) -> nn.Module:
        network = self.predictor.network
        network.load_state_dict(self.predictor.list_of_parameters[0])
        return network

    def untrained(self) -> nn.Module:
        """Another network, with the weights it is made with."""
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        predictor = self.predictor
        plans, configuration, dataset = predictor.plans_manager, predictor.configuration_manager, predictor.dataset_json
        build = recursive_find_trainer_class_by_name(predictor.trainer_name).build_network_architecture
        if "plans_manager" not in inspect.signature(build).parameters:
            raise NeurinoError(
                f"{predictor.trainer_name} builds its network in the way of nnU-Net before 2.7: update it"
            )
        channels = determine_num_input_channels(plans, configuration, dataset)
        heads = plans.get_label_manager(dataset).num_segmentation_heads
        with contextlib.redirect_stdout(io.StringIO()):
            return build(plans, configuration, channels, heads, enable_deep_supervision=False)

    def patch(self, image: Path, spacing: Sequence[float] | None) -> NDArray[np.float32]:
        """A preprocessed part (channels, z, y, x) of the image: all of it, or the brightest part of a large one."""
        plans, configuration = self.predictor.plans_manager, self.predictor.configuration_manager
        dataset = self.predictor.dataset_json
        stack = read_stack(image, spacing=spacing)
        wanted = len(dataset["channel_names"])
        if len(stack.channels) != wanted:
            raise NeurinoError(f"{image}: has {len(stack.channels)} channels, the model takes {wanted}")
        size = stack.spacing or tuple(float(step) for step in plans.original_median_spacing_after_transp)
        voxels = np.ascontiguousarray(stack.channels, dtype=np.float32)
        preprocessor = configuration.preprocessor_class(verbose=False)
        voxels, _, _ = preprocessor.run_case_npy(voxels, None, {"spacing": size}, plans, configuration, dataset)
        if len(configuration.patch_size) != 3:
            raise NeurinoError("the model is a 2D one: features are drawn for 3d configurations")
        patch_size = _region(np.array(configuration.patch_size), np.array(voxels.shape[1:]))
        missing = np.maximum(patch_size - voxels.shape[1:], 0)
        voxels = np.pad(voxels, ((0, 0), *((int(m // 2), int(m - m // 2)) for m in missing)))
        mean = uniform_filter(voxels[0], size=np.maximum(patch_size // 2, 1))
        peak = np.array(np.unravel_index(int(np.argmax(mean)), mean.shape))
        start = np.clip(peak - patch_size // 2, 0, np.array(voxels.shape[1:]) - patch_size)
        box = tuple(slice(int(low), int(low + length)) for low, length in zip(start, patch_size, strict=True))
        return voxels[(slice(None), *box)]


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


def _region(patch_size: NDArray[np.int64], shape: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole patches, whose size every encoder can halve often enough: as many as the image and the memory hold."""
    count = -(-shape // patch_size)
    while np.prod(count * patch_size) > _MOST_VOXELS and count.max() > 1:
        count[int(np.argmax(count))] -= 1
    return count * patch_size
