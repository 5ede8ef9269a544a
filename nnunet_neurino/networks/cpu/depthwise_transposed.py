"""Depthwise transposed 3-D convolution, the upsampling of a MedNeXt block.

Between the voxels of its input a transposed convolution of stride 2 has zeros; with the zeros written out it is an
ordinary convolution, for which oneDNN has a fast kernel, where the transposed one runs in a generic kernel. Its
gradients are a convolution with stride and the weight gradient of that (``depthwise_weight``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.networks.cpu.depthwise import cast_as_autocast, runs_fast
from nnunet_neurino.networks.cpu.depthwise_weight import Triple, weight_gradient


def depthwise_conv_transpose3d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple, implementation: str = "auto"
) -> Tensor:
    """Like ``conv_transpose3d(..., groups=channels)``: each channel is spread by its own kernel.

    Args:
        x: (N, C, Z, Y, X).
        weight: (C, 1, kz, ky, kx).
        bias: (C) or None.
        stride: voxels of the result for one of the input, along (z, y, x).
        padding: voxels cut off at both ends of each axis (z, y, x).
        implementation: "auto", "fast" or "torch", see ``depthwise_conv3d``.

    Returns:
        (N, C, Z', Y', X') with Z' = (Z - 1) stride - 2 padding + kz, and so on; in the memory format of ``x``.
    """
    if implementation == "fast" or (implementation == "auto" and runs_fast(x, weight, padding)):
        return _Transposed.apply(*cast_as_autocast(x, weight, bias), stride, padding)
    return F.conv_transpose3d(x, weight, bias, stride=stride, padding=padding, groups=weight.shape[0])


class DepthwiseConvTranspose3d(nn.ConvTranspose3d):
    """``nn.ConvTranspose3d(channels, channels, ..., groups=channels)``, faster on CPUs; the parameters are the same.

    Args:
        channels: C of the (N, C, Z, Y, X) input.
        kernel_size: taps (z, y, x).
        stride: voxels of the result for one of the input, along (z, y, x).
        padding: voxels cut off at both ends of each axis (z, y, x).
        implementation: see ``depthwise_conv3d``.
    """

    def __init__(
        self, channels: int, kernel_size: Triple, stride: Triple, padding: Triple, implementation: str = "auto"
    ) -> None:
        super().__init__(channels, channels, kernel_size, stride=stride, padding=padding, groups=channels)
        self.implementation = implementation

    def forward(self, x: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        if output_size is not None:
            raise ValueError("output_size is not taken: the size of the result follows from stride and padding")
        stride, padding = tuple(self.stride), tuple(self.padding)
        return depthwise_conv_transpose3d(
            x,
            self.weight,
            self.bias,
            stride,  # type: ignore[arg-type]
            padding,  # type: ignore[arg-type]
            self.implementation,
        )


class _Transposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Triple, padding: Triple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        kernel = weight.shape[2:]
        around = [size - 1 - pad for size, pad in zip(kernel, padding, strict=True)]
        return F.conv3d(_spread(x, stride), weight.flip(2, 3, 4), bias, padding=around, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        last = x.is_contiguous(memory_format=torch.channels_last_3d)
        grad = grad.contiguous(memory_format=torch.channels_last_3d if last else torch.contiguous_format)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = F.conv3d(grad, weight, None, ctx.stride, ctx.padding, groups=weight.shape[0])
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(grad, x, tuple(weight.shape[2:]), ctx.padding, ctx.stride)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3, 4))
        return of_x, of_weight, of_bias, None, None


def _spread(x: Tensor, stride: Triple) -> Tensor:
    """The voxels ``stride`` apart, zeros in between; in the memory format of ``x``."""
    samples, channels, *size = x.shape
    wide = [(voxels - 1) * step + 1 for voxels, step in zip(size, stride, strict=True)]
    if x.is_contiguous(memory_format=torch.channels_last_3d):
        spread = x.new_zeros((samples, *wide, channels)).permute(0, 4, 1, 2, 3)
    else:
        spread = x.new_zeros((samples, channels, *wide))
    spread[:, :, :: stride[0], :: stride[1], :: stride[2]] = x
    return spread
