"""The part of a residual block that looks at one voxel at a time, without its hidden activations in memory.

    residual + project(gelu(expand(norm(volume))))

In between are two to eight times as many numbers as in the volume. Made for all voxels at once they are most of a
training step's memory, and on a CPU most of its time too: every one of these large tensors is written to fresh memory,
read back and thrown away. On a CPU this module therefore takes the voxels in portions that fit into the cache, keeps
nothing but the input, and makes the hidden numbers of a portion again on the way back. Its matrix products go through
oneDNN's 1x1 convolution, which is about twice as fast as ``linear`` on some processors and as fast on others.

Values are those of the plain operations (``plain_voxel_mlp``) up to rounding. Those run wherever the portions were not
measured to win: on small volumes, on GPUs, in half precision, under ``torch.compile`` and while a network is traced.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_PORTION = 2**20
"""Hidden numbers made at a time: 4 MiB of float32."""

_SMALL = 2**22
"""Hidden numbers (16 MiB) up to which keeping them costs less than making them again."""

_HAS_ONEDNN = torch.backends.mkldnn.is_available()


class VoxelMLP(NamedTuple):
    """The parameters of one perceptron, H hidden numbers between C and O channels.

    Attributes:
        expand_weight: (H, C).
        expand_bias: (H).
        project_weight: (O, H).
        project_bias: (O).
        norm_weight: (C), of a layer norm over the channels in front; None for no norm.
        norm_bias: (C) or None.
    """

    expand_weight: Tensor
    expand_bias: Tensor
    project_weight: Tensor
    project_bias: Tensor
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None


def voxel_mlp(volume: Tensor, mlp: VoxelMLP, residual: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """Apply a two-layer perceptron with GELU to the channels of every voxel.

    Args:
        volume: (N, C, Z, Y, X), best in ``channels_last_3d`` memory.
        mlp: its parameters.
        residual: (N, O, Z, Y, X), added to the result, or None.
        eps: of the layer norm.

    Returns:
        (N, O, Z, Y, X) in ``channels_last_3d`` memory.
    """
    if not _in_portions(volume, mlp):
        return plain_voxel_mlp(volume, mlp, residual, eps)
    if torch.is_grad_enabled():
        return _Portions.apply(volume, residual, eps, *mlp)
    return _forward(volume, residual, eps, mlp)


def plain_voxel_mlp(volume: Tensor, mlp: VoxelMLP, residual: Tensor | None = None, eps: float = 1e-6) -> Tensor:
    """The same in PyTorch's own operations, all voxels at once."""
    if mlp.norm_weight is not None:
        rows = volume.permute(0, 2, 3, 4, 1)
        volume = F.layer_norm(rows, rows.shape[-1:], mlp.norm_weight, mlp.norm_bias, eps).permute(0, 4, 1, 2, 3)
    hidden = F.gelu(pointwise(volume, mlp.expand_weight, mlp.expand_bias))
    result = pointwise(hidden, mlp.project_weight, mlp.project_bias)
    return result if residual is None else residual + result


def pointwise(volume: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 1x1x1 convolution of (N, C, Z, Y, X) with a (O, C) weight, by the faster of PyTorch's two ways."""
    if _suits_convolution(volume, weight) and not torch.jit.is_tracing():
        return _volume_like(_linear(_rows(volume), weight, bias), volume)
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


def _in_portions(volume: Tensor, mlp: VoxelMLP) -> bool:
    return (
        not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and volume.dtype == mlp.expand_weight.dtype == torch.float32
        and volume.numel() // volume.shape[1] * mlp.expand_weight.shape[0] > _SMALL
        and _on_onednn(volume)
    )


class _Portions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, volume: Tensor, residual: Tensor | None, eps: float, *parameters: Tensor | None) -> Tensor:
        ctx.save_for_backward(volume, *parameters)
        ctx.eps = eps
        return _forward(volume, residual, eps, VoxelMLP(*parameters))  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        volume, *parameters = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_residual = grad if wanted[1] else None
        if torch.is_grad_enabled():
            # Somebody wants to differentiate the derivative: the plain operations know how.
            leaves = [t for t, want in zip((volume, *parameters), (wanted[0], *wanted[3:]), strict=True) if want]
            value = plain_voxel_mlp(volume, VoxelMLP(*parameters), None, ctx.eps)
            found = iter(torch.autograd.grad(value, leaves, grad, create_graph=True))
            of_volume, *of_parameters = [next(found) if want else None for want in (wanted[0], *wanted[3:])]
        else:
            of_volume, *of_parameters = _backward(volume, grad, ctx.eps, VoxelMLP(*parameters))
        return of_volume, of_residual, None, *of_parameters


def _rows(volume: Tensor) -> Tensor:
    """(voxels, channels), a view if the volume is channels-last."""
    return volume.permute(0, 2, 3, 4, 1).reshape(-1, volume.shape[1])


def _volume_like(rows: Tensor, volume: Tensor) -> Tensor:
    """(N, channels, Z, Y, X) from (voxels, channels)."""
    samples, _, z, y, x = volume.shape
    return rows.view(samples, z, y, x, rows.shape[1]).permute(0, 4, 1, 2, 3)


def _portions(volume: Tensor, mlp: VoxelMLP) -> int:
    """Voxels in a portion."""
    return max(64, _PORTION // mlp.expand_weight.shape[0] // 16 * 16)


def _as_images(rows: Tensor) -> Tensor:
    """(voxels, channels) as channels-last pictures of one column.

    There are 16 of them if the number of voxels allows: with fewer, PyTorch leaves oneDNN when it has a single thread.
    """
    pictures = 16 if rows.shape[0] % 16 == 0 else 1
    return rows.view(pictures, -1, 1, rows.shape[1]).permute(0, 3, 1, 2)


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = F.conv2d(_as_images(rows), weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(rows.shape[0], weight.shape[0])


def _linear_backward(rows: Tensor, weight: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to the rows and to the weight."""
    of_rows, of_weight, _ = torch.ops.aten.convolution_backward(
        _as_images(grad),
        _as_images(rows),
        weight[:, :, None, None],
        None,
        [1, 1],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        1,
        [True, True, False],
    )
    return of_rows.permute(0, 2, 3, 1).reshape(rows.shape), of_weight[:, :, 0, 0]


def _normalised(rows: Tensor, mlp: VoxelMLP, eps: float) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if mlp.norm_weight is None:
        return rows, None, None
    return torch.native_layer_norm(rows, rows.shape[1:], mlp.norm_weight, mlp.norm_bias, eps)


def _forward(volume: Tensor, residual: Tensor | None, eps: float, mlp: VoxelMLP) -> Tensor:
    rows = _rows(volume)
    out = rows.new_empty((rows.shape[0], mlp.project_weight.shape[0]))
    added = None if residual is None else _rows(residual)
    step = _portions(volume, mlp)
    for start in range(0, rows.shape[0], step):
        part = slice(start, start + step)
        hidden = F.gelu(_linear(_normalised(rows[part], mlp, eps)[0], mlp.expand_weight, mlp.expand_bias))
        result = _linear(hidden, mlp.project_weight, mlp.project_bias)
        if added is None:
            out[part] = result
        else:
            torch.add(added[part], result, out=out[part])
    return _volume_like(out, volume)


def _backward(volume: Tensor, grad: Tensor, eps: float, mlp: VoxelMLP) -> tuple[Tensor | None, ...]:
    """Gradients with respect to the volume and to each parameter."""
    rows, grads = _rows(volume), _rows(grad)
    of_rows = torch.empty_like(rows)
    sums = [None if parameter is None else torch.zeros_like(parameter) for parameter in mlp]
    step = _portions(volume, mlp)
    for start in range(0, rows.shape[0], step):
        part = slice(start, start + step)
        normed, mean, rstd = _normalised(rows[part], mlp, eps)
        hidden = _linear(normed, mlp.expand_weight, mlp.expand_bias)
        of_active, of_project = _linear_backward(F.gelu(hidden), mlp.project_weight, grads[part])
        of_hidden = torch.ops.aten.gelu_backward(of_active, hidden)
        of_normed, of_expand = _linear_backward(normed, mlp.expand_weight, of_hidden)
        found: tuple[Tensor | None, ...] = (of_expand, of_hidden.sum(0), of_project, grads[part].sum(0), None, None)
        if mlp.norm_weight is None:
            of_rows[part] = of_normed
        else:
            of_rows[part], *of_norm = torch.ops.aten.native_layer_norm_backward(
                of_normed,
                rows[part],
                rows.shape[1:],
                mean,
                rstd,
                mlp.norm_weight,
                mlp.norm_bias,
                [True, True, mlp.norm_bias is not None],
            )
            found = (*found[:4], *of_norm)
        for total, share in zip(sums, found, strict=True):
            if total is not None and share is not None:
                total += share
    return _volume_like(of_rows, volume), *sums
