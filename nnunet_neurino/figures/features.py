"""What an encoder sees: the three main components of its features as red, green and blue on a slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures.projections import DPI, TEXT, contrast

if TYPE_CHECKING:
    from torch import nn

_MOST_VOXELS = 20_000  # that the components are computed from


def encoder_features(network: nn.Module, patch: NDArray) -> list[NDArray[np.float32]]:
    """Feature maps (channels, z, y, x) of the network's ``encoder``, finest first.

    Args:
        network: has an attribute ``encoder`` that returns a tensor or a list of them, as nnU-Net's and ours do. It is
            left in the mode and on the device it is on.
        patch: preprocessed voxels (channels, z, y, x).
    """
    import torch

    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise NeurinoError(f"{type(network).__name__} has no encoder to look into: choose a network with one")
    if patch.ndim != 4:
        raise NeurinoError(f"patch of shape {patch.shape}: expected (channels, z, y, x)")
    weight = next(network.parameters())
    batch = torch.as_tensor(np.ascontiguousarray(patch), dtype=weight.dtype, device=weight.device)[None]
    pad = getattr(getattr(network, "levels", None), "pad", None)  # our networks take any size
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            outputs = encoder(pad(batch) if pad else batch)
    finally:
        network.train(was_training)
    maps = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    maps.sort(key=lambda one: -one.shape[-1] * one.shape[-2] * one.shape[-3])
    return [one[0].float().cpu().numpy() for one in maps]


def pca_rgb(features: NDArray) -> NDArray[np.float64]:
    """The three main components of features (channels, z, y, x) as colours (z, y, x, 3) from 0 to 1.

    The components are those of the whole volume, centred; each is stretched between its 1st and 99th percentile and
    turned so that its largest loading is positive. A constant feature map gives middle grey. Fewer than three
    channels leave the remaining colours at one half.
    """
    channels, shape = features.shape[0], features.shape[1:]
    values = features.reshape(channels, -1).T.astype(np.float64)
    values = np.nan_to_num(values - values.mean(axis=0))
    sample = values[:: max(1, len(values) // _MOST_VOXELS)]
    _, loadings = np.linalg.eigh(sample.T @ sample)
    loadings = loadings[:, ::-1][:, :3]
    loadings = loadings * np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])])
    colours = np.full((len(values), 3), 0.5)
    for at, component in enumerate((values @ loadings).T):
        low, high = np.percentile(component, (1, 99))
        if high - low > 1e-12:
            colours[:, at] = np.clip((component - low) / (high - low), 0, 1)
    return colours.reshape(*shape, 3)


def feature_figure(
    patch: NDArray,
    features: Mapping[str, Sequence[NDArray]],
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    title: str = "",
) -> Figure:
    """The brightest slice of the patch beside the main components of each stage's features, a row for each network.

    Args:
        patch: voxels (z, y, x) or (channels, z, y, x), of which the first channel is shown.
        features: for each network by name (``"with DINOv3 weights"``, ``"from scratch"``) its feature maps, as
            ``encoder_features`` gives them.
        spacing: voxel size z, y, x, for the aspect.
        title: over everything.
    """
    stack = patch[0] if patch.ndim == 4 else patch
    slice_index = int(np.argmax(np.percentile(stack.reshape(len(stack), -1), 99, axis=1)))
    height, width = stack.shape[1] * spacing[1], stack.shape[2] * spacing[2]
    extent = (0, width, height, 0)
    columns = 1 + max(len(maps) for maps in features.values())
    inches = len(features) * (10.6 / columns * height / width + 0.42) + (0.4 if title else 0.1)
    figure = Figure(figsize=(10.6, inches), dpi=DPI, layout="constrained", facecolor="white")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, weight="bold")
    grid = figure.subplots(len(features), columns, squeeze=False)
    for row, (name, maps) in zip(grid, features.items(), strict=True):
        row[0].imshow(contrast(stack[slice_index]), cmap="gray", extent=extent)
        row[0].set_title(f"slice {slice_index}", fontsize=TEXT)
        row[0].set_ylabel(name, fontsize=TEXT)
        for axes in row[1 + len(maps) :]:
            axes.axis("off")
        for stage, (axes, one) in enumerate(zip(row[1:], maps, strict=False), start=1):
            # The feature plane that holds the middle of the slice.
            plane = min(int((slice_index + 0.5) * one.shape[1] / len(stack)), one.shape[1] - 1)
            axes.imshow(pca_rgb(one)[plane], extent=extent, interpolation="nearest")
            axes.set_title(f"stage {stage}: {one.shape[0]} channels", fontsize=TEXT)
        for axes in row:
            axes.set_xticks([])
            axes.set_yticks([])
    return figure
