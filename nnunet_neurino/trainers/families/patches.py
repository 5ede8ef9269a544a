"""For families that see patches of any size: which axes each level halves, and how large patch and batch may be."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from nnunet_neurino.trainers.families.family import Axes, Family, Plan
from nnunet_neurino.trainers.families.recipe import Recipe

SMALLEST_EDGE = 2
"""No axis is halved to fewer voxels than this at the bottleneck."""


def level_strides(
    configuration: dict[str, Any], n_steps: int, patch_size: Axes | None = None
) -> tuple[list[Axes], list[int]]:
    """Strides (z, y, x) from each level to the next, finest first, and the depth (1 or 3) of kernels at each level.

    An axis is halved where nnU-Net's own plan halves it; at levels that the plan does not reach, and for a given patch
    size, where its spacing is within a factor of two of the finest and two voxels remain. Kernels have no depth as long
    as slices are twice as far apart as voxels in plane.

    Args:
        configuration: of the plans.
        n_steps: how many times the network halves.
        patch_size: voxels (z, y, x) if another patch than the plan's is to be used.
    """
    planned = [] if patch_size else _planned_strides(configuration["architecture"]["arch_kwargs"])
    edges = list(patch_size or configuration["patch_size"])
    spacing = [float(s) for s in configuration["spacing"]]
    strides, depths = [], []
    for level in range(n_steps):
        stride = planned[level] if level < len(planned) else _next_stride(spacing, edges)
        strides.append(stride)
        edges = [-(-e // s) for e, s in zip(edges, stride, strict=True)]
        spacing = [d * s for d, s in zip(spacing, stride, strict=True)]
        depths.append(1 if spacing[0] >= 2 * min(spacing) else 3)
    return strides, depths


def stride_rows(strides: Sequence[Axes]) -> list[list[int]]:
    """``strides`` of a network with a head at full resolution and at four levels below it.

    nnU-Net makes one deep-supervision target for each row but the last. Of a network that halves four times the fourth
    level is the bottleneck: a last row of ones stands for its head.
    """
    rows = [[1, 1, 1], *(list(stride) for stride in strides)]
    return [*rows, [1, 1, 1]] if len(rows) == 5 else rows


def totals(strides: Sequence[Axes]) -> Axes:
    """What all strides together divide each axis by."""
    return tuple(math.prod(step[axis] for step in strides) for axis in range(3))


def rounded_up(patch: Sequence[int], divisor: Axes) -> Axes:
    """The patch made a multiple of ``divisor`` along each axis."""
    return tuple(max(d, -(-int(p) // d) * d) for p, d in zip(patch, divisor, strict=True))


def patch_wise(
    family: Family[Any],
    configuration: dict[str, Any],
    settings: Recipe,
    arch_kwargs: dict[str, Any],
    divisor: Axes,
    fits: Callable[[Plan], bool],
    shaped: Callable[[Axes], Axes] = lambda patch: patch,
) -> Plan:
    """A plan for a network with these arguments: patch and batch of the settings, else of nnU-Net's plan.

    The patch is rounded up to a multiple of ``divisor``. What the settings do not give is made smaller until the plan
    fits into memory: the batch, down to 2, then the patch along its longest axis. If the configuration is one for this
    very network already, its patch and batch stay: whoever wrote it chose them.

    Args:
        family: whose network it is.
        configuration: of the plans.
        settings: patch and batch size, if they are given.
        arch_kwargs: of the network.
        divisor: what a patch is a multiple of along each axis.
        fits: see ``Family.plan``.
        shaped: the patch to start from, of a patch of nnU-Net's.
    """
    patch = rounded_up(settings.patch_size or configuration["patch_size"], divisor)
    plan = Plan(patch, settings.batch_size or configuration["batch_size"], arch_kwargs)
    architecture = configuration["architecture"]
    if architecture["network_class_name"] == family.network and architecture["arch_kwargs"] == arch_kwargs:
        return plan
    if settings.patch_size is None:
        plan = replace(plan, patch_size=shaped(patch))
    if settings.batch_size is None:
        batches = [plan.batch_size, *range(plan.batch_size - 1, 1, -1)]
        plan = first_that_fits([replace(plan, batch_size=batch) for batch in batches], fits)
    if settings.patch_size is None:
        patches = _ever_smaller(plan.patch_size, divisor)
        plan = first_that_fits([replace(plan, patch_size=patch) for patch in patches], fits)
    return plan


def first_that_fits(plans: Sequence[Plan], fits: Callable[[Plan], bool]) -> Plan:
    """The first that fits of plans that take less and less memory, by bisection; the last one if none does."""
    if fits(plans[0]):
        return plans[0]
    return plans[min(bisect_left(plans, True, lo=1, key=fits), len(plans) - 1)]


def _planned_strides(arch_kwargs: dict[str, Any]) -> list[Axes]:
    """From level to level of the plan's network; none of a network that does more than halve: go by the spacing."""
    rows = [tuple(int(s) for s in row) for row in arch_kwargs.get("strides", [])][1:]
    if rows and rows[-1] == (1, 1, 1) and arch_kwargs.get("stem_stride") != 4:
        rows.pop()  # of a network of ours: stands for the bottleneck's head, see stride_rows
    return [] if any(set(row) - {1, 2} for row in rows) else rows


def _next_stride(spacing: Sequence[float], edges: Sequence[int]) -> Axes:
    """nnU-Net's rule: of the axes that are long enough, those less than twice as coarse as the finest of them."""
    long_enough = [edge >= 2 * SMALLEST_EDGE for edge in edges]
    finest = min((s for s, enough in zip(spacing, long_enough, strict=True) if enough), default=0.0)
    return tuple(2 if enough and s < 2 * finest else 1 for s, enough in zip(spacing, long_enough, strict=True))


def _ever_smaller(patch: Axes, divisor: Axes) -> Iterator[Axes]:
    """The patch, then ever smaller ones: the axis with the most voxels (and room) loses its divisor each time."""
    while True:
        yield patch
        room = [axis for axis in range(3) if patch[axis] >= 2 * divisor[axis] and patch[axis] > 16]
        if not room:
            return
        longest = max(room, key=lambda axis: (patch[axis], -axis))
        patch = tuple(p - divisor[axis] if axis == longest else p for axis, p in enumerate(patch))
