"""MedNeXt: the baseline of the NeurINO paper's tables, its network, its optimiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from nnunet_neurino.trainers.families.family import Family, Plan, register
from nnunet_neurino.trainers.families.patches import level_strides, patch_wise, stride_rows, totals
from nnunet_neurino.trainers.families.recipe import RELEASED_OPTIMISER, Recipe


@dataclass(frozen=True)
class MedNeXtSettings(Recipe):
    """Recipe of a training of MedNeXt; the defaults are those of ``nnUNetTrainerMedNeXtTASL`` but for the optimiser."""

    size: str = "L"  # ``"S"``, ``"B"``, ``"M"`` or ``"L"``
    grn: bool = True  # global response normalisation
    norm: str = "group"  # ``"group"`` (published), ``"layer"`` or ``"batch"``
    # compute activations again in the backward pass instead of keeping them: less memory, more time
    checkpointing: bool = False
    bottleneck_loss: bool = False  # also supervise the coarsest head; nnU-Net gives its last one no weight

    fixed: ClassVar[tuple[str, ...]] = (*Recipe.fixed, "size", "grn", "norm")
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        **Recipe.choices,
        "size": ("S", "B", "M", "L"),
        "norm": ("group", "batch", "layer"),
    }


@register
class MedNeXtTASL(Family[MedNeXtSettings]):
    base = "nnUNetTrainerMedNeXtTASL"
    title = "MedNeXt"
    plain = "size L, kernel 3, with TASL"
    settings = MedNeXtSettings(**RELEASED_OPTIMISER)
    network = "nnunet_neurino.networks.MedNeXt"

    def plan(self, configuration: dict[str, Any], settings: MedNeXtSettings, fits: Callable[[Plan], bool]) -> Plan:
        strides, _ = level_strides(configuration, 4, settings.patch_size)
        arch_kwargs = {**settings.named("size", "grn", "norm", "checkpointing"), "strides": stride_rows(strides)}
        return patch_wise(self, configuration, settings, arch_kwargs, totals(strides), fits)


@register
class MedNeXt(MedNeXtTASL):
    base = "nnUNetTrainerMedNeXt"
    plain = "size L, kernel 3, without TASL"
    settings = replace(MedNeXtTASL.settings, tasl=None)
