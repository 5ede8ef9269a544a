"""What a trainer's settings mean for the network, in the words of nnU-Net's plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_neurino.trainers.settings import TrainerSettings

NETWORKS = {
    "neurino": "nnunet_neurino.networks.NeurINO",
    "mednext": "nnunet_neurino.networks.MedNeXt",
    "dineuro": "nnunet_neurino.networks.DINeuro",
    "dino_window": "nnunet_neurino.networks.DINOWindow",
}
"""The networks' names in plans files of users: classes must stay where these say they are."""

Axes = tuple[int, ...]
"""One number for each of the axes z, y, x."""


def n_level_steps(settings: TrainerSettings) -> int:
    """How many times the network halves: a stem of stride 4 makes one level more."""
    return 5 if settings.network == "neurino" and settings.stem_stride == 4 else 4


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
    kwargs = {
        "size": settings.size,
        "grn": settings.grn,
        "norm": settings.norm,
        "strides": [list(row) for row in rows],
        "checkpointing": settings.checkpointing,
    }
    if settings.network == "neurino":
        kwargs |= {"stem_stride": settings.stem_stride, "kernel_depth": list(kernel_depths)}
    return kwargs


def level_strides_of(arch_kwargs: dict[str, Any]) -> list[Axes]:
    """The strides between levels that ``architecture_kwargs`` was given."""
    rows = [tuple(row) for row in arch_kwargs["strides"]][1:]
    return rows if arch_kwargs.get("stem_stride") == 4 else rows[:-1]
