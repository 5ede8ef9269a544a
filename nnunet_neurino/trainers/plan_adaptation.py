"""Rewrite nnU-Net's plans for a family's network: its class and arguments, patch and batch size.

nnU-Net reads everything it knows about a model from its plans, in training and in prediction. So a trainer changes its
plans before nnU-Net reads them, nnU-Net saves the changed plans in the model folder, and every command of nnU-Net that
reads that folder agrees with the training.
"""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families import Family, Plan, Recipe
from nnunet_neurino.trainers.memory import training_memory


def adapt_plans(
    plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any], family: Family[Any], settings: Recipe
) -> None:
    """Make ``plans["configurations"][configuration]`` one for a family's network, in place.

    Deterministic and idempotent. Works for nnU-Net's default and ResEnc plans, our own and hand-made ones, 3d_fullres,
    3d_lowres and cascades. Only the patch size, the batch size and the architecture change, so data that are
    preprocessed stay valid. Plans that already hold this very network keep patch and batch: whoever wrote them chose
    them.

    Args:
        plans: contents of a plans file.
        configuration: such as ``"3d_fullres"``.
        dataset_json: contents of the data set's ``dataset.json`` (channels, labels).
        family: whose network it is.
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
            f"configuration {configuration} is {len(current.patch_size)}D; {family.title} is 3D: train 3d_fullres"
        )
    network = family.network or current.network_arch_class_name
    channels = determine_num_input_channels(manager, current, dataset_json)
    classes = manager.get_label_manager(dataset_json).num_segmentation_heads

    def fits(plan: Plan) -> bool:
        needed = training_memory(
            network,
            plan.arch_kwargs,
            plan.patch_size,
            plan.batch_size,
            channels,
            classes,
            full_precision=settings.full_precision,
            ema=bool(settings.ema),
            frozen=settings.frozen_epochs == -1,
            tasl=settings.tasl is not None,
        )
        return needed <= settings.memory

    plan = family.plan(current.configuration, settings, fits)
    plans["configurations"][configuration].update(
        patch_size=list(plan.patch_size),
        batch_size=int(plan.batch_size),
        architecture={
            "network_class_name": network,
            "arch_kwargs": plan.arch_kwargs,
            "_kw_requires_import": list(plan.requires_import),
        },
    )
