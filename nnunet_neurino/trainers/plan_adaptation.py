"""Rewrite nnU-Net's plans for NeurINO: network, strides for each axis, patch and batch size.

nnU-Net reads everything it knows about a model from its plans, in training and in prediction. So a NeurINO trainer
changes its plans before nnU-Net reads them, nnU-Net saves the changed plans in the model folder, and every command
of nnU-Net that reads that folder agrees with the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.architecture import (
    NETWORKS,
    Axes,
    architecture_kwargs,
    level_strides_of,
    n_level_steps,
)
from nnunet_neurino.trainers.dineuro import dineuro_divisor, dineuro_kwargs, flatter
from nnunet_neurino.trainers.dineuro_settings import DINeuroSettings
from nnunet_neurino.trainers.memory import first_that_fits, training_memory
from nnunet_neurino.trainers.settings import PLANS_KEY, TrainerSettings
from nnunet_neurino.trainers.window_plan import window_plan
from nnunet_neurino.trainers.window_settings import WindowSettings
from nnunet_neurino.transfer import default_kernel_depth

SMALLEST_EDGE = 2
"""No axis is halved to fewer voxels than this at the bottleneck."""


def adapt_plans(
    plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any], settings: TrainerSettings
) -> None:
    """Make ``plans["configurations"][configuration]`` one for NeurINO, in place.

    Deterministic and idempotent. Works for nnU-Net's default and ResEnc plans, our own and hand-made ones,
    3d_fullres, 3d_lowres and cascades. Only the patch size, the batch size and the architecture change, so data
    that are preprocessed stay valid.

    An axis is halved where nnU-Net's own plan halves it; at levels that the plan does not reach, and for a patch size
    given in the settings, where its spacing is within a factor of two of the finest and two voxels remain. Networks
    inflated by ``triplane`` halve every axis.

    Patch and batch size are those of the plans, the patch rounded up to what the strides need, both made smaller
    (the batch first, down to 2, then the patch along its longest axis) until ``settings.memory`` suffices. Plans
    that already hold this very network keep both: whoever wrote them chose them. DINOWindow's patch is the whole
    volume instead, see ``window_plan``.

    Args:
        plans: contents of a plans file.
        configuration: such as ``"3d_fullres"``.
        dataset_json: contents of the data set's ``dataset.json`` (channels, labels).
        settings: what to build and for how much memory.

    Raises:
        NeurinoError: for a configuration that is not in the plans or not 3D.
    """
    if configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"])
        raise NeurinoError(
            f"plans {plans.get('plans_name')}: no configuration {configuration!r}; there are {known}. "
            "Small images have no 3d_lowres: train 3d_fullres"
        )
    # A manager of a copy: get_configuration is cached by nnU-Net and must not see the plans before they are changed.
    manager = PlansManager(dict(plans))
    current = manager.get_configuration(configuration)
    if len(current.patch_size) != 3:
        raise NeurinoError(
            f"configuration {configuration} is {len(current.patch_size)}D; NeurINO is 3D: train 3d_fullres"
        )
    network = NETWORKS[settings.network]
    channels = determine_num_input_channels(manager, current, dataset_json)
    classes = manager.get_label_manager(dataset_json).num_segmentation_heads

    def memory(kwargs: dict[str, Any], patch: Axes, batch: int) -> float:
        return training_memory(
            network,
            kwargs,
            patch,
            batch,
            channels,
            classes,
            full_precision=settings.full_precision,
            ema=bool(settings.ema),
            frozen=settings.frozen_epochs == -1,
            tasl=settings.tasl is not None,
        )

    if isinstance(settings, WindowSettings):
        batch = settings.batch_size or current.batch_size
        patch, kwargs = window_plan(
            current.configuration, settings, lambda plan: memory(plan[1], plan[0], batch) <= settings.memory
        )
    else:
        patch, batch, kwargs = _patch_wise(current, settings, memory)
    plans["configurations"][configuration].update(
        patch_size=list(patch),
        batch_size=int(batch),
        architecture={"network_class_name": network, "arch_kwargs": kwargs, "_kw_requires_import": []},
    )


def _patch_wise(
    current: ConfigurationManager, settings: TrainerSettings, memory: Callable[[dict[str, Any], Axes, int], float]
) -> tuple[Axes, int, dict[str, Any]]:
    """Patch size (z, y, x), patches a step and the network's arguments for networks that see patches."""
    kwargs, divisor = _architecture(current.configuration, settings)
    network = NETWORKS[settings.network]
    already_ours = current.network_arch_class_name == network and current.network_arch_init_kwargs == kwargs
    patch = _rounded_up(settings.patch_size or tuple(current.patch_size), divisor)
    batch = settings.batch_size or current.batch_size
    if not already_ours:
        if isinstance(settings, DINeuroSettings) and settings.patch_size is None:
            patch = flatter(patch)
        if settings.batch_size is None:
            batches = [batch, *range(batch - 1, 1, -1)]
            batch = first_that_fits(batches, lambda b: memory(kwargs, patch, b) <= settings.memory)
        if settings.patch_size is None:
            patches = list(_ever_smaller(patch, divisor))
            patch = first_that_fits(patches, lambda p: memory(kwargs, p, batch) <= settings.memory)
    return patch, batch, kwargs


def settings_in(plans: dict[str, Any], defaults: TrainerSettings) -> TrainerSettings:
    """The trainer's settings with the changes that the plans carry (from the command line)."""
    return defaults.replaced(plans.get(PLANS_KEY, {}))


def _architecture(configuration: dict[str, Any], settings: TrainerSettings) -> tuple[dict[str, Any], Axes]:
    """The network's arguments, and the voxels (z, y, x) that a patch must be a multiple of."""
    if isinstance(settings, DINeuroSettings):
        spacing = [float(s) for s in configuration["spacing"]]
        return dineuro_kwargs(settings, spacing), dineuro_divisor(settings)
    strides, kernel_depths = _geometry(configuration, settings)
    divisor = tuple(math.prod(step[axis] for step in strides) for axis in range(3))
    return architecture_kwargs(settings, strides, kernel_depths), divisor


def _geometry(configuration: dict[str, Any], settings: TrainerSettings) -> tuple[list[Axes], list[int]]:
    """Strides from each level to the next, finest first, and the z taps of the four encoder stages' kernels."""
    if settings.inflation == "triplane":
        return _cubic_geometry(configuration["spacing"], settings)
    architecture = configuration["architecture"]
    arch_kwargs = architecture["arch_kwargs"]
    if settings.patch_size is not None:
        planned = []  # the plan's strides are for another patch
    elif architecture["network_class_name"] in NETWORKS.values():
        planned = level_strides_of(arch_kwargs)
    else:
        planned = [tuple(int(s) for s in row) for row in arch_kwargs.get("strides", [])][1:]
        if any(set(row) - {1, 2} for row in planned):
            planned = []  # not a network that halves: go by the spacing alone
    edges = list(settings.patch_size or configuration["patch_size"])
    spacing = [float(s) for s in configuration["spacing"]]
    strides: list[Axes] = []
    kernel_depths = []
    for level in range(n_level_steps(settings)):
        if level < len(planned):
            stride = planned[level]
        else:
            stride = _next_stride(spacing, edges)
        strides.append(stride)
        edges = [-(-e // s) for e, s in zip(edges, stride, strict=True)]
        spacing = [d * s for d, s in zip(spacing, stride, strict=True)]
        kernel_depths.append(1 if spacing[0] >= 2 * min(spacing) else 3)
    return strides, kernel_depths[-4:]


def _cubic_geometry(spacing: Sequence[float], settings: TrainerSettings) -> tuple[list[Axes], list[int]]:
    """As ``_geometry`` for a rule that prefers no axis: all are halved at every step, be the patch ever so flat."""
    if max(spacing) >= 2 * min(spacing):
        raise NeurinoError(
            f"inflation 'triplane' treats all axes alike, but voxels are {[float(s) for s in spacing]} apart: use "
            "another rule (the default, nnUNetTrainerNeurINO), or plan with cubic voxels (-overwrite_target_spacing)"
        )
    return [(2, 2, 2)] * n_level_steps(settings), [default_kernel_depth("triplane")] * 4


def _next_stride(spacing: Sequence[float], edges: Sequence[int]) -> Axes:
    """nnU-Net's rule: of the axes that are long enough, those less than twice as coarse as the finest of them."""
    long_enough = [edge >= 2 * SMALLEST_EDGE for edge in edges]
    finest = min((s for s, enough in zip(spacing, long_enough, strict=True) if enough), default=0.0)
    return tuple(2 if enough and s < 2 * finest else 1 for s, enough in zip(spacing, long_enough, strict=True))


def _rounded_up(patch: Axes, divisor: Axes) -> Axes:
    return tuple(max(d, -(-int(p) // d) * d) for p, d in zip(patch, divisor, strict=True))


def _ever_smaller(patch: Axes, divisor: Axes) -> Iterator[Axes]:
    """The patch, then ever smaller ones: the axis with the most voxels (and room) loses its divisor each time."""
    while True:
        yield patch
        room = [axis for axis in range(3) if patch[axis] >= 2 * divisor[axis] and patch[axis] > 16]
        if not room:
            return
        longest = max(room, key=lambda axis: (patch[axis], -axis))
        patch = tuple(p - divisor[axis] if axis == longest else p for axis, p in enumerate(patch))
