"""Where a token lies: learned positions brought to another grid, and rotary ones for any grid."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int]
"""Tokens down (y) and to the right (x)."""


def resize_positions(positions: Tensor, native: Grid, grid: Grid, n_prefix: int = 1) -> Tensor:
    """Bring learned positions to another grid: bicubic, smoothed where the grid gets coarser, as timm does.

    Args:
        positions: (1, n_prefix + native y * native x, C): first those of the class token (and registers), then those of
            the image, row by row.
        native: grid they were learned on.
        grid: grid wanted.
        n_prefix: how many of the first belong to no place in the image; they stay first and as they are.

    Returns:
        (1, n_prefix + y * x, C); ``positions`` itself where the grids are equal.
    """
    if tuple(native) == tuple(grid):
        return positions
    prefix, image = positions[:, :n_prefix], positions[:, n_prefix:]
    channels = positions.shape[-1]
    # Interpolation of half precision is coarse, or missing on a CPU.
    plane = image.reshape(1, *native, channels).permute(0, 3, 1, 2)
    plane = plane.to(torch.promote_types(plane.dtype, torch.float32))
    plane = F.interpolate(plane, size=tuple(grid), mode="bicubic", antialias=True)
    image = plane.permute(0, 2, 3, 1).reshape(1, -1, channels).to(positions.dtype)
    return torch.cat([prefix, image], dim=1)


def rotary_table(
    grid: Grid, head_width: int, n_prefix: int, base: float = 100.0, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Sines and cosines by which DINOv3 turns queries and keys (Siméoni et al., 2025).

    Coordinates run from -1 to 1 over each axis of the grid, taken at the middles of the tokens, so that no grid is
    native. Half of the turned pairs stand for y, half for x.

    Args:
        grid: tokens y, x.
        head_width: channels of one attention head; a multiple of four.
        n_prefix: tokens in front (class, registers) that are not turned.
        base: the periods run from 1 up to this.
        device: of the result.

    Returns:
        two tensors (n_prefix + y * x, head_width).
    """
    quarter = head_width // 4
    exponents = torch.arange(quarter, dtype=torch.float32, device=device) / quarter
    periods = base**exponents
    middles = [(torch.arange(n, dtype=torch.float32, device=device) + 0.5) / n * 2 - 1 for n in grid]
    places = torch.stack(torch.meshgrid(*middles, indexing="ij"), dim=-1).flatten(0, 1)
    angles = (2 * math.pi * places[:, :, None] / periods).flatten(1).repeat(1, 2)
    angles = F.pad(angles, (0, 0, n_prefix, 0))  # an angle of 0 turns nothing
    return angles.sin(), angles.cos()


def turn(heads: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys (..., tokens, head_width) by ``rotary_table``."""
    sines, cosines = table
    first, second = heads.chunk(2, dim=-1)
    return (heads * cosines + torch.cat([-second, first], dim=-1) * sines).to(heads.dtype)
