"""nnU-Net's Dice + cross-entropy, in portions of the volume: memory for a portion instead of for all of it.

Both terms are functions of a few sums over the voxels. A first pass adds the sums up, portion by portion, and keeps
only logits and target; the backward pass computes each portion's probabilities anew and writes their gradient into
the one tensor that leaves, or over the logits. Beyond logits, target and gradient the peak is that of one portion,
whatever the volume.

Precision: a portion is computed and summed in float32 (float64 for float64 logits, never less, autocast or not); the
portions' sums are added and the loss is formed in float64, so that no volume is too large. MPS has no float64: there
both are float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from nnunet_neurino.errors import NeurinoError

_SMOOTH = 1e-5
"""Added to numerator and denominator of Dice."""


class PortionedDiceCE(nn.Module):
    """Soft Dice + cross-entropy, equal to the loss nnU-Net's trainer builds, without its maps of the whole volume.

    Called with logits (B, K, Z, Y, X), or (B, K, Y, X), and a target:

    - labels: (B, 1, Z, Y, X) with values 0 to K - 1, or ``ignore_label``. Softmax; Dice leaves out the background.
    - regions: (B, K, Z, Y, X) of 0 and 1, and behind them, if there is an ignore label, one channel that is 1 where
      a voxel is to be ignored. Sigmoid and binary cross-entropy; Dice of all channels.

    The result is a float32 scalar (float64 for float64 logits); the gradient has the type of the logits. It can be
    differentiated once. Dice over the batch (``batch_dice``) is that of this process's batch: nnU-Net gathers the sums
    of all ranks instead, so with several ranks and ``batch_dice`` use nnU-Net's own loss.

    Args:
        regions: channels are independent regions instead of exclusive labels.
        ignore_label: None, or the label of voxels that do not count. With regions only whether there is one matters.
        batch_dice: one Dice over all samples of the batch instead of the mean of each sample's.
        portion: largest number of voxels computed at once.
        over_logits: write the gradient over the logits, which takes half the memory. Nobody may read them after the
            backward pass; PyTorch refuses to if it was to be another term of the loss.
    """

    def __init__(
        self,
        regions: bool = False,
        ignore_label: int | None = None,
        batch_dice: bool = False,
        portion: int = 2**18,
        over_logits: bool = False,
    ) -> None:
        super().__init__()
        if portion < 1:
            raise NeurinoError(f"PortionedDiceCE: portion: expected 1 voxel or more, got {portion}; choose 262144")
        self.regions = regions
        self.ignore_label = ignore_label
        self.batch_dice = batch_dice
        self.portion = portion
        self.over_logits = over_logits

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of logits ``output`` (B, K, Z, Y, X) for ``target``, see the class."""
        self._check(output, target)
        how = _How(self.regions, self.ignore_label, self.portion, self.over_logits)
        overlap, predicted, entropy, truth, counted = _Sums.apply(output, target, how)
        if self.batch_dice:
            overlap, predicted, truth = overlap.sum(0), predicted.sum(0), truth.sum(0)
        dice = (2 * overlap + _SMOOTH) / (truth + predicted + _SMOOTH)
        loss = entropy / counted.clamp_min(1) - dice.mean()
        return loss.to(_computed_in(output))

    def _check(self, output: Tensor, target: Tensor) -> None:
        channels = output.shape[1] + (self.ignore_label is not None) if self.regions else 1
        expected = (output.shape[0], channels, *output.shape[2:])
        if tuple(target.shape) != expected:
            kind = "regions" if self.regions else "labels"
            raise NeurinoError(
                f"PortionedDiceCE: target of shape {tuple(target.shape)}: expected {expected} for {kind} and logits of "
                f"shape {tuple(output.shape)}; check the target and the loss's regions and ignore_label"
            )


class _How(NamedTuple):
    regions: bool
    ignore_label: int | None
    portion: int
    over_logits: bool

    @property
    def first(self) -> int:
        """First channel that has a Dice."""
        return 0 if self.regions else 1


class _Truth(NamedTuple):
    """What a portion's target says."""

    hot: Tensor
    """1 where a channel is true and counts, else 0: (b, K, z, y, x)."""
    labels: Tensor | None
    """(b, 1, z, y, x) int64, 0 where ignored; None for regions."""
    counts: Tensor | None
    """1 where a voxel counts, else 0: (b, 1, z, y, x); None if all do."""


class _Sums(torch.autograd.Function):
    """Sums over the voxels of logits (B, K, ...) and target, with the gradient of the first three.

    Returns overlap of prediction and truth, and prediction, a sample and channel (B, C); cross-entropy, a scalar; truth
    (B, C); number of terms in the cross-entropy, a scalar.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, how: _How) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits, target)
        ctx.how = how
        added_in = torch.float32 if logits.device.type == "mps" else torch.float64
        each = (logits.shape[0], logits.shape[1] - how.first)
        overlap, predicted, truth = (logits.new_zeros(each, dtype=added_in) for _ in range(3))
        entropy, counted = (logits.new_zeros((), dtype=added_in) for _ in range(2))
        for part in _parts(logits.shape, how.portion):
            sums = _portion_sums(_load(logits, part), _read(target[part], logits, how), how)
            totals = overlap[part[0]], predicted[part[0]], entropy, truth[part[0]], counted
            for total, some in zip(totals, sums, strict=True):
                total += some
        ctx.mark_non_differentiable(truth, counted)
        return overlap, predicted, entropy, truth, counted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None, None]:
        logits, target = ctx.saved_tensors
        how: _How = ctx.how
        spread = (slice(None), slice(None), *(None,) * (logits.ndim - 2))
        of_overlap, of_prediction = (F.pad(g.to(_computed_in(logits)), (how.first, 0))[spread] for g in given[:2])
        of_entropy = given[2].to(_computed_in(logits))
        # detach() keeps the version counter: whoever saved the logits and comes later is refused, not misled.
        gradient = logits.detach() if how.over_logits else torch.empty_like(logits)
        for part in _parts(logits.shape, how.portion):
            of_sums = of_overlap[part[0]], of_prediction[part[0]], of_entropy
            gradient[part] = _portion_gradient(_load(logits, part), _read(target[part], logits, how), of_sums, how)
        return gradient, None, None


def _portion_sums(x: Tensor, truth: _Truth, how: _How) -> tuple[Tensor, ...]:
    """One portion's part of the sums, of logits ``x`` (b, K, z, y, x)."""
    if truth.labels is None:
        p = x.sigmoid()
        costs = F.binary_cross_entropy_with_logits(x, truth.hot, reduction="none")
    else:
        p = F.log_softmax(x, 1)
        costs = -p.gather(1, truth.labels)
        p.exp_()
    if truth.counts is None:
        counted = costs.new_full((), costs.numel(), dtype=torch.int64)
    else:
        counted = truth.counts.sum()
        costs *= truth.counts
        p *= truth.counts
    p, hot = p[:, how.first :], truth.hot[:, how.first :]
    return (p * hot).flatten(2).sum(2), p.flatten(2).sum(2), costs.sum(), hot.flatten(2).sum(2), counted


def _portion_gradient(x: Tensor, truth: _Truth, of_sums: tuple[Tensor, Tensor, Tensor], how: _How) -> Tensor:
    """The logits' gradient in one portion from that of overlap and prediction (b, K, 1, 1, 1) and cross-entropy."""
    of_overlap, of_prediction, of_entropy = of_sums
    # First the slope for the probabilities, then that for the logits, to which either entropy adds (p - truth).
    slope = torch.addcmul(of_prediction, of_overlap, truth.hot)
    if how.regions:
        p = x.sigmoid()
        slope *= 1 - p
    else:
        p = F.softmax(x, 1)
        slope -= (p * slope).sum(1, keepdim=True)
    slope += of_entropy
    slope *= p
    slope.addcmul_(truth.hot, -of_entropy)
    return slope if truth.counts is None else slope.mul_(truth.counts)


def _computed_in(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)


def _parts(shape: Sequence[int], most: int) -> Iterator[tuple[slice, ...]]:
    """Indices (samples, all channels, z, y, x) that cut (B, K, Z, Y, X) into portions of at most ``most`` voxels.

    They are runs of whole samples if those are small enough, else of planes of one sample, else of rows of one plane...
    """
    extent = (shape[0], *shape[2:])
    axis = 0
    while axis < len(extent) - 1 and prod(extent[axis + 1 :]) > most:
        axis += 1
    step = max(1, most // prod(extent[axis + 1 :]))
    for lead in product(*(range(n) for n in extent[:axis])):
        for start in range(0, extent[axis], step):
            samples, *space = (*(slice(i, i + 1) for i in lead), slice(start, start + step))
            yield (samples, slice(None), *space)


def _load(logits: Tensor, part: tuple[slice, ...]) -> Tensor:
    """One portion, contiguous, as softmax is slow else; to be read only, as it may be the logits themselves."""
    return logits[part].to(_computed_in(logits)).contiguous()


def _read(target: Tensor, logits: Tensor, how: _How) -> _Truth:
    """One portion's target, in the type that ``logits``, all of them, are computed in."""
    channels, dtype = logits.shape[1], _computed_in(logits)
    counts: Tensor | None = None
    if how.regions:
        hot = target[:, :channels].to(dtype)
        if how.ignore_label is None:
            return _Truth(hot, None, None)
        counts = torch.ne(target[:, channels:], 1).to(dtype)
        return _Truth(hot * counts, None, counts)
    labels = target.long()
    if how.ignore_label is not None:
        counted = labels != how.ignore_label
        labels, counts = labels * counted, counted.to(dtype)
    if labels.device.type == "cpu":  # elsewhere looking would wait for the device, which has its own assertion
        least, most = (int(found) for found in labels.aminmax())
        if least < 0 or most >= channels:
            raise NeurinoError(
                f"PortionedDiceCE: label {least if least < 0 else most} in the target: expected 0 to {channels - 1}"
                f"{'' if counts is None else f' or {how.ignore_label} (ignore)'}; check the labels in dataset.json"
            )
    hot = torch.zeros((labels.shape[0], channels, *labels.shape[2:]), dtype=dtype, device=labels.device)
    hot.scatter_(1, labels, 1)
    return _Truth(hot if counts is None else hot.mul_(counts), labels, counts)
