"""``nnUNetNeurINOPlans``: plans for a family's network that any trainer, nnU-Net's own included, can use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunet_neurino.trainers.datasets import nnunet_folder
from nnunet_neurino.trainers.families import Family, Recipe
from nnunet_neurino.trainers.plan_adaptation import adapt_plans

PLANS = "nnUNetNeurINOPlans"
DEFAULT_PLANS = "nnUNetPlans"
SHARED = (
    "spacing",
    "preprocessor_name",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_seg",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg_kwargs",
)
"""What preprocessed data depend on in a configuration."""


class NeurINOPlanner(ExperimentPlanner):
    """nnU-Net's default planner, its 3D configurations rewritten for the network of a family.

    Everything that concerns the data (spacing, normalisation, resampling) stays nnU-Net's, so data preprocessed for
    the default plans serve these plans, too.

    Args:
        dataset_name_or_id: as for nnU-Net's planner.
        family: whose network it is.
        settings: size of the network, memory to plan for, patch and batch size if they are to be fixed.
        plans_name: name of the plans file.
    """

    def __init__(
        self,
        dataset_name_or_id: str | int,
        family: Family[Any],
        settings: Recipe,
        plans_name: str = PLANS,
        **kwargs: Any,
    ) -> None:
        super().__init__(dataset_name_or_id, plans_name=plans_name, **kwargs)
        self.family, self.settings = family, settings

    @staticmethod
    def static_estimate_VRAM_usage(
        patch_size: tuple[int, ...],
        input_channels: int,
        output_channels: int,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: tuple[str, ...],
    ) -> int:
        """nnU-Net's number. Its own way to it sets threads to nnUNet_n_proc_DA and fails where that is 0."""
        network = get_network_from_plans(
            arch_class_name, arch_kwargs, arch_kwargs_req_import, input_channels, output_channels, allow_init=False
        )
        return int(network.compute_conv_feature_map_size(patch_size))

    def generate_data_identifier(self, configuration_name: str) -> str:
        """The default plans' folder: see ``save_plans``."""
        return f"{DEFAULT_PLANS}_{configuration_name}"

    def save_plans(self, plans: dict[str, Any]) -> None:
        """Adapt every 3D configuration, give data of their own to those that differ from the default plans', save."""
        folder = nnunet_folder("nnUNet_preprocessed") / self.dataset_name
        default = folder / f"{DEFAULT_PLANS}.json"
        if default.is_file():
            self._separate_data(plans, json.loads(default.read_text(encoding="utf-8")))
        for name in list(plans["configurations"]):
            if name.startswith("3d"):
                adapt_plans(plans, name, self.dataset_json, self.family, self.settings)
        super().save_plans(plans)

    def _separate_data(self, plans: dict[str, Any], default: dict[str, Any]) -> None:
        same_axes = list(plans["transpose_forward"]) == list(default.get("transpose_forward", []))
        for name, configuration in plans["configurations"].items():
            if "data_identifier" not in configuration:
                continue
            theirs = default["configurations"].get(name)
            same = theirs is None or all(_plain(configuration[key]) == _plain(theirs.get(key)) for key in SHARED)
            if theirs is not None and same and same_axes:
                configuration["data_identifier"] = theirs.get("data_identifier", configuration["data_identifier"])
            elif not (same and same_axes):
                configuration["data_identifier"] = f"{self.plans_identifier}_{name}"


def missing_cases(dataset: str, data_identifier: str) -> list[str]:
    """Training cases of a data set that are not (wholly) preprocessed under ``data_identifier``."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    raw = nnunet_folder("nnUNet_raw") / dataset
    cases = get_filenames_of_train_images_and_targets(
        str(raw), json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    )
    folder: Path = nnunet_folder("nnUNet_preprocessed") / dataset / data_identifier
    return [case for case in cases if not _is_preprocessed(folder, case)]


def _is_preprocessed(folder: Path, case: str) -> bool:
    parts = ((".b2nd", "_seg.b2nd", ".pkl"), (".npz", ".pkl"))
    return any(all((folder / (case + part)).is_file() for part in form) for form in parts)


def _plain(value: Any) -> Any:
    """The value as JSON would give it back."""
    return json.loads(json.dumps(value, default=lambda item: item.tolist() if hasattr(item, "tolist") else list(item)))
