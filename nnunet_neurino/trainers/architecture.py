"""What a trainer's settings mean for the network, in the words of nnU-Net's plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_neurino.trainers.settings import TrainerSettings

NETWORK = "nnunet_neurino.networks.NeurINO"
"""The network's name in plans files."""

Axes = tuple[int, ...]
"""One number for each of the axes z, y, x."""


def n_level_steps(settings: TrainerSettings) -> int:
    """How many times the network halves: a stem of stride 4 makes one level more."""
    return 4 if settings.stem_stride == 2 else 5


def architecture_kwargs(
    settings: TrainerSettings, level_strides: Sequence[Axes], kernel_depths: Sequence[int]
) -> dict[str, Any]:
    """``arch_kwargs`` for plans: JSON-able and complete.

    nnU-Net makes one deep-supervision target for each row of ``strides`` but the last. The network has a head at
    full resolution and at four levels below it; behind a stem of stride 2 the fourth is the bottleneck, and a last
    row of ones stands for it.

    Args:
        settings: size and options of the network.
        level_strides: strides (z, y, x) from each level to the next, finest first.
        kernel_depths: taps along z of the depthwise kernels of the four encoder stages.
    """
    rows = [(1, 1, 1), *level_strides]
    if len(rows) == 5:
        rows.append((1, 1, 1))
    return {
        "size": settings.size,
        "stem_stride": settings.stem_stride,
        "grn": settings.grn,
        "norm": settings.norm,
        "strides": [list(row) for row in rows],
        "kernel_depth": list(kernel_depths),
        "checkpointing": settings.checkpointing,
    }


def level_strides_of(arch_kwargs: dict[str, Any]) -> list[Axes]:
    """The strides between levels that ``architecture_kwargs`` was given."""
    rows = [tuple(row) for row in arch_kwargs["strides"]][1:]
    return rows[:-1] if arch_kwargs["stem_stride"] == 2 else rows
