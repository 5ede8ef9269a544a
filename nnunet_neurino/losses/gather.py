"""What the localised loss reads from the logits, at chosen voxels only and without a probability map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nnunet_neurino.losses.localised import error, error_slope

_SMALLEST_CHUNK = 2**14


class Place(NamedTuple):
    """Where to look; the voxels of one place must be distinct."""

    sample: int
    channel: int
    voxels: Tensor
    """Numbers (m,) in C order of the volume (z, y, x)."""


class Charged(NamedTuple):
    """Voxels that cost something in proportion to their predicted probability."""

    place: Place
    kind: Tensor
    """Column of ``charge`` that holds for each voxel (m,)."""
    charge: Tensor
    """What a voxel of each kind adds to each term (terms, kinds)."""


class _Gathered(torch.autograd.Function):
    """Indexing the logits would do, but autograd would keep several maps; here backward computes anew, in chunks."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, places: Sequence[Place], charged: Sequence[Charged], regions: bool, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits)
        ctx.places, ctx.charged, ctx.regions, ctx.dtype = places, charged, regions, dtype
        found = [_probabilities(logits, place, regions, dtype)[_row(place, regions)] for place in places]
        costs = logits.new_zeros(3, dtype=dtype)
        for place, kind, charge in _chunks(charged, logits):
            p = _probabilities(logits, place, regions, dtype)[_row(place, regions)]
            costs += charge.index_select(1, kind) @ error(1 - p)
        return torch.cat(found) if found else logits.new_zeros(0, dtype=dtype), costs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        of_found, of_costs = gradients
        (logits,) = ctx.saved_tensors
        total = torch.zeros(logits.shape, dtype=logits.dtype, device=logits.device)
        for place, given in zip(ctx.places, of_found.split([len(place.voxels) for place in ctx.places]), strict=True):
            _scatter(total, place, _probabilities(logits, place, ctx.regions, ctx.dtype), given, ctx.regions)
        for place, kind, charge in _chunks(ctx.charged, logits):
            p = _probabilities(logits, place, ctx.regions, ctx.dtype)
            given = -(of_costs @ charge).index_select(0, kind) * error_slope(1 - p[_row(place, ctx.regions)])
            _scatter(total, place, p, given, ctx.regions)
        return total, None, None, None, None


def gather(
    logits: Tensor, places: Sequence[Place], charged: Sequence[Charged], regions: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Probabilities at some voxels and the cost of the predictions at others, with gradient.

    Args:
        logits: (batch, channels, z, y, x) of any memory layout and floating type.
        places: where the probabilities are wanted.
        charged: which voxels cost something; the error of predicting them is charged.
        regions: channels are independent (sigmoid) instead of exclusive (softmax).
        dtype: type to compute in.

    Returns:
        The probabilities of all places, one after the other, and the costs (3,), in ``dtype``.
    """
    return _Gathered.apply(logits, places, charged, regions, dtype)


def _row(place: Place, regions: bool) -> int:
    return 0 if regions else place.channel


def _probabilities(logits: Tensor, place: Place, regions: bool, dtype: torch.dtype) -> Tensor:
    """All channels' probabilities (channels, m); with regions the one channel's (1, m)."""
    voxels = place.voxels.long()
    if regions:
        return torch.sigmoid(logits[place.sample, place.channel].take(voxels).to(dtype))[None]
    return torch.softmax(torch.stack([c.take(voxels).to(dtype) for c in logits[place.sample]]), 0)


def _scatter(total: Tensor, place: Place, p: Tensor, given: Tensor, regions: bool) -> None:
    """Add to the logits' gradient ``total`` what the gradient ``given`` of the place's probabilities makes of it."""
    row = _row(place, regions)
    pull = given * p[row]
    by_channel = total[place.sample].flatten(1)
    for other, q in enumerate(p):
        slope = pull * (1 - q) if other == row else -pull * q
        by_channel[place.channel if regions else other].index_add_(0, place.voxels, slope.to(total.dtype))


def _chunks(charged: Sequence[Charged], logits: Tensor) -> Iterator[Charged]:
    """The same in parts of a sixteenth of the volume."""
    size = max(logits[0, 0].numel() // 16, _SMALLEST_CHUNK)
    for (sample, channel, voxels), kind, charge in charged:
        for some, kinds in zip(voxels.split(size), kind.split(size), strict=True):
            yield Charged(Place(sample, channel, some), kinds, charge)
