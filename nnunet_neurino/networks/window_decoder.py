"""From the tokens of a window's slices to the logits of its voxels: depth embedding, arm, and a head for the seams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.cpu import Conv3x3x3
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.networks.window_grid import WindowGrid

_GROUPS = 8
_NARROWEST = 16


class DepthEmbedding(nn.Module):
    """Tells a window's slices apart: a learned vector for each place in the window, one for the depth in the volume.

    Both start at zero: the slices then look as the 2D network sees them.
    """

    def __init__(self, slices: int, width: int) -> None:
        super().__init__()
        self.local = nn.Parameter(torch.zeros(width, slices))
        self.across = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tensor, depths: Tensor) -> Tensor:
        """Tokens (N, width, d, y, x) and the depths (d,) of the slices in the volume -> tokens."""
        vectors = self.local + self.across[:, None] * depths.to(self.across)
        return tokens + vectors[:, :, None, None]


class WindowArm(nn.Module):
    """Tokens (N, width, d, y, x) -> logits (N, classes, d, y * cell, x * cell): narrow convolutions, doubled in plane.

    Nothing is shared between windows: norms are over groups of channels within one window.

    Args:
        width: channels of a token.
        num_classes: logits.
        cell: voxels of a side in plane that a token stands for: 4, 8 or 16.
        channels: behind the first layer; halved with each doubling, down to 16.
        dropout: share of the channels left out in front of the last layer while training.
    """

    def __init__(self, width: int, num_classes: int, cell: int, channels: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.cell = cell
        self.reduce = nn.Conv3d(width, channels, 1)
        widths = [channels]
        for _ in range(int(math.log2(cell))):
            widths.append(max(_NARROWEST, widths[-1] // 2))
        self.stages = nn.ModuleList(_stage(wide, narrow) for wide, narrow in pairwise(widths))
        self.dropout = nn.Dropout3d(dropout)
        self.seg_layers = nn.ModuleList([nn.Conv3d(widths[-1], num_classes, 1)])

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.reduce(tokens)
        for number, stage in enumerate(self.stages):
            x = stage(x if number == 0 else _doubled(x))
        # The last doubling comes behind the last layer: the two can change places, and logits are few.
        return _doubled(self.seg_layers[0](self.dropout(x)))


def _stage(wide: int, narrow: int) -> nn.Sequential:
    conv = Conv3x3x3(wide, narrow)
    return nn.Sequential(conv, nn.GroupNorm(math.gcd(_GROUPS, narrow), narrow), nn.GELU())


def _doubled(volume: Tensor) -> Tensor:
    return F.interpolate(volume, scale_factor=(1, 2, 2), mode="trilinear", align_corners=False)


class SeamHead(nn.Module):
    """Two convolutions over the logits of the whole volume, added to them; they start as nothing."""

    def __init__(self, num_classes: int, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv3d(num_classes, channels, 3, padding=1)
        self.last = nn.Conv3d(channels, num_classes, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, logits: Tensor) -> Tensor:
        return logits + self.last(F.gelu(self.first(logits)))


class WindowDecoder(nn.Module):
    """All that is trained.

    Args:
        width: channels of a token, all layers and channels of the image together.
        num_classes: logits.
        window: voxels (z, y, x).
        cell: voxels of a side in plane that a token stands for.
        channels: of the arm.
        dropout: of the arm.
        arms: None for one arm that all windows share; windows (z, y, x) of a volume for an arm at each position.
        dense_head: repair the seams between windows in the whole volume.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        window: Triple,
        cell: int,
        channels: int = 128,
        dropout: float = 0.1,
        arms: Sequence[int] | None = None,
        dense_head: bool = False,
    ) -> None:
        super().__init__()
        self.deep_supervision = False  # nnU-Net sets it; there is one resolution only, so nothing depends on it
        self.positions = None if arms is None else tuple(int(n) for n in arms)
        self.depth_embedding = DepthEmbedding(window[0], width)
        n_arms = 1 if self.positions is None else math.prod(self.positions)
        self.arms = nn.ModuleList(WindowArm(width, num_classes, cell, channels, dropout) for _ in range(n_arms))
        self.head = SeamHead(num_classes) if dense_head else None

    def forward(self, tokens: Tensor, grid: WindowGrid, number: int) -> Tensor:
        """Tokens (N, width, d, y, x) of window ``number`` -> its logits (N, classes, *window), float32 or finer."""
        if self.positions is not None and grid.counts != self.positions:
            raise NeurinoError(
                f"a volume of {grid.shape} voxels has {grid.counts} windows (z, y, x), but the network has an arm for "
                f"each of {self.positions}: give it volumes of that size, or share one arm (per_position off)"
            )
        arm = self.arms[0 if self.positions is None else number]
        logits = arm(self.depth_embedding(tokens, grid.depths(number)))
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def whole(self, logits: Tensor) -> Tensor:
        """What is done with the logits (N, classes, z, y, x) of the whole volume."""
        return logits if self.head is None else self.head(logits)
