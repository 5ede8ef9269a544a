"""The perceptron of every voxel, in portions of voxels that fit into the cache: what ``voxelwise`` runs on CPUs.

Tensors here are rows: (voxels, channels).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PORTION = 2**20
"""Hidden values made at a time: 4 MiB of float32."""


class VoxelMLP(NamedTuple):
    """The parameters of one perceptron, H hidden channels between C and O channels."""

    expand_weight: Tensor  # (H, C)
    expand_bias: Tensor  # (H)
    project_weight: Tensor  # (O, H)
    project_bias: Tensor  # (O)
    norm_weight: Tensor | None = None  # (C), of a norm in front; None for no norm
    norm_bias: Tensor | None = None  # (C) or None
    # (C), of each channel over all voxels: makes the norm a batch norm. Without, it is a layer norm
    mean: Tensor | None = None
    variance: Tensor | None = None  # (C), biased, with ``mean``


def forward(rows: Tensor, residual: Tensor | None, eps: float, mlp: VoxelMLP) -> Tensor:
    """residual + project(gelu(expand(norm(rows))))."""
    out = rows.new_empty((rows.shape[0], mlp.project_weight.shape[0]))
    for part in parts(rows, mlp.expand_weight.shape[0]):
        hidden = F.gelu(linear(_normalised(rows[part], mlp, eps)[0], mlp.expand_weight, mlp.expand_bias))
        result = linear(hidden, mlp.project_weight, mlp.project_bias)
        if residual is None:
            out[part] = result
        else:
            torch.add(residual[part], result, out=out[part])
    return out


def backward(
    rows: Tensor, grads: Tensor, eps: float, mlp: VoxelMLP, of_batch: bool
) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients with respect to the rows and to each of the ``mlp``'s parameters.

    ``of_batch`` says that ``mlp.mean`` and ``mlp.variance`` are those of the rows, hence depend on them.
    """
    of_rows = torch.empty_like(rows)
    sums = [None if parameter is None else torch.zeros_like(parameter) for parameter in mlp[:6]]
    for part in parts(rows, mlp.expand_weight.shape[0]):
        normed, mean, rstd = _normalised(rows[part], mlp, eps)
        hidden = linear(normed, mlp.expand_weight, mlp.expand_bias)
        of_active, of_project = _linear_backward(F.gelu(hidden), mlp.project_weight, grads[part])
        of_hidden = torch.ops.aten.gelu_backward(of_active, hidden)
        of_normed, of_expand = _linear_backward(normed, mlp.expand_weight, of_hidden)
        of_norm: list[Tensor | None] = [None, None]
        if mlp.mean is not None:
            of_rows[part] = of_normed
            of_norm = [(_standardised(rows[part], mlp, eps) * of_normed).sum(0), of_normed.sum(0)]
        elif mlp.norm_weight is None:
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
        found = (of_expand, of_hidden.sum(0), of_project, grads[part].sum(0), *of_norm)
        for total, share in zip(sums, found, strict=True):
            if total is not None and share is not None:
                total += share
    if mlp.mean is not None:
        _through_batch_norm(of_rows, rows, eps, mlp, sums[4:], of_batch)
    return of_rows, [*sums, None, None]


def statistics(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel."""
    mean = rows.mean(0)
    squares = torch.zeros_like(mean)
    for part in parts(rows, rows.shape[1]):
        squares += (rows[part] - mean).square_().sum(0)
    return mean, squares / rows.shape[0]


def parts(rows: Tensor, channels: int) -> list[slice]:
    """Portions of the rows when ``channels`` values are made of each."""
    step = max(64, PORTION // channels // 16 * 16)
    return [slice(start, start + step) for start in range(0, rows.shape[0], step)]


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``torch.nn.functional.linear`` through oneDNN's convolution."""
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


def _as_images(rows: Tensor) -> Tensor:
    """(voxels, channels) as channels-last pictures of one column.

    There are 16 of them if the number of voxels allows: with fewer, PyTorch leaves oneDNN when it has a single thread.
    """
    pictures = 16 if rows.shape[0] % 16 == 0 else 1
    return rows.view(pictures, -1, 1, rows.shape[1]).permute(0, 3, 1, 2)


def _standardised(rows: Tensor, mlp: VoxelMLP, eps: float) -> Tensor:
    """The rows with mean 0 and variance 1, by the ``mlp``'s mean and variance."""
    assert mlp.mean is not None
    assert mlp.variance is not None
    return (rows - mlp.mean).mul_(torch.rsqrt(mlp.variance + eps))


def _normalised(rows: Tensor, mlp: VoxelMLP, eps: float) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The normalised rows; with a layer norm also their mean and the reciprocal of their standard deviation."""
    if mlp.norm_weight is None:
        return rows, None, None
    if mlp.mean is None:
        return torch.native_layer_norm(rows, rows.shape[1:], mlp.norm_weight, mlp.norm_bias, eps)
    assert mlp.norm_bias is not None
    return _standardised(rows, mlp, eps).mul_(mlp.norm_weight).add_(mlp.norm_bias), None, None


def _through_batch_norm(
    of_rows: Tensor, rows: Tensor, eps: float, mlp: VoxelMLP, of_norm: list[Tensor | None], of_batch: bool
) -> None:
    """Turn the gradient of the normalised rows, in place, into that of the rows themselves."""
    of_weight, of_bias = of_norm
    assert of_weight is not None
    assert of_bias is not None
    assert mlp.variance is not None
    assert mlp.norm_weight is not None
    scale = mlp.norm_weight * torch.rsqrt(mlp.variance + eps)
    for part in parts(rows, rows.shape[1]):
        if of_batch:
            of_rows[part] -= _standardised(rows[part], mlp, eps).mul_(of_weight / rows.shape[0])
            of_rows[part] -= of_bias / rows.shape[0]
        of_rows[part] *= scale
