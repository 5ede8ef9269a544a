"""Slices of a volume through a 2D ViT as it was pretrained, never changed: (N, y, x) -> tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.networks.vit import PATCH, VisionTransformer, ViTSize

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""ImageNet's, with which DINO and DINOv3 were trained."""

_CLIPPED = 0.005
_SAMPLE = 2**18
_TOKENS_AT_ONCE = 8192


def brightness(volume: Tensor, ends: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Intensities from 0 to 1: clipped to the percentiles 0.5 and 99.5 of each channel of each volume.

    Voxels that are exactly 0 do not count: nnU-Net continues normalised images with zeros, and masks with them. Of
    large volumes the percentiles are those of evenly spaced voxels.

    Args:
        volume: (N, C, z, y, x).
        ends: what becomes 0 and 1, from ``brightness_range`` of what the volume is a part of; None: of the volume.
    """
    low, high = brightness_range(volume) if ends is None else ends
    return ((volume - low) / (high - low)).clamp(0, 1)


def brightness_range(volume: Tensor) -> tuple[Tensor, Tensor]:
    """The two percentiles, each (N, C, 1, 1, 1); the high one is above the low one. See ``brightness``."""
    channels = volume.flatten(2).flatten(0, 1)
    step = -(-channels.shape[1] // _SAMPLE)
    while math.gcd(step, math.prod(volume.shape[3:])) > 1:  # else all voxels may lie in one plane, such as x = 0
        step += 1
    ends = []
    for channel in channels:
        sample = channel[::step].float()
        known = sample[(sample != 0) & sample.isfinite()]
        if known.numel() == 0:
            known = sample.new_zeros(1)
        ordered = known.sort().values
        last = len(ordered) - 1
        low, high = ordered[round(_CLIPPED * last)], ordered[round((1 - _CLIPPED) * last)]
        ends.append(torch.stack([low, torch.maximum(high, low + 1e-6 * (1 + low.abs()))]))
    low, high = torch.stack(ends).to(volume.dtype).view(*volume.shape[:2], 2, 1, 1, 1).unbind(2)
    return low, high


class PatchEmbed(nn.Module):
    """Images (N, 3, y, x) -> tokens (N, y / 16, x / 16, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).permute(0, 2, 3, 1)


class SliceEncoder(VisionTransformer):
    """A frozen 2D ViT on single slices. It has no gradient, is always in evaluation mode, and sees grey as RGB.

    Its state dict has timm's names and shapes: 2D weights are loaded as they are.

    Args:
        size: of the ViT.
        layers: which blocks' tokens to give, from 0, rising, the last one among them; they are concatenated.
        magnify: slices are enlarged by this first, so that a token stands for 16 / magnify voxels.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: ViTSize, layers: Sequence[int], magnify: int = 2) -> None:
        super().__init__(size, layers, PatchEmbed(size.width))
        self.magnify = magnify
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        super().train(False)

    @property
    def width(self) -> int:
        """Channels of a token, all layers together."""
        return len(self.layers) * self.size.width

    def train(self, mode: bool = True) -> SliceEncoder:
        """Nothing: a frozen network stays in evaluation mode."""
        return self

    @torch.no_grad()
    def forward(self, slices: Tensor) -> Tensor:
        """(N, y, x) grey slices, 0 to 1, of sides that are whole tokens -> (N, width, y', x')."""
        cell = PATCH // self.magnify
        tokens = max(1, (slices.shape[1] // cell) * (slices.shape[2] // cell))
        return torch.cat([self.with_gradient(some) for some in slices.split(max(1, _TOKENS_AT_ONCE // tokens))])

    def with_gradient(self, slices: Tensor) -> Tensor:
        """What ``forward`` gives, all at once and recorded, for those who do train the encoder."""
        images = slices[:, None]
        if self.magnify != 1:
            images = F.interpolate(images, scale_factor=self.magnify, mode="bilinear", align_corners=False)
        images = (images.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        return torch.cat(self.transformed(self.patch_embed(images)), dim=-1).permute(0, 3, 1, 2)
