"""Small layers that the networks share.

Tensors are (N, C, Z, Y, X) with the channels of a voxel side by side in memory (``torch.channels_last_3d``): channel
norms and 1x1x1 convolutions are then plain ``layer_norm`` and ``linear`` calls on a view, without copies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.cpu import channel_statistics, pointwise
from nnunet_neurino.networks.geometry import to_channels_first, to_channels_last
from nnunet_neurino.networks.recompute import is_second_run


def number_of_channels(in_channels: int | None, input_channels: int | None) -> int:
    """Channels of the image, from the two names that a network's argument has; 1 if neither is given."""
    if in_channels is not None and input_channels is not None and in_channels != input_channels:
        raise NeurinoError(f"in_channels={in_channels} and input_channels={input_channels} contradict each other")
    return in_channels or input_channels or 1


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each voxel of a (N, C, Z, Y, X) tensor.

    The channel axis is axis 1, always; it is never guessed from sizes.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, volume: Tensor) -> Tensor:
        return to_channels_first(super().forward(to_channels_last(volume)))


class VoxelBatchNorm(nn.BatchNorm3d):
    """Batch norm with slow running statistics (momentum 0.01), for batches of one or two patches.

    A channel that has a single voxel in the whole batch has no statistics of its own; the running ones are used then
    (PyTorch's own layer raises an error).
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.01) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)

    def forward(self, volume: Tensor) -> Tensor:
        one_voxel = volume.numel() == volume.shape[1]
        if not self.training or not (one_voxel or is_second_run()):
            return super().forward(volume)
        # Momentum zero: the running statistics stay as they are.
        return F.batch_norm(
            volume, self.running_mean, self.running_var, self.weight, self.bias, not one_voxel, 0.0, self.eps
        )

    def statistics(self, volume: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Mean and variance to normalise this volume with, and whether they are its own; the running ones follow it.

        For those who normalise themselves what ``forward`` would normalise.
        """
        assert self.running_mean is not None
        assert self.running_var is not None
        voxels = volume.numel() // volume.shape[1]
        if not self.training or voxels == 1:
            return self.running_mean, self.running_var, False
        mean, variance = channel_statistics(volume)
        if not is_second_run():
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (voxels / (voxels - 1)), self.momentum)
        return mean, variance, True


class PatchNorm(nn.GroupNorm):
    """Each channel of each patch normalised by itself (group norm with one group per channel, as in MedNeXt)."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__(channels, channels, eps=eps)

    def forward(self, volume: Tensor) -> Tensor:
        return torch.group_norm(volume, self.num_groups, self.weight, self.bias, self.eps)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": VoxelBatchNorm,
    "group": PatchNorm,
    "layer": ChannelNorm,
}


def make_norm(name: str, channels: int) -> nn.Module:
    """A norm layer by name: ``batch``, ``group`` or ``layer``."""
    if name not in NORMS:
        raise NeurinoError(f"norm '{name}' is not known: expected one of {', '.join(NORMS)}")
    return NORMS[name](channels)


class Pointwise(nn.Linear):
    """A 1x1x1 convolution of a (N, C, Z, Y, X) tensor, its weight stored as (out, in)."""

    def forward(self, volume: Tensor) -> Tensor:
        return pointwise(volume, self.weight, self.bias)

    @torch.no_grad()
    def start_as_transposed(self) -> None:
        """Draw the values that PyTorch starts a transposed 1x1x1 convolution with.

        It takes the number of output channels for the fan-in: with few of them, values are large.
        """
        bound = self.out_features**-0.5
        self.weight.uniform_(-bound, bound)
        self.bias.uniform_(-bound, bound)

    def without_bias(self, volume: Tensor) -> Tensor:
        """The same without the bias."""
        return pointwise(volume, self.weight)


class Mlp(nn.Module):
    """fc2(gelu(fc1(x))) over the last axis, four times as wide in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class GlobalResponseNorm(nn.Module):
    """Let channels compete: each is scaled by its energy over the patch against the mean energy of all channels.

    Starts as the identity. Woo et al., ConvNeXt V2, 2023.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, volume: Tensor) -> Tensor:
        wide = torch.promote_types(volume.dtype, torch.float32)  # a sum of squares overflows float16
        energy = torch.linalg.vector_norm(volume, dim=(2, 3, 4), keepdim=True, dtype=wide)
        share = energy / (energy.mean(dim=1, keepdim=True) + self.eps)
        shape = (1, -1, 1, 1, 1)
        # weight * (x * share) + bias + x, with one pass over the volume
        scaled = torch.addcmul(self.bias.view(shape), volume, 1 + self.weight.view(shape) * share)
        return scaled.to(torch.promote_types(volume.dtype, self.weight.dtype))
