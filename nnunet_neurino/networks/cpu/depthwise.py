"""Depthwise 3-D convolution whose backward pass costs little more than its forward pass.

PyTorch hands a depthwise ``conv3d`` to a fast kernel in the forward pass only. Backward it uses generic kernels that
are one to two orders of magnitude slower on a CPU (``benchmarks/depthwise.py`` measures it). Here

* the gradient with respect to the input is again a forward convolution, with the kernel flipped along each axis;
* the gradient with respect to the weight is a sum of 2-D weight gradients, see ``depthwise_weight``.

Values are those of ``conv3d`` up to rounding. ``depthwise_conv3d`` takes the fast way only where it was measured to win
(``runs_fast``), and is ``torch.nn.functional.conv3d`` everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.networks.cpu.depthwise_weight import Triple, weight_gradient

_IMPLEMENTATIONS = ("auto", "fast", "torch")
_HAS_ONEDNN = torch.backends.mkldnn.is_available()


def depthwise_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: int | Sequence[int] = 0,
    stride: int | Sequence[int] = 1,
    implementation: str = "auto",
) -> Tensor:
    """Convolve each channel of a volume with its own kernel, like ``conv3d(..., groups=channels)``.

    Args:
        x: (N, C, Z, Y, X), contiguous or ``channels_last_3d`` (faster); the result has the same memory format.
        weight: (C, 1, kz, ky, kx).
        bias: (C) or None.
        padding: zeros on both sides of each axis (z, y, x), in voxels.
        stride: step of each axis (z, y, x), in voxels; anything but 1 is PyTorch's own convolution.
        implementation: "auto" decides by ``runs_fast``; "fast" and "torch" choose, for tests and benchmarks.

    Returns:
        (N, C, Z', Y', X') with Z' = (Z + 2 padding - kz) // stride + 1, and so on.
    """
    if implementation not in _IMPLEMENTATIONS:
        raise ValueError(f"implementation {implementation!r}: expected one of {', '.join(_IMPLEMENTATIONS)}")
    pads, steps = _triple(padding), _triple(stride)
    if implementation == "fast" or (implementation == "auto" and runs_fast(x, weight, pads, steps)):
        return _Convolution.apply(*cast_as_autocast(x, weight, bias), pads)
    return F.conv3d(x, weight, bias, stride=steps, padding=pads, groups=weight.shape[0])


def cast_as_autocast(x: Tensor, *others: Tensor | None) -> tuple[Tensor | None, ...]:
    """The arguments of a convolution in the type that autocast, where it is on, gives them.

    It would do so inside the autograd functions, unseen by their backward pass: half-precision gradients would meet
    float32 weights there.
    """
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return x, *others
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in (x, *others))


def runs_fast(x: Tensor, weight: Tensor, padding: Triple, stride: Triple = (1, 1, 1)) -> bool:
    """Whether ``depthwise_conv3d`` leaves PyTorch's way for these arguments.

    It does where a gradient is wanted and the fast way was measured to win: float32 on a CPU with oneDNN, odd kernels,
    stride 1. Elsewhere (CUDA, half precision, float64, even kernels, inference, tracing) PyTorch's convolution runs.
    """
    return (
        not torch.jit.is_tracing()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and torch.is_grad_enabled()
        and (x.requires_grad or weight.requires_grad)
        and stride == (1, 1, 1)
        and all(size % 2 == 1 and pad < size for size, pad in zip(weight.shape[2:], padding, strict=True))
        and x.ndim == 5  # a single volume without a batch axis is PyTorch's business
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and _HAS_ONEDNN
        and (torch.compiler.is_compiling() or bool(torch.backends.mkldnn.enabled))
    )


class DepthwiseConv3d(nn.Conv3d):
    """``nn.Conv3d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels)``, faster backward.

    Parameters, their names and their initialisation are those of ``nn.Conv3d``.

    Args:
        channels: C of the (N, C, Z, Y, X) input.
        kernel_size: voxels (z, y, x), odd numbers: with stride 1 the volume keeps its size.
        stride: voxels (z, y, x).
        implementation: see ``depthwise_conv3d``.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        implementation: str = "auto",
    ) -> None:
        kernel = _triple(kernel_size)
        pads = _triple([size // 2 for size in kernel])
        super().__init__(channels, channels, kernel, _triple(stride), pads, groups=channels)
        self.implementation = implementation

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv3d(
            x, self.weight, self.bias, _triple(self.padding), _triple(self.stride), self.implementation
        )


class _Convolution(torch.autograd.Function):
    """Stride 1. The backward pass is made of operations that have derivatives, so there are some of every order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Triple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv3d(x, weight, bias, padding=padding, groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        kernel = _triple(weight.shape[2:])
        kept = _memory_format(x)
        x, grad = (t.contiguous(memory_format=torch.channels_last_3d) for t in (x, grad))
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            # The full correlation: every input voxel collects from all outputs that it took part in.
            complement = _triple([size - 1 - pad for size, pad in zip(kernel, ctx.padding, strict=True)])
            of_x = _Convolution.apply(grad, weight.flip(2, 3, 4), None, complement).contiguous(memory_format=kept)
        if ctx.needs_input_grad[1]:
            of_weight = weight_gradient(x, grad, kernel, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3, 4))
        return of_x, of_weight, of_bias, None


def _memory_format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last else torch.contiguous_format


def _triple(value: int | Sequence[int] | str) -> Triple:
    if isinstance(value, str):
        raise ValueError(f"padding {value!r}: expected voxels (z, y, x)")
    if isinstance(value, int):
        return value, value, value
    z, y, x = (int(v) for v in value)
    return z, y, x
