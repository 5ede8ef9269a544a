"""The tubes of a trained DINeuro over an image, loaded by nnU-Net itself, for ``neurino view --tubes``."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from matplotlib.figure import Figure

from nnunet_neurino.cli.model_features import find_checkpoint, preprocessed_patch
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures.tubes import brightest_tokens, tube_figure, tube_lines


def model_tube_figure(
    model_folder: Path,
    image: Path,
    spacing: tuple[float, float, float] | None = None,
    count: int = 6,
    device: str = "cpu",
) -> Figure:
    """The tubes of the brightest tokens on a patch of ``image``.

    Args:
        model_folder: nnU-Net's model folder of a DINeuro trainer, or a fold in it.
        image: a stack with as many channels as the model takes.
        spacing: voxel size z, y, x in micrometres; default is what the file says, else that of the plans.
        count: how many tokens.
        device: torch's name of the device.
    """
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    folder, fold, checkpoint = find_checkpoint(model_folder)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(device=torch.device(device), verbose=False, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), use_folds=(fold,), checkpoint_name=checkpoint)
    network = predictor.network
    network.load_state_dict(predictor.list_of_parameters[0])
    if getattr(getattr(network, "encoder", None), "tubes", None) is None:
        raise NeurinoError(f"{folder}: the model has no tubes: --tubes is for models of DINeuro trainers with tubes")
    patch, patch_spacing = preprocessed_patch(predictor, image, spacing)
    lines = tube_lines(network, patch)
    tokens = brightest_tokens(patch[0], lines[0].shape[:3], count)
    gate = network.encoder.tubes.gate.abs().mean().item()
    title = f"{folder.name.split('__')[0]} ({checkpoint}): mean |gate| {gate:.3f}"
    return tube_figure(patch, lines, tokens, patch_spacing, title)
