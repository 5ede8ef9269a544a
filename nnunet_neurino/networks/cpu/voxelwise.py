"""The part of a residual block that looks at one voxel at a time, without its hidden activations in memory.

    residual + project(gelu(expand(norm(volume))))

In between are two to eight times as many channels as in the volume. Made for all voxels at once they are most of a
training step's memory, and on a CPU most of its time too: every one of these large tensors is written to fresh memory,
read back and thrown away. On a CPU this module therefore takes the voxels in portions that fit into the cache, keeps
nothing but the input, and makes the hidden channels of a portion again in the backward pass. Its matrix products go
through oneDNN's 1x1 convolution, which is about twice as fast as ``linear`` on some processors and as fast on others.

Values are those of the plain operations (``plain_voxel_mlp``) up to rounding. Those run wherever the portions were not
measured to win: on small volumes, on GPUs, in half precision, under ``torch.compile`` and while a network is traced.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_neurino.networks.cpu import voxel_portions
from nnunet_neurino.networks.cpu.voxel_portions import VoxelMLP

_SMALL = 2**22
"""Hidden values (16 MiB) up to which keeping them costs less than making them again."""

_HAS_ONEDNN = torch.backends.mkldnn.is_available()


def voxel_mlp(
    volume: Tensor, mlp: VoxelMLP, residual: Tensor | None = None, eps: float = 1e-6, of_batch: bool = False
) -> Tensor:
    """Apply a two-layer perceptron with GELU to the channels of every voxel.

    Args:
        volume: (N, C, Z, Y, X), best in ``channels_last_3d`` memory.
        mlp: its parameters.
        residual: (N, O, Z, Y, X), added to the result, or None.
        eps: of the norm.
        of_batch: ``mlp.mean`` and ``mlp.variance`` are those of this volume (see ``channel_statistics``), and gradients
            go through them; False: they are constants.

    Returns:
        (N, O, Z, Y, X) in ``channels_last_3d`` memory.
    """
    if not in_portions(volume, mlp):
        return plain_voxel_mlp(volume, mlp, residual, eps, of_batch)
    if torch.is_grad_enabled():
        return _Portions.apply(volume, residual, eps, of_batch, *mlp)
    added = None if residual is None else _rows(residual)
    return _volume_like(voxel_portions.forward(_rows(volume), added, eps, mlp), volume)


def plain_voxel_mlp(
    volume: Tensor, mlp: VoxelMLP, residual: Tensor | None = None, eps: float = 1e-6, of_batch: bool = False
) -> Tensor:
    """The same in PyTorch's own operations, all voxels at once."""
    if mlp.mean is not None:
        mean, variance = (None, None) if of_batch else (mlp.mean, mlp.variance)
        volume = F.batch_norm(volume, mean, variance, mlp.norm_weight, mlp.norm_bias, of_batch, 0.0, eps)
    elif mlp.norm_weight is not None:
        rows = volume.permute(0, 2, 3, 4, 1)
        volume = F.layer_norm(rows, rows.shape[-1:], mlp.norm_weight, mlp.norm_bias, eps).permute(0, 4, 1, 2, 3)
    hidden = F.gelu(pointwise(volume, mlp.expand_weight, mlp.expand_bias))
    result = pointwise(hidden, mlp.project_weight, mlp.project_bias)
    return result if residual is None else residual + result


@torch.no_grad()
def channel_statistics(volume: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of (N, C, Z, Y, X), without a gradient."""
    return voxel_portions.statistics(_rows(volume))


def pointwise(volume: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1x1 convolution of (N, C, Z, Y, X) with a (O, C) weight, by the faster of PyTorch's two ways."""
    if _suits_convolution(volume, weight) and not torch.jit.is_tracing():
        return _volume_like(voxel_portions.linear(_rows(volume), weight, bias), volume)
    return F.linear(volume.permute(0, 2, 3, 4, 1), weight, bias).permute(0, 4, 1, 2, 3)


def _suits_convolution(volume: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's 1x1 convolution was measured to beat ``linear``: not with few channels or very few voxels."""
    return (
        volume.dtype == weight.dtype == torch.float32
        and min(weight.shape) >= 16
        and volume.numel() >= 256 * volume.shape[1]
        and _on_onednn(volume)
    )


def _on_onednn(volume: Tensor) -> bool:
    return volume.device.type == "cpu" and _HAS_ONEDNN and not torch.is_autocast_enabled("cpu")


def in_portions(volume: Tensor, mlp: VoxelMLP) -> bool:
    """Whether ``voxel_mlp`` takes the voxels in portions."""
    return (
        not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and volume.dtype == mlp.expand_weight.dtype == torch.float32
        and volume.numel() // volume.shape[1] * mlp.expand_weight.shape[0] > _SMALL
        and _on_onednn(volume)
    )


class _Portions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, volume: Tensor, residual: Tensor | None, eps: float, of_batch: bool, *parameters: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(volume, *parameters)
        ctx.eps, ctx.of_batch = eps, of_batch
        added = None if residual is None else _rows(residual)
        mlp = VoxelMLP(*parameters)  # type: ignore[arg-type]
        return _volume_like(voxel_portions.forward(_rows(volume), added, eps, mlp), volume)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        volume, *parameters = ctx.saved_tensors
        mlp = VoxelMLP(*parameters)
        wanted = ctx.needs_input_grad
        of_residual = grad if wanted[1] else None
        if torch.is_grad_enabled():
            # Somebody wants to differentiate the derivative: the plain operations know how.
            asked = (wanted[0], *wanted[4:])
            leaves = [tensor for tensor, want in zip((volume, *parameters), asked, strict=True) if want]
            value = plain_voxel_mlp(volume, mlp, None, ctx.eps, ctx.of_batch)
            found = iter(torch.autograd.grad(value, leaves, grad, create_graph=True))
            of_volume, *of_parameters = [next(found) if want else None for want in asked]
        else:
            of_rows, of_parameters = voxel_portions.backward(_rows(volume), _rows(grad), ctx.eps, mlp, ctx.of_batch)
            of_volume = _volume_like(of_rows, volume)
        return of_volume, of_residual, None, None, *of_parameters


def _rows(volume: Tensor) -> Tensor:
    """(voxels, channels), a view if the volume is channels-last."""
    return volume.permute(0, 2, 3, 4, 1).reshape(-1, volume.shape[1])


def _volume_like(rows: Tensor, volume: Tensor) -> Tensor:
    """(N, channels, Z, Y, X) from (voxels, channels)."""
    samples, _, z, y, x = volume.shape
    return rows.view(samples, z, y, x, rows.shape[1]).permute(0, 4, 1, 2, 3)
