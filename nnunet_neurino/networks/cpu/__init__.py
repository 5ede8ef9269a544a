"""Operations that compute what PyTorch's own do, up to rounding, and only make CPUs faster.

On GPUs, in half precision and under ``torch.compile`` they are PyTorch's own.
"""

from nnunet_neurino.networks.cpu.depthwise import DepthwiseConv3d
from nnunet_neurino.networks.cpu.depthwise_transposed import DepthwiseConvTranspose3d
from nnunet_neurino.networks.cpu.halves import Conv3x3x3
from nnunet_neurino.networks.cpu.voxelwise import VoxelMLP, channel_statistics, in_portions, pointwise, voxel_mlp

__all__ = [
    "Conv3x3x3",
    "DepthwiseConv3d",
    "DepthwiseConvTranspose3d",
    "VoxelMLP",
    "channel_statistics",
    "in_portions",
    "pointwise",
    "voxel_mlp",
]
