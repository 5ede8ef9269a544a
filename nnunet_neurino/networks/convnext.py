"""ConvNeXt in three dimensions: the encoder whose 2D twin carries the DINOv3 weights.

Every layer is that of the 2D network (Liu et al., A ConvNet for the 2020s, 2022) with one more kernel axis, the depth,
and has the name that timm's ConvNeXt gives it. With the weights that ``nnunet_neurino.transfer.inflate`` makes, it
computes on a volume of identical slices what the 2D network computes on one slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.cpu import DepthwiseConv3d, VoxelMLP, voxel_mlp
from nnunet_neurino.networks.geometry import Triple, channels_last_memory
from nnunet_neurino.networks.layers import ChannelNorm, Mlp
from nnunet_neurino.networks.old_names import read_old_names
from nnunet_neurino.networks.recompute import run

BLOCK_KERNEL = 7
"""Taps along the two in-plane axes of a block's depthwise kernel."""

STEM_KERNEL = 4
"""Taps along each axis of the stem's kernel."""


@dataclass(frozen=True)
class ConvNeXtSize:
    """Blocks and channels of the four stages of a ConvNeXt."""

    depths: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]


SIZES = {
    # Not published for DINOv3: for trials on a CPU, with ConvNeXt's own atto widths.
    "atto": ConvNeXtSize((2, 2, 6, 2), (40, 80, 160, 320)),
    "tiny": ConvNeXtSize((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ConvNeXtSize((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ConvNeXtSize((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ConvNeXtSize((3, 3, 27, 3), (192, 384, 768, 1536)),
}


def size_by_name(name: str) -> ConvNeXtSize:
    """The size called ``atto``, ``tiny``, ``small``, ``base`` or ``large``."""
    if name not in SIZES:
        raise NeurinoError(f"network size '{name}' is not known: expected one of {', '.join(SIZES)}")
    return SIZES[name]


@dataclass(frozen=True)
class EncoderGeometry:
    """Strides and kernels of the encoder's layers, each (z, y, x)."""

    strides: tuple[Triple, Triple, Triple, Triple] = ((2, 2, 2),) * 4  # of the stem and the three downsampling layers
    # taps along the depth axis of the depthwise kernels of each of the four stages; odd
    kernel_depths: tuple[int, int, int, int] = (3, 3, 3, 3)
    depth_axis: int = 0  # the axis that the 2D network does not have: 0 (z), 1 (y) or 2 (x)

    def __post_init__(self) -> None:
        if self.depth_axis not in (0, 1, 2):
            raise NeurinoError(f"depth axis {self.depth_axis}: expected 0 (z), 1 (y) or 2 (x)")
        if len(self.kernel_depths) != 4 or any(k < 1 or k % 2 == 0 for k in self.kernel_depths):
            raise NeurinoError(f"kernel depths {self.kernel_depths}: expected four odd numbers, one for each stage")
        for stride, allowed in zip(self.strides, ((1, 2, 4), (1, 2), (1, 2), (1, 2)), strict=True):
            if any(s not in allowed for s in stride):
                raise NeurinoError(f"encoder strides {self.strides}: {stride} is not made of {allowed}")

    def down_kernel(self, stage: int) -> Triple:
        """Kernel of the layer that leads into ``stage`` (0 is the stem): one tap along an axis that keeps its size."""
        taps = STEM_KERNEL if stage == 0 else 2
        z, y, x = (1 if stride == 1 else taps for stride in self.strides[stage])
        return z, y, x

    def down_padding(self, stage: int) -> Triple:
        """Zeros added at both ends of each axis by the layer that leads into ``stage``."""
        kernel, stride = self.down_kernel(stage), self.strides[stage]
        z, y, x = ((k - s) // 2 for k, s in zip(kernel, stride, strict=True))
        return z, y, x

    def block_kernel(self, stage: int) -> Triple:
        """Depthwise kernel of the blocks of ``stage``."""
        kernel = [BLOCK_KERNEL] * 3
        kernel[self.depth_axis] = self.kernel_depths[stage]
        return kernel[0], kernel[1], kernel[2]


class ConvNeXtBlock3d(nn.Module):
    """x + gamma * fc2(gelu(fc1(norm(conv_dw(x))))), with four times the channels in between."""

    def __init__(self, channels: int, kernel: Triple) -> None:
        super().__init__()
        self.conv_dw = DepthwiseConv3d(channels, kernel)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = Mlp(channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, volume: Tensor) -> Tensor:
        fc1, fc2 = self.mlp.fc1, self.mlp.fc2
        # Scaling the small weight instead of the volume: the same result, one volume less to compute and to keep.
        scaled = self.gamma[:, None] * fc2.weight, self.gamma * fc2.bias
        mlp = VoxelMLP(fc1.weight, fc1.bias, *scaled, self.norm.weight, self.norm.bias)
        return voxel_mlp(self.conv_dw(volume), mlp, volume, self.norm.eps)


class Stage(nn.Module):
    """Downsampling (none after the stem) and the blocks of one resolution."""

    def __init__(self, downsample: nn.Module, blocks: list[ConvNeXtBlock3d]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, volume: Tensor, checkpointing: bool) -> Tensor:
        volume = channels_last_memory(self.downsample(volume))
        for block in self.blocks:
            volume = run(block, volume, checkpointing)
        return volume


class ConvNeXt3d(nn.Module):
    """The encoder: an image (N, C, Z, Y, X) -> the outputs of its four stages, finest first.

    Args:
        in_channels: channels of the image.
        size: blocks and channels of the stages.
        geometry: strides and kernels.
        checkpointing: keep only the blocks' inputs during training and compute the rest again in the backward pass.
    """

    def __init__(
        self, in_channels: int, size: ConvNeXtSize, geometry: EncoderGeometry | None = None, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.geometry = geometry = geometry or EncoderGeometry()
        self.checkpointing = checkpointing
        self.stem = nn.Sequential(
            nn.Conv3d(
                in_channels,
                size.widths[0],
                geometry.down_kernel(0),
                stride=geometry.strides[0],
                padding=geometry.down_padding(0),
            ),
            ChannelNorm(size.widths[0]),
        )
        self.stages = nn.ModuleList()
        for stage, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True)):
            downsample = self._downsample(size.widths[stage - 1], width, stage) if stage else nn.Identity()
            kernel = geometry.block_kernel(stage)
            self.stages.append(Stage(downsample, [ConvNeXtBlock3d(width, kernel) for _ in range(depth)]))
        self.apply(_start_values)
        read_old_names(self)

    def _downsample(self, in_channels: int, out_channels: int, stage: int) -> nn.Sequential:
        conv = nn.Conv3d(
            in_channels, out_channels, self.geometry.down_kernel(stage), stride=self.geometry.strides[stage]
        )
        return nn.Sequential(ChannelNorm(in_channels), conv)

    def forward(self, image: Tensor) -> list[Tensor]:
        features = []
        volume = self.stem(image)
        for stage in self.stages:
            volume = stage(volume, self.checkpointing)
            features.append(volume)
        return features

    def parameter_blocks(self) -> Iterator[list[nn.Parameter]]:
        """The parameters of each layer, from the image on, for learning rates that fall towards the image."""
        yield [*self.stem.parameters()]
        stage: Any
        for number, stage in enumerate(self.stages):
            assert isinstance(stage, Stage)
            if number:
                yield [*stage.downsample.parameters()]
            for block in stage.blocks:
                yield [*block.parameters()]


def _start_values(module: nn.Module) -> None:
    """Truncated normal weights and zero biases, as ConvNeXt starts."""
    if isinstance(module, (nn.Conv3d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
