"""A plain 3 x 3 x 3 convolution that takes one small volume as a batch of two halves.

PyTorch sends a batch of one to a slow implementation where N * C * z * y is small: two halves, each with a slice of the
other at its edge, take a third of the time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SLOW = 20480


class Conv3x3x3(nn.Conv3d):
    """``nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, volume: Tensor) -> Tensor:
        count, channels, z, y, _ = volume.shape
        if volume.device.type != "cpu" or count > 1 or z < 2 or channels * z * y > _SLOW:
            return super().forward(volume)
        half = -(-z // 2)
        padded = F.pad(volume, (0, 0, 0, 0, 1, 1 + 2 * half - z))
        halves = torch.cat([padded[:, :, : half + 2], padded[:, :, half:]])
        found = F.conv3d(halves, self.weight, padding=(0, 1, 1))
        return torch.cat([found[:1], found[1:]], dim=2)[:, :, :z]
