"""What a DINeuro trainer's settings mean for the network, in the words of nnU-Net's plans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_neurino.networks.dineuro import dineuro_levels
from nnunet_neurino.trainers.architecture import Axes
from nnunet_neurino.trainers.dineuro_settings import DINeuroSettings


def dineuro_kwargs(settings: DINeuroSettings, spacing: Sequence[float]) -> dict[str, Any]:
    """``arch_kwargs`` for plans: JSON-able and complete.

    Args:
        settings: size and options of the network.
        spacing: micrometres (z, y, x) of a voxel.
    """
    return {
        "vit": settings.size,
        "tubes": settings.tubes,
        "transfer": settings.inflation if settings.pretrained else "scratch",
        "decoder": settings.decoder,
        "strides": dineuro_levels(settings.decoder, settings.magnify).rows,
        "block_depth": settings.block_depth,
        "layers": None if settings.layers is None else list(settings.layers),
        "decoder_width": settings.decoder_width,
        "norm": settings.norm,
        "magnify": settings.magnify,
        "tube_length": settings.tube_length,
        "tube_step": tube_steps(settings, spacing),
        "tube_controls": settings.tube_controls,
        "tube_gate": settings.tube_gate,
        "checkpointing": settings.checkpointing,
    }


def tube_steps(settings: DINeuroSettings, spacing: Sequence[float]) -> list[float]:
    """Voxels (z, y, x) of the image the ViT sees between two taps along each axis."""
    if settings.tube_step is None:
        return [1.0, 1.0, 1.0]
    finest = min(spacing)
    enlarged = (1.0, settings.magnify, settings.magnify)
    return [round(settings.tube_step * finest / s * m, 6) for s, m in zip(spacing, enlarged, strict=True)]


def flatter(patch: Axes) -> Axes:
    """A patch (z, y, x) with at most three eighths as many slices as the longest side in plane has voxels.

    Ours: slices are segmented one by one, and memory is better spent on the plane, which the ViT sees as a whole.
    Flatter ones yet, and nnU-Net would no longer rotate in 3D.
    """
    return (min(patch[0], max(patch[1:]) * 3 // 8), *patch[1:])


def dineuro_divisor(settings: DINeuroSettings) -> Axes:
    """Voxels (z, y, x) that a patch is a multiple of. Any number of slices will do."""
    return dineuro_levels(settings.decoder, settings.magnify).totals[-1]
