"""Cutting a volume into windows and putting it together again.

Tensors may have any axes in front of z, y, x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.geometry import Triple

Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class WindowGrid:
    """Windows of one size that cover a volume.

    Without overlap the windows lie side by side from the first voxel on, and the last ones reach beyond the volume,
    where it is continued with zeros. With overlap they are spread evenly and stay inside, unless the volume is smaller
    than a window.

    Examples:
        >>> grid = WindowGrid((5, 20, 20), (4, 16, 16))
        >>> len(grid), grid.counts, grid.corners[-1]
        (8, (2, 2, 2), (4, 16, 16))
    """

    shape: Triple  # voxels (z, y, x) of the volume
    window: Triple  # voxels (z, y, x) of a window
    overlap: float = 0.0  # share of a window that its neighbour has in common with it, at the least; from 0 on, below 1

    def __post_init__(self) -> None:
        for name in ("shape", "window"):
            value = getattr(self, name)
            if len(value) != 3 or min(value) < 1:
                raise NeurinoError(f"{name} {tuple(value)}: expected voxels along z, y and x, each 1 or more")
        if not 0 <= self.overlap < 1:
            raise NeurinoError(f"overlap {self.overlap}: expected a share from 0 on, below 1")

    @cached_property
    def _starts(self) -> tuple[list[int], list[int], list[int]]:
        z, y, x = (self._starts_along(n, w) for n, w in zip(self.shape, self.window, strict=True))
        return z, y, x

    def _starts_along(self, length: int, window: int) -> list[int]:
        if not self.overlap or length <= window:
            return list(range(0, length, window))
        steps = math.ceil((length - window) / max(1, int(window * (1 - self.overlap))))
        return [round(step * (length - window) / steps) for step in range(steps + 1)]

    @property
    def counts(self) -> Triple:
        """Windows along z, y, x."""
        z, y, x = (len(starts) for starts in self._starts)
        return z, y, x

    @cached_property
    def corners(self) -> list[Triple]:
        """First voxel (z, y, x) of each window, x fastest."""
        return list(product(*self._starts))

    def __len__(self) -> int:
        return math.prod(self.counts)

    def region(self, number: int) -> Region:
        """Where window ``number`` lies in the volume, as far as it lies in it."""
        z, y, x = (
            slice(start, min(start + window, length))
            for start, window, length in zip(self.corners[number], self.window, self.shape, strict=True)
        )
        return z, y, x

    def cut(self, volume: Tensor, number: int) -> Tensor:
        """Window ``number`` of a volume (..., z, y, x), continued with zeros where it reaches beyond."""
        piece = volume[(..., *self.region(number))]
        missing = [w - n for w, n in zip(self.window, piece.shape[-3:], strict=True)]
        return F.pad(piece, (0, missing[2], 0, missing[1], 0, missing[0])) if any(missing) else piece

    def inside(self, piece: Tensor, number: int) -> Tensor:
        """The part of a window (..., z, y, x) that lies in the volume."""
        z, y, x = (place.stop - place.start for place in self.region(number))
        return piece[..., :z, :y, :x]

    def disassemble(self, volume: Tensor) -> Iterator[Tensor]:
        """The windows of a volume (..., z, y, x), one after the other."""
        if tuple(volume.shape[-3:]) != tuple(self.shape):
            raise NeurinoError(f"volume of {tuple(volume.shape[-3:])} voxels: the grid is for {tuple(self.shape)}")
        return (self.cut(volume, number) for number in range(len(self)))

    def reassemble(self, windows: Sequence[Tensor] | Iterator[Tensor]) -> Tensor:
        """The volume (..., z, y, x) of its windows; each voxel's gradient is that of the window it came from.

        Windows that overlap are averaged, each counting most in its middle.
        """
        if self.overlap:
            return self._blended(windows)
        rows = [self.inside(window, number) for number, window in enumerate(windows)]
        for axis, count in ((-1, self.counts[2]), (-2, self.counts[1]), (-3, self.counts[0])):
            rows = [torch.cat(rows[i : i + count], dim=axis) for i in range(0, len(rows), count)]
        return rows[0]

    def _blended(self, windows: Sequence[Tensor] | Iterator[Tensor]) -> Tensor:
        weight = total = seen = None
        for number, window in enumerate(windows):
            if weight is None or total is None or seen is None:
                weight = self.weights().to(window)
                total = window.new_zeros((*window.shape[:-3], *self.shape))
                seen = window.new_zeros(self.shape)
            region = self.region(number)
            total[(..., *region)] += self.inside(window * weight, number)
            seen[region] += self.inside(weight, number)
        assert total is not None
        assert seen is not None
        return total / seen

    def weights(self) -> Tensor:
        """What each voxel (z, y, x) of a window counts where windows overlap: a bell, an eighth of the window wide."""
        bells = []
        for length in self.window:
            places = (torch.arange(length, dtype=torch.float64) + 0.5) / length - 0.5
            bells.append(torch.exp(-0.5 * (places * 8) ** 2).clamp(min=1e-3))
        return bells[0][:, None, None] * bells[1][:, None] * bells[2]

    def depths(self, number: int) -> Tensor:
        """Where the slices of window ``number`` lie in the volume: -1 at its first, 1 at its last face. (d,)"""
        slices = torch.arange(self.window[0], dtype=torch.float64) + self.corners[number][0] + 0.5
        return (2 * slices / self.shape[0] - 1).float()
