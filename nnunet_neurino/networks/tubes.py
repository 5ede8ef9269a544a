"""Deformable tubes: a 2D patch kernel laid out as a line that bends with the neurite (DINeuro, arXiv 2410.22078).

From the paper: the 16 x 16 kernel of a ViT's patch embedding is flattened to 256 taps and laid along z, y and x. Along
the tube the taps are fixed. On the two other axes they are shifted by offsets that accumulate from the centre outwards,
each step in [-1, 1], so that the tube is one connected, bending line.

Ours, where the paper is silent or its public base cannot run at this length:

* A tube is sampled once for each *token*, not for each voxel; a patch embedding needs no more. That takes a
  thousandth of the memory.
* Steps are learned at a few control points along the tube and interpolated; a control point for each tap is the
  literal form. A cumulative sum is linear, so interpolation and sum are one constant matrix.
* The offset head's last layer starts at zero (straight tubes), and a gate at zero adds the tubes to the inflated
  embedding: training starts exactly at the transferred network.
* Taps may be closer than a voxel, so that a tube has one length in micrometres whatever the voxel's shape.
* Outside the image there are zeros.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.networks.vit import PATCH

LENGTH = PATCH * PATCH


def centre_of(length: int) -> int:
    """Index of the tap that a tube of ``length`` taps is bent from: 127 of 256, 2 of 5."""
    return (length - 1) // 2


def curve_basis(length: int, controls: int) -> Tensor:
    """Steps at the control points -> offsets at the taps: a matrix (controls, length).

    The steps are interpolated linearly between control points spread evenly over the taps, then summed up from the
    centre outwards, in both directions. The column of the centre is zero: its offset is 0, whatever the steps. The
    weights of a step add up to one, so |offset| at tap i is at most |i - centre| for steps in [-1, 1].

    Args:
        length: taps.
        controls: control points; as many as taps gives each tap a step of its own.
    """
    at = torch.linspace(0, controls - 1, length, dtype=torch.float64) if length > 1 else torch.zeros(1).double()
    low = at.floor().clamp(max=max(controls - 2, 0)).long()
    share = at - low
    steps = torch.zeros(length, controls, dtype=torch.float64)
    rows = torch.arange(length)
    steps[rows, low] = 1 - share
    if controls > 1:
        steps[rows, low + 1] += share
    centre = centre_of(length)
    offsets = torch.zeros_like(steps)
    offsets[centre + 1 :] = steps[centre + 1 :].cumsum(0)
    offsets[:centre] = steps[:centre].flip(0).cumsum(0).flip(0)
    return offsets.T.to(torch.float32)


def flatten_kernel(kernel: Tensor, length: int = LENGTH) -> Tensor:
    """A 2D kernel (out, in, y, x) as taps (out, in, length), row by row.

    Args:
        kernel: of the 2D patch embedding.
        length: y * x, or a divisor of it: neighbouring taps are then added up.
    """
    taps = kernel.flatten(2)
    if taps.shape[-1] % length:
        raise NeurinoError(f"a kernel of {taps.shape[-1]} taps cannot become a tube of {length}: expected a divisor")
    return taps.unflatten(-1, (length, -1)).sum(-1)


class TubeView(nn.Module):
    """Tokens of tubes along one axis.

    With straight tubes it is a convolution whose kernel is a line along ``axis``, its tap ``centre_of(length)`` at the
    middle voxel (the lower one, where there are two) of each token's cell.

    Args:
        channels: of the image.
        width: channels of a token.
        axis: 0 (z), 1 (y) or 2 (x).
        length: taps.
        stride: voxels (z, y, x) of a token's cell.
        step: voxels (z, y, x) between taps along the tube, and most that one tap bends from the one before.
        controls: points along the tube at which steps are learned.
        hidden: channels of the offset head.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        axis: int,
        length: int = LENGTH,
        stride: Triple = (1, PATCH, PATCH),
        step: Sequence[float] = (1.0, 1.0, 1.0),
        controls: int = 17,
        hidden: int = 32,
    ) -> None:
        super().__init__()
        if not 1 <= controls <= length:
            raise NeurinoError(f"{controls} control points on a tube of {length} taps: expected 1 to {length}")
        self.axis = axis
        self.length = length
        # One function for all views: the image is turned so that the tube's axis is its last.
        self.order = (axis + 1) % 3, (axis + 2) % 3, axis
        first, second, along = self.order
        self.cell = stride[first], stride[second], stride[along]
        self.step = tuple(float(step[a]) for a in self.order)
        self.weight = nn.Parameter(torch.empty(width, channels, length))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.trunc_normal_(self.weight, std=0.02)
        # A cell of one slice is looked at with its neighbours.
        kernel: Any = tuple(size if size > 1 else 3 for size in self.cell)
        padding: Any = tuple(0 if size > 1 else 1 for size in self.cell)
        self.head = nn.Sequential(
            nn.Conv3d(channels, hidden, kernel, self.cell, padding),
            nn.GELU(),
            nn.Conv3d(hidden, hidden, 3, padding=1),
            nn.GELU(),
            nn.Conv3d(hidden, 2 * controls, 1),
        )
        nn.init.zeros_(self.head[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.head[-1].bias)  # type: ignore[arg-type]
        self.register_buffer("basis", curve_basis(length, controls), persistent=False)
        self.basis: Tensor

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, Z, Y, X) -> tokens (N, z, y, x, width)."""
        turned = image.permute(0, 1, *(2 + axis for axis in self.order))
        # Positions must not be rounded to half precision.
        with _without_autocast(image):
            values = _sampled(turned.to(_wide(turned)), self._positions(self._offsets(turned)))
        tokens = F.linear(values.flatten(-2).to(self.weight.dtype), self.weight.flatten(1), self.bias)
        return tokens.permute(0, *(1 + self.order.index(axis) for axis in range(3)), 4)

    def lines(self, image: Tensor) -> Tensor:
        """Where each token's taps are: (N, z, y, x, length, 3), the last being z, y, x in voxels of ``image``."""
        turned = image.permute(0, 1, *(2 + axis for axis in self.order))
        places = [self.order.index(axis) for axis in range(3)]
        positions = torch.stack(self._positions(self._offsets(turned)), dim=-1)[..., places]
        return positions.permute(0, *(1 + place for place in places), 4, 5)

    def offsets(self, image: Tensor) -> Tensor:
        """Accumulated offsets (N, z, y, x, 2, length) in steps, on the axes after and before ``axis`` (z, y, x, z)."""
        turned = image.permute(0, 1, *(2 + axis for axis in self.order))
        return self._offsets(turned).permute(0, *(1 + self.order.index(axis) for axis in range(3)), 4, 5)

    def _offsets(self, turned: Tensor) -> Tensor:
        steps = self.head(turned.to(self.weight.dtype)).to(_wide(turned)).permute(0, 2, 3, 4, 1)
        steps = torch.tanh(steps).unflatten(-1, (2, -1))
        with _without_autocast(turned):
            return steps @ self.basis.to(steps.dtype)

    def _positions(self, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Voxel positions on the axes of the turned image, each (N, a, b, c, length)."""
        like = offsets[..., 0, :]
        taps = torch.arange(self.length, dtype=offsets.dtype, device=offsets.device) - centre_of(self.length)
        centres = []
        for place, cell in enumerate(self.cell):
            cells = torch.arange(offsets.shape[1 + place], dtype=offsets.dtype, device=offsets.device)
            shape = [1] * 5
            shape[1 + place] = -1
            centres.append((cells * cell + (cell - 1) // 2).view(shape))
        first = centres[0] + offsets[..., 0, :] * self.step[0]
        second = centres[1] + offsets[..., 1, :] * self.step[1]
        along = (centres[2] + taps * self.step[2]).expand_as(like)
        return first, second, along


def _wide(volume: Tensor) -> torch.dtype:
    """The precision of positions: at least single."""
    return torch.promote_types(volume.dtype, torch.float32)


def _without_autocast(volume: Tensor) -> contextlib.AbstractContextManager[Any]:
    # The meta device, on which only shapes are computed, has no mixed precision that could be switched off.
    return contextlib.nullcontext() if volume.is_meta else torch.autocast(volume.device.type, enabled=False)


def _sampled(volume: Tensor, positions: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Trilinear samples of (N, C, a, b, c) at positions (N, ...) in voxels, zeros outside: (N, ..., C, length)."""
    # At sizes that are powers of two, going to PyTorch's relative positions and back rounds nothing.
    sizes = [1 << (int(size) - 1).bit_length() for size in volume.shape[2:]]  # not ints while they are traced
    missing = [want - have for want, have in zip(sizes, volume.shape[2:], strict=True)]
    if any(missing):
        volume = F.pad(volume, (0, missing[2], 0, missing[1], 0, missing[0]))
    relative = [
        (2 * position + 1) / size - 1 for position, size in zip(reversed(positions), reversed(sizes), strict=True)
    ]
    grid = torch.stack(relative, dim=-1)
    samples = F.grid_sample(volume, grid.flatten(1, 3).unsqueeze(3), "bilinear", "zeros", align_corners=False)
    # (N, C, tokens, length, 1) -> (N, a, b, c, C, length)
    return samples.squeeze(-1).transpose(1, 2).unflatten(1, grid.shape[1:4])


class TubeEmbedding(nn.Module):
    """Adds tubes along z, y and x to a patch embedding.

    tokens + gate * mix(z tokens, y tokens, x tokens): ``mix`` starts as their mean, ``gate`` (a number for each
    channel) at ``gate``. How the paper joins views and embedding is not said; this is ours.

    Args:
        channels: of the image.
        width: channels of a token.
        length: taps of a tube.
        gate: start value; 0 leaves the embedding as it is.
        **view: further arguments of ``TubeView``.
    """

    def __init__(self, channels: int, width: int, length: int = LENGTH, gate: float = 0.0, **view: Any) -> None:
        super().__init__()
        self.length = length
        self.views = nn.ModuleList(TubeView(channels, width, axis, length, **view) for axis in range(3))
        self.mix = nn.Linear(3 * width, width)
        with torch.no_grad():
            self.mix.weight.copy_(torch.eye(width).repeat(1, 3) / 3)
        nn.init.zeros_(self.mix.bias)
        self.gate = nn.Parameter(torch.full((width,), float(gate)))

    def kernels(self) -> list[nn.Parameter]:
        """What 2D weights are transferred into: the weights and biases of the three views."""
        return [p for view in self.views for p in view.parameters(recurse=False)]

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        """Image (N, C, Z, Y, X), tokens of the patch embedding (N, z, y, x, width) -> tokens."""
        views = torch.cat([view(image) for view in self.views], dim=-1)
        return tokens + self.gate * self.mix(views)
