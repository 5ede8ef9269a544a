"""From the tokens of a slice-wise ViT to logits of every voxel: two decoders with the same interface.

``PyramidDecoder`` (ours) gives every layer of the ViT a scale of its own and adds the image itself at full resolution:
a token stands for 16 x 16 pixels, a neurite is two or three wide. ``UPerNetDecoder`` is what TransSeg, the base of
DINeuro, decodes with: it ends at a quarter of the tokens' resolution times sixteen and enlarges from there.

Both take the features of the ViT's layers, early ones first, each (N, C, Z, y, x), and the image (N, C, Z, Y, X) they
were made of, and return logits, full resolution first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.decoder import DecoderPlan, MedNeXtDecoder
from nnunet_neurino.networks.geometry import Levels, Triple, channels_last_memory
from nnunet_neurino.networks.layers import Pointwise, make_norm
from nnunet_neurino.networks.mednext_blocks import MedNeXtBlock
from nnunet_neurino.networks.vit import PATCH

IN_PLANE: Triple = (1, 2, 2)


def pyramid_levels(magnify: float) -> Levels:
    """In-plane halvings from full resolution down to the tokens, every level but the last with a head."""
    steps = {1: 4, 2: 3, 4: 2}.get(int(magnify)) if magnify == int(magnify) else None
    if steps is None:
        raise NeurinoError(f"magnify {magnify}: the pyramid decoder takes 1, 2 or 4 (upernet takes any from 1 on)")
    return Levels((IN_PLANE,) * steps, n_heads=steps)


class _Unpatch(nn.Module):
    """Tokens -> a finer grid: each token becomes ``factor`` x ``factor`` voxels of its slice."""

    def __init__(self, in_channels: int, out_channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(in_channels, out_channels * factor * factor)

    def forward(self, tokens: Tensor) -> Tensor:
        n, _, z, y, x = tokens.shape
        k = self.factor
        cells = self.linear(tokens.permute(0, 2, 3, 4, 1)).view(n, z, y, x, k, k, -1)
        # The channels stay last in memory.
        return cells.permute(0, 1, 2, 4, 3, 5, 6).reshape(n, z, y * k, x * k, -1).permute(0, 4, 1, 2, 3)


class _Detail(nn.Module):
    """The image at full resolution as features: what patches of 16 x 16 pixels blur."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1)
        self.norm = make_norm(norm, out_channels)
        self.block = MedNeXtBlock(out_channels, 2, norm, grn=False)

    def forward(self, image: Tensor) -> Tensor:
        return self.block(F.gelu(self.norm(self.conv(channels_last_memory(image)))))


class PyramidDecoder(MedNeXtDecoder):
    """MedNeXt's decoder on a pyramid: coarse scales from the ViT's late layers, fine ones from early ones.

    Its kernels of three voxels also look at the slices beside.

    Args:
        channels: of the image.
        token_width: channels of the ViT.
        n_layers: layers of the ViT that come in.
        levels: from ``pyramid_levels``.
        width: channels at full resolution, doubled from level to level up to eight times as many.
    """

    def __init__(
        self,
        channels: int,
        token_width: int,
        n_layers: int,
        levels: Levels,
        num_classes: int,
        width: int = 32,
        norm: str = "group",
        deep_supervision: bool = True,
        checkpointing: bool = False,
    ) -> None:
        n_steps = len(levels.steps)
        widths = tuple(width * min(2**level, 8) for level in range(n_steps + 1))
        plan = DecoderPlan(widths, (1,) * (n_steps + 1), (2,) * (n_steps + 1), norm=norm)
        super().__init__(plan, levels, num_classes, deep_supervision, checkpointing)
        # Where there are fewer scales than layers, the finest gets the early layers together.
        self.first_layers = n_layers - n_steps + 1
        self.unpatch = nn.ModuleList(
            _Unpatch(token_width * (self.first_layers if level == 1 else 1), widths[level], 2 ** (n_steps - level))
            for level in range(1, n_steps + 1)
        )
        self.detail = _Detail(channels, widths[0], norm)

    def forward(self, features: Sequence[Tensor], image: Tensor) -> list[Tensor]:  # type: ignore[override]
        """See the module."""
        by_level = [torch.cat(list(features[: self.first_layers]), dim=1), *features[self.first_layers :]]
        pyramid = [unpatch(tokens) for unpatch, tokens in zip(self.unpatch, by_level, strict=True)]
        return super().forward([self.detail(image), *pyramid])


def upernet_levels() -> Levels:
    """Full resolution, and a quarter in plane, each with a head."""
    return Levels(((1, 4, 4),), n_heads=2)


def _conv(in_channels: int, out_channels: int, norm: str, size: int = 3) -> nn.Sequential:
    """Convolution within slices, norm, ReLU."""
    conv = nn.Conv3d(in_channels, out_channels, (1, size, size), padding=(0, size // 2, size // 2), bias=False)
    return nn.Sequential(conv, make_norm(norm, out_channels), nn.ReLU())


def _resized(volume: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(volume.shape[2:]) == tuple(size):
        return volume
    return F.interpolate(volume, size=tuple(size), mode="trilinear", align_corners=False)


def _cut(volume: Tensor, plane: Sequence[int]) -> Tensor:
    """The first voxels of each slice, as many as ``plane`` (y, x) says."""
    y, x = plane
    return volume[..., :y, :x].contiguous()


class UPerNetDecoder(nn.Module):
    """Pyramid pooling and a feature pyramid within each slice (Xiao et al., 2018), on tokens scaled by 4, 2, 1, 1/2.

    Args:
        token_width: channels of the ViT.
        n_layers: layers of the ViT that come in; four.
        magnify: how many times larger the ViT has seen the image; a token stands for 16 / magnify voxels.
        deep_supervision: True returns both heads' logits, False only the full-resolution ones. nnU-Net sets it, too.
    """

    POOLS = (1, 2, 3, 6)

    def __init__(
        self,
        token_width: int,
        n_layers: int,
        num_classes: int,
        width: int = 256,
        norm: str = "group",
        deep_supervision: bool = True,
        magnify: float = 1.0,
    ) -> None:
        super().__init__()
        if n_layers != 4:
            raise NeurinoError(f"decoder upernet takes four layers of the ViT, not {n_layers}")
        self.deep_supervision = deep_supervision
        self.magnify = magnify
        self.scale4 = nn.Sequential(
            nn.ConvTranspose3d(token_width, token_width, IN_PLANE, IN_PLANE),
            make_norm(norm, token_width),
            nn.GELU(),
            nn.ConvTranspose3d(token_width, token_width, IN_PLANE, IN_PLANE),
        )
        self.scale2 = nn.ConvTranspose3d(token_width, token_width, IN_PLANE, IN_PLANE)
        self.pooled = nn.ModuleList(_conv(token_width, width, norm, 1) for _ in self.POOLS)
        self.bottom = _conv(token_width + len(self.POOLS) * width, width, norm)
        self.laterals = nn.ModuleList(_conv(token_width, width, norm, 1) for _ in range(3))
        self.smooth = nn.ModuleList(_conv(width, width, norm) for _ in range(3))
        self.fuse = _conv(4 * width, width, norm)
        self.dropout = nn.Dropout3d(0.1)
        self.seg_layers = nn.ModuleList(Pointwise(width, num_classes) for _ in range(2))
        if not deep_supervision:
            self.seg_layers[1:].requires_grad_(False)

    def forward(self, features: Sequence[Tensor], image: Tensor) -> list[Tensor]:
        """See the module."""
        first, second, third, fourth = features
        slices = fourth.shape[2]
        last = F.max_pool3d(fourth, IN_PLANE, IN_PLANE, ceil_mode=True)
        pools = [
            _resized(conv(F.adaptive_avg_pool3d(last, (slices, bins, bins))), last.shape[2:])
            for bins, conv in zip(self.POOLS, self.pooled, strict=True)
        ]
        volumes = [self.bottom(torch.cat([last, *pools], dim=1))]
        for volume, lateral in zip(
            (third, self.scale2(second), self.scale4(first)), reversed(self.laterals), strict=True
        ):
            side = lateral(volume)
            volumes.insert(0, side + _resized(volumes[0], side.shape[2:]))
        fine = volumes[0].shape[2:]
        smooth = [conv(volume) for conv, volume in zip(self.smooth, volumes[:3], strict=True)]
        fused = self.fuse(torch.cat([_resized(volume, fine) for volume in [*smooth, volumes[3]]], dim=1))
        logits = self.seg_layers[0](self.dropout(fused))
        # The last tokens may stand for more than there is of the image; what is beyond it is cut off again.
        covered = [
            max(size, round(n * PATCH / self.magnify))
            for n, size in zip(fourth.shape[3:], image.shape[3:], strict=True)
        ]
        outputs = [_cut(_resized(logits, (slices, *covered)), image.shape[3:])]
        if self.deep_supervision:
            coarse = _resized(self.seg_layers[1](smooth[0]), (slices, *(-(-n // 4) for n in covered)))
            outputs.append(_cut(coarse, [-(-n // 4) for n in image.shape[3:]]))
        return outputs
