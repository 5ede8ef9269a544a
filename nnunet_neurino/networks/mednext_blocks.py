"""Blocks of MedNeXt (Roy et al., 2023): the decoder of NeurINO and the whole of the MedNeXt baseline.

A block is x + project(grn(gelu(expand(norm(depthwise(x)))))). Its ``up`` and ``down`` forms change the resolution with
the depthwise convolution and take the same way round it with a 1x1x1 convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.networks.cpu import (
    DepthwiseConv3d,
    DepthwiseConvTranspose3d,
    VoxelMLP,
    in_portions,
    pointwise,
    voxel_mlp,
)
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.networks.layers import GlobalResponseNorm, Pointwise, VoxelBatchNorm, make_norm

KERNEL: Triple = (3, 3, 3)


class _Mixer(nn.Module):
    """Everything of a block after its depthwise convolution."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, norm: str, grn: bool) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.norm = make_norm(norm, in_channels)
        self.expand = Pointwise(in_channels, hidden)
        self.grn = GlobalResponseNorm(hidden) if grn else None
        self.project = Pointwise(hidden, out_channels)

    def mix(self, volume: Tensor, residual: Tensor | None = None, more_bias: Tensor | None = None) -> Tensor:
        """The mixed volume, plus ``residual``; ``more_bias`` (out_channels) is added to every voxel."""
        bias = self.project.bias if more_bias is None else self.project.bias + more_bias
        mlp = VoxelMLP(self.expand.weight, self.expand.bias, self.project.weight, bias)
        norm = self.norm
        if self.grn is None and type(norm) is VoxelBatchNorm and in_portions(volume, mlp):
            mean, variance, of_batch = norm.statistics(volume)
            mlp = mlp._replace(norm_weight=norm.weight, norm_bias=norm.bias, mean=mean, variance=variance)
            return voxel_mlp(volume, mlp, residual, norm.eps, of_batch)
        volume = norm(volume)
        if self.grn is None:
            return voxel_mlp(volume, mlp, residual)
        volume = self.grn(F.gelu(self.expand(volume)))
        mixed = pointwise(volume, mlp.project_weight, mlp.project_bias)
        return mixed if residual is None else residual + mixed


class MedNeXtBlock(_Mixer):
    """A residual block that keeps resolution and channels."""

    def __init__(self, channels: int, expansion: int, norm: str, grn: bool) -> None:
        super().__init__(channels, channels, expansion, norm, grn)
        self.depthwise = DepthwiseConv3d(channels, KERNEL)

    def forward(self, volume: Tensor) -> Tensor:
        return self.mix(self.depthwise(volume), volume)


class MedNeXtDownBlock(_Mixer):
    """A block that halves the axes of ``stride`` and changes the number of channels."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: Triple, expansion: int, norm: str, grn: bool
    ) -> None:
        super().__init__(in_channels, out_channels, expansion, norm, grn)
        self.depthwise = DepthwiseConv3d(in_channels, KERNEL, stride)
        self.shortcut = Pointwise(in_channels, out_channels)
        self.stride = stride

    def forward(self, volume: Tensor) -> Tensor:
        z, y, x = self.stride
        return self.mix(self.depthwise(volume), self.shortcut(volume[:, :, ::z, ::y, ::x]))


class MedNeXtUpBlock(_Mixer):
    """A block that doubles the axes of ``stride`` and changes the number of channels.

    Along a doubled axis the transposed convolution gives 2n - 1 voxels, which become the voxels 1 to 2n - 1 of the
    result; voxel 0 is zero.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: Triple, expansion: int, norm: str, grn: bool
    ) -> None:
        super().__init__(in_channels, out_channels, expansion, norm, grn)
        self.depthwise = DepthwiseConvTranspose3d(in_channels, KERNEL, stride, (1, 1, 1))
        self.shortcut = Pointwise(in_channels, out_channels)
        self.stride = stride

    def forward(self, volume: Tensor) -> Tensor:
        first = [stride - 1 for stride in self.stride]
        # The shortcut is a 1x1x1 transposed convolution with a stride: its bias reaches all voxels, its weight some.
        mixed = self.mix(self.depthwise(volume), more_bias=self.shortcut.bias)
        result = F.pad(mixed, (first[2], 0, first[1], 0, first[0], 0))
        z, y, x = (slice(offset, None, stride) for offset, stride in zip(first, self.stride, strict=True))
        result[:, :, z, y, x] += self.shortcut.without_bias(volume)
        return result
