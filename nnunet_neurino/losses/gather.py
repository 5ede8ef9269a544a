"""Class probabilities at chosen voxels, without a probability map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Place = tuple[int, int, Tensor]
"""Sample, channel, and voxel numbers (m,) in C order of the volume (z, y, x)."""


class _Probabilities(torch.autograd.Function):
    """Indexing the logits would do, but its backward pass sorts the indices and needs several times the memory."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, places: Sequence[Place], regions: bool, dtype: torch.dtype) -> Tensor:
        found, kept = [], []
        for sample, channel, voxels in places:
            if regions:
                p = torch.sigmoid(logits[sample, channel].take(voxels).to(dtype))[None]
                found.append(p[0])
            else:
                p = torch.softmax(torch.stack([c.take(voxels).to(dtype) for c in logits[sample]]), 0)
                found.append(p[channel])
            kept.append(p)
        ctx.save_for_backward(*kept)
        ctx.places, ctx.regions = places, regions
        ctx.shape, ctx.dtype = logits.shape, logits.dtype
        return torch.cat(found) if found else logits.new_zeros(0, dtype=dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (given,) = gradients
        total = given.new_zeros(ctx.shape, dtype=ctx.dtype)
        by_channel = total.flatten(2)
        start = 0
        for (sample, channel, voxels), p in zip(ctx.places, ctx.saved_tensors, strict=True):
            part = given[start : start + len(voxels)]
            start += len(voxels)
            if ctx.regions:
                by_channel[sample, channel].index_add_(0, voxels, (part * p[0] * (1 - p[0])).to(ctx.dtype))
                continue
            pull = part * p[channel]
            for other, q in enumerate(p):
                slope = pull * (1 - q) if other == channel else -pull * q
                by_channel[sample, other].index_add_(0, voxels, slope.to(ctx.dtype))
        return total, None, None, None


def probabilities(logits: Tensor, places: Sequence[Place], regions: bool, dtype: torch.dtype) -> Tensor:
    """Probabilities at some voxels, with gradient.

    Args:
        logits: (batch, channels, z, y, x) of any memory layout and floating type.
        places: which voxels of which sample and channel; a channel's voxels must be distinct within one place.
        regions: channels are independent (sigmoid) instead of exclusive (softmax).
        dtype: type to compute in.

    Returns:
        The probabilities of all places, one after the other, in ``dtype``.
    """
    return _Probabilities.apply(logits, places, regions, dtype)
