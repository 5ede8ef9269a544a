"""Weight gradient of a depthwise 3-D convolution as a sum of 2-D ones.

    dW[c, i, j, k] = sum over n, z, y, x of  grad[n, c, z, y, x] * volume[n, c, z + i - pz, y + j - py, x + k - px]

For a fixed tap along one axis, the *outer* one, this is the weight gradient of a 2-D depthwise convolution over a batch
of planes, one for each sample and each outer coordinate. oneDNN has a fast kernel for that, on channels-last planes and
with at most three taps along its *inner* axis. So the inner axis is one with a short kernel; the longest of the other
two kernels goes along the *middle* axis, where any length is fast. Volumes are copied into (outer, sample, middle,
inner, channel) order where they do not lie in it already: a shift along the outer axis is then a slice, without a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

Triple = tuple[int, int, int]

_PRODUCTS = 16384  # added up in one float32 sum by a kernel call; more of them lose digits, fewer lose time
_INNER_TAPS = 3  # oneDNN's depthwise kernel refuses more and a generic one, ten times slower, would run


def weight_gradient(
    volume: Tensor, grad: Tensor, kernel: Triple, padding: Triple, stride: Triple = (1, 1, 1)
) -> Tensor:
    """Gradient with respect to the weight of a depthwise convolution.

    Args:
        volume: (N, C, Z, Y, X), the input of the convolution.
        grad: (N, C, Z', Y', X'), gradient with respect to its output.
        kernel: taps (z, y, x).
        padding: zeros that the convolution added on both sides of each axis (z, y, x).
        stride: its step along each axis (z, y, x).

    Returns:
        (C, 1, kz, ky, kx), contiguous.
    """
    outer, middle, inner = choose_axes(kernel)
    channels = volume.shape[1]
    total = volume.new_zeros((channels, kernel[outer], kernel[middle], kernel[inner]))
    volume_parts = _plane_batches(volume, (outer, middle, inner))
    grad_parts = _plane_batches(grad, (outer, middle, inner))
    for planes, grads in zip(volume_parts, grad_parts, strict=True):
        for first in range(0, kernel[inner], _INNER_TAPS):
            taps = min(_INNER_TAPS, kernel[inner] - first)
            length = (grads.shape[3] - 1) * stride[inner] + taps
            shifted, pad = _shift_inner(planes, length, first, taps, padding[inner], kernel[inner])
            for tap in range(kernel[outer]):
                shift, step = tap - padding[outer], stride[outer]
                start, stop = _overlap(planes.shape[0], grads.shape[0], shift, step)
                if stop <= start:
                    continue
                total[:, tap, :, first : first + taps] += _plane_weight_gradient(
                    shifted[start * step + shift : (stop - 1) * step + shift + 1 : step],
                    grads[start:stop],
                    (kernel[middle], taps),
                    (padding[middle], pad),
                    (stride[middle], stride[inner]),
                )
    order = [0, 0, 0]
    for position, axis in enumerate((outer, middle, inner)):
        order[axis] = position + 1
    return total.permute(0, *order).unsqueeze(1).contiguous()


def choose_axes(kernel: Triple) -> Triple:
    """Axes (outer, middle, inner) for a kernel, 0 for z to 2 for x.

    The inner axis is the last one that fits into a single pass, x if none does; of the other two the one with fewer
    taps is the outer one. Kernels such as 3x3x3 thereby keep the order z, y, x, which needs no copy.
    """
    short = [axis for axis in range(3) if kernel[axis] <= _INNER_TAPS]
    inner = 2 if kernel[2] <= _INNER_TAPS or not short else short[-1]
    outer, middle = [axis for axis in range(3) if axis != inner]
    if kernel[outer] > kernel[middle]:
        outer, middle = middle, outer
    return outer, middle, inner


def _plane_batches(volume: Tensor, axes: Triple) -> list[Tensor]:
    """(outer, samples, middle, inner, C) parts of a volume that together hold all its samples, as views if possible."""
    outer, middle, inner = (axis + 2 for axis in axes)
    if axes == (0, 1, 2) and volume.is_contiguous(memory_format=torch.channels_last_3d):
        return [sample.permute(1, 2, 3, 0).unsqueeze(1) for sample in volume]
    return [volume.permute(outer, 0, middle, inner, 1).contiguous()]


def _shift_inner(planes: Tensor, length: int, first: int, taps: int, padding: int, kernel: int) -> tuple[Tensor, int]:
    """Planes in which ``taps`` taps of the inner axis from ``first`` on are a kernel of their own, and its padding."""
    if taps == kernel:
        return planes, padding
    start = first - padding
    low, high = max(start, 0), min(start + length, planes.shape[3])
    piece = planes.new_zeros((*planes.shape[:3], length, planes.shape[4]))
    if high > low:
        piece[:, :, :, low - start : high - start] = planes[:, :, :, low:high]
    return piece, 0


def _overlap(inputs: int, outputs: int, shift: int, step: int) -> tuple[int, int]:
    """The range of output coordinates whose input coordinate, output * step + shift, exists."""
    return max(0, -(shift // step)), min(outputs, (inputs - 1 - shift) // step + 1)


def _plane_weight_gradient(
    planes: Tensor, grads: Tensor, kernel: tuple[int, int], padding: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """2-D depthwise weight gradient (C, kernel) summed over (outer, samples) planes of (middle, inner, C)."""
    channels = planes.shape[-1]
    weight = planes.new_empty((channels, 1, *kernel))
    batch = max(1, _PRODUCTS // (grads.shape[2] * grads.shape[3]))
    parts = [
        torch.ops.aten.convolution_backward(
            some_grads.permute(0, 3, 1, 2),
            some_planes.permute(0, 3, 1, 2),
            weight,
            None,
            list(stride),
            list(padding),
            [1, 1],
            False,
            [0, 0],
            channels,
            [False, True, False],
        )[1]
        for some_grads, some_planes in zip(
            grads.flatten(0, 1).split(batch), planes.flatten(0, 1).split(batch), strict=True
        )
    ]
    return torch.stack(parts).sum(0)[:, 0] if len(parts) > 1 else parts[0][:, 0]
