"""DINeuro's tubes: the bent lines along which an embedding takes its samples, over the image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures.colours import ON_BLACK
from nnunet_neurino.figures.projections import DIM, Panel, View, contrast, paint_grey, panels_figure

if TYPE_CHECKING:
    from torch import nn

AXIS_NAMES = ("z", "y", "x")


def tube_lines(network: nn.Module, patch: NDArray) -> list[NDArray[np.float32]]:
    """Where the taps of every token's tubes are, for the tubes along z, y and x.

    Args:
        network: a ``DINeuro`` with tubes. It is left in the mode and on the device it is on.
        patch: preprocessed voxels (channels, z, y, x).

    Returns:
        three arrays (z, y, x, taps, 3): a line for each token of the grid (z, y, x); its points are z, y, x in voxels
        of ``patch``.
    """
    import torch

    encoder = getattr(network, "encoder", None)
    tubes = getattr(encoder, "tubes", None)
    if encoder is None or tubes is None:
        raise NeurinoError(f"{type(network).__name__} has no tubes: choose a model of a DINeuro trainer with tubes")
    weight = next(network.parameters())
    batch = torch.as_tensor(np.ascontiguousarray(patch), dtype=weight.dtype, device=weight.device)[None]
    with torch.no_grad():
        image = encoder.magnified(batch)
        # Middle to middle: voxel v of the patch is (v + 1/2) * magnify - 1/2 of what the ViT sees.
        scale = torch.tensor([1.0, encoder.magnify, encoder.magnify], device=weight.device)
        lines = [(view.lines(image)[0] + 0.5) / scale - 0.5 for view in tubes.views]
    return [line.float().cpu().numpy() for line in lines]


def brightest_tokens(patch: NDArray, grid: Sequence[int], count: int) -> list[tuple[int, int, int]]:
    """Tokens (z, y, x) of ``grid`` whose cells hold the brightest voxels of a patch (z, y, x), one for each y and x."""
    cells = patch
    for axis, count_along in enumerate(grid):
        edges = np.arange(count_along) * patch.shape[axis] // count_along
        cells = np.maximum.reduceat(cells, edges, axis=axis)
    depth = cells.argmax(axis=0)
    brightest = np.argsort(cells.max(axis=0), axis=None)[::-1][:count]
    return [(int(depth[y, x]), int(y), int(x)) for y, x in zip(*np.unravel_index(brightest, depth.shape), strict=True)]


def tube_figure(
    patch: NDArray,
    lines: Sequence[NDArray],
    tokens: Sequence[tuple[int, int, int]],
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    title: str = "",
) -> Figure:
    """Maximum projections with the tubes of some tokens, a panel for each direction of tubes.

    A tube is drawn where it lies in the patch; a dot is its middle, in the colour of its token.

    Args:
        patch: voxels (z, y, x) or (channels, z, y, x), of which the first channel is shown.
        lines: from ``tube_lines``.
        tokens: which (z, y, x); see ``brightest_tokens``.
        voxel_size: z, y, x.
        title: over everything.
    """
    stack = patch[0] if patch.ndim == 4 else patch
    for token in tokens:
        if any(not 0 <= at < n for at, n in zip(token, lines[0].shape, strict=False)):
            raise NeurinoError(f"token {token} is not in the grid of {lines[0].shape[:3]} tokens (z, y, x)")
    paint = partial(_paint, stack, voxel_size)
    panels = [Panel("Raw image, maximum projection", partial(paint, [], 1.0))]
    for axis, line in enumerate(lines):
        chosen = [line[token] for token in tokens]
        panels.append(Panel(f"Tubes along {AXIS_NAMES[axis]}", partial(paint, chosen, DIM)))
    return panels_figure(panels, stack.shape, voxel_size, title)


def _paint(
    stack: NDArray, voxel_size: Sequence[float], lines: Sequence[NDArray], brightness: float, axes: Axes, view: View
) -> None:
    """The projection and the lines on one view."""
    paint_grey(axes, contrast(view.project(stack)), view, stack.shape, voxel_size, brightness)
    for number, line in enumerate(lines):
        colour = ON_BLACK[number % len(ON_BLACK)]
        outside = np.any((line < -0.5) | (line > np.array(stack.shape) - 0.5), axis=1)
        points = view.flatten(np.where(outside[:, None], np.nan, line), voxel_size)
        axes.plot(points[:, 0], points[:, 1], color=colour, linewidth=1.4)
        middle = points[(len(line) - 1) // 2]
        axes.plot([middle[0]], [middle[1]], "o", color=colour, markersize=4)
