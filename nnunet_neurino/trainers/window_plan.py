"""What a window trainer's settings mean for the network and the patch, in the words of nnU-Net's plans."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nnunet_neurino.networks.vit import PATCH, vit_by_name
from nnunet_neurino.trainers.architecture import Axes
from nnunet_neurino.trainers.memory import first_that_fits
from nnunet_neurino.trainers.window_settings import WindowSettings

Plan = tuple[Axes, dict[str, Any]]
"""Patch (z, y, x) and ``arch_kwargs``."""


def window_plan(configuration: dict[str, Any], settings: WindowSettings, fits: Callable[[Plan], bool]) -> Plan:
    """The part of a volume that one loss is taken over, and the network's arguments: JSON-able and complete.

    The part is that of the settings, or the data set's median volume; it is divided evenly into windows no larger than
    ``settings.window``, in plane of whole tokens. While it does not fit, it loses a window along its longest axis, and
    a single window the smallest possible part of its longest axis.

    Args:
        configuration: of the plans.
        settings: what to build.
        fits: whether a plan's training fits into memory.
    """
    asked = settings.patch_size or configuration.get("median_image_size_in_voxels") or configuration["patch_size"]
    volume = tuple(max(1, math.ceil(n)) for n in asked)
    cells: Axes = (1, PATCH // settings.magnify, PATCH // settings.magnify)
    if settings.single:
        counts: Axes = (1, 1, 1)
        window = _rounded_up(volume, cells)
    else:
        counts = tuple(math.ceil(n / w) for n, w in zip(volume, settings.window, strict=True))
        window = _rounded_up([math.ceil(n / c) for n, c in zip(volume, counts, strict=True)], cells)
    plans = [_plan(*division, settings) for division in _ever_smaller(counts, window, cells, settings.single)]
    return plans[0] if settings.patch_size is not None else first_that_fits(plans, fits)


def _ever_smaller(counts: Axes, window: Axes, cells: Axes, single: bool) -> Iterator[tuple[Axes, Axes]]:
    """Windows (z, y, x) and voxels of a window (z, y, x), then ever smaller volumes, see ``window_plan``."""
    while True:
        yield counts, window
        units, step = (window, cells) if single else (counts, (1,) * 3)
        room = [axis for axis in range(3) if units[axis] > step[axis]]
        if not room:
            return
        longest = max(room, key=lambda axis: (counts[axis] * window[axis], -axis))
        smaller = tuple(n - step[axis] if axis == longest else n for axis, n in enumerate(units))
        counts, window = (counts, smaller) if single else (smaller, window)


def _plan(counts: Axes, window: Axes, settings: WindowSettings) -> Plan:
    patch = tuple(c * w for c, w in zip(counts, window, strict=True))
    return patch, {
        "vit": settings.size,
        "window": list(window),
        "magnify": settings.magnify,
        "layers": [vit_by_name(settings.size).depth - 1] if settings.layers == "last" else None,
        "channels": settings.channels,
        "dropout": settings.dropout,
        "arms": list(counts) if settings.per_position else None,
        "dense_head": settings.dense_head,
        "overlap": settings.overlap,
        "strides": [[1, 1, 1]],
    }


def _rounded_up(size: Sequence[int], cells: Axes) -> Axes:
    return tuple(-(-n // c) * c for n, c in zip(size, cells, strict=True))
