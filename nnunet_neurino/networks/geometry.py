"""Where a network halves its volume: one row of strides per resolution level, as nnU-Net's plans list them.

nnU-Net makes one deep-supervision target for each row of ``strides`` but the last, at the product of the rows so far.
The networks here follow the same rule: **they return ``len(strides) - 1`` logits**, so that outputs and targets always
match. A network with five levels (full resolution and four below) therefore takes

* 5 rows: four logits, none at the bottleneck (nnU-Net's habit), or
* 6 rows, the last ``[1, 1, 1]``: five logits, the bottleneck included (as published).

An axis that a row does not halve has a 1 there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_neurino.errors import NeurinoError

Triple = tuple[int, int, int]

_FULL: Triple = (1, 1, 1)
_HALVED: Triple = (2, 2, 2)


def _triple(values: Sequence[int]) -> Triple:
    z, y, x = (int(value) for value in values)
    return z, y, x


@dataclass(frozen=True)
class Levels:
    """The resolution levels of a network, full resolution first."""

    steps: tuple[Triple, ...]  # stride (z, y, x) from each level to the next one; one fewer than there are levels
    n_heads: int  # how many levels, from full resolution on, have a segmentation head

    @classmethod
    def from_strides(cls, strides: Sequence[Sequence[int]] | None, n_levels: int, n_heads: int) -> Levels:
        """Read rows of strides; None means halving every axis at every step, with ``n_heads`` heads."""
        if strides is None:
            return cls((_HALVED,) * (n_levels - 1), n_heads)
        try:
            rows = [_triple(row) for row in strides]
        except (TypeError, ValueError):
            raise NeurinoError(f"strides must be rows of three integers (z, y, x), found {strides!r}") from None
        if (
            len(rows) not in (n_levels, n_levels + 1)
            or rows[0] != _FULL
            or (len(rows) == n_levels + 1 and rows[-1] != _FULL)
        ):
            raise NeurinoError(
                f"strides {[list(row) for row in rows]} do not fit a network of {n_levels} levels: expected "
                f"{n_levels} rows of which the first is [1, 1, 1], and optionally a further last row [1, 1, 1] that "
                "asks for a segmentation head at the bottleneck"
            )
        if any(stride not in (1, 2) for row in rows for stride in row):
            raise NeurinoError(f"strides {[list(row) for row in rows]}: each must be 1 or 2")
        return cls(tuple(rows[1:n_levels]), len(rows) - 1)

    @property
    def rows(self) -> list[list[int]]:
        """The rows for nnU-Net's plans (``architecture.arch_kwargs.strides``)."""
        rows = [_FULL, *self.steps]
        return [list(row) for row in rows + [_FULL] * (self.n_heads + 1 - len(rows))]

    @property
    def totals(self) -> list[Triple]:
        """Stride (z, y, x) of each level against full resolution."""
        totals = [_FULL]
        for step in self.steps:
            totals.append(_triple([a * b for a, b in zip(totals[-1], step, strict=True)]))
        return totals

    def sizes(self, patch: Sequence[int]) -> list[Triple]:
        """Voxels (z, y, x) of each level for a patch of full resolution; a broken last voxel counts as one."""
        return [_triple([-(-n // s) for n, s in zip(patch, total, strict=True)]) for total in self.totals]

    def pad(self, volume: Tensor) -> Tensor:
        """Add zeros at the far ends of the last three axes until the coarsest level divides them."""
        missing = [-n % s for n, s in zip(volume.shape[-3:], self.totals[-1], strict=True)]
        if not any(missing):
            return volume
        z, y, x = missing
        return F.pad(volume, (0, x, 0, y, 0, z))

    def crop(self, outputs: list[Tensor], patch: Sequence[int]) -> list[Tensor]:
        """Undo ``pad`` on one output per level, full resolution first."""
        return [
            output if tuple(output.shape[-3:]) == size else output[..., : size[0], : size[1], : size[2]]
            for output, size in zip(outputs, self.sizes(patch), strict=False)
        ]


def product(steps: Sequence[Triple]) -> Triple:
    """Stride (z, y, x) of several steps one after the other."""
    return _triple([math.prod(step[axis] for step in steps) for axis in range(3)])


def to_channels_last(volume: Tensor) -> Tensor:
    """View (N, C, Z, Y, X) as (N, Z, Y, X, C)."""
    return volume.permute(0, 2, 3, 4, 1)


def to_channels_first(volume: Tensor) -> Tensor:
    """View (N, Z, Y, X, C) as (N, C, Z, Y, X)."""
    return volume.permute(0, 4, 1, 2, 3)


def channels_last_memory(volume: Tensor) -> Tensor:
    """The same (N, C, Z, Y, X) tensor with the channels of a voxel side by side in memory."""
    return volume.contiguous(memory_format=torch.channels_last_3d)
