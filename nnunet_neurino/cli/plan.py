"""Plan and preprocess nnU-Net data sets for NeurINO: nnUNetNeurINOPlans.

The plans name the network, so any trainer can use them: nnUNetTrainerNeurINO with all it adds, or nnU-Net's own.
Everything about the data is as in nnU-Net's default plans; data already preprocessed for those are used again.
NeurINO trainers also work with the default plans. Planning is for a larger or smaller GPU (--memory), another size, or
to look at and edit the plans.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from nnunet_neurino.cli.options import ZYX
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families import Recipe, families

EXAMPLE = (
    "  neurino plan -d 7 --memory 24\n  nnUNetv2_train 7 3d_fullres 0 -tr nnUNetTrainerNeurINO -p nnUNetNeurINOPlans"
)

_FAMILY = families()["nnUNetTrainerNeurINO"]
_DEFAULTS = _FAMILY.settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    option, choices = parser.add_argument, _DEFAULTS.choices
    option("-d", "--dataset", metavar="ID", nargs="+", required=True, help="numbers or names of data sets")
    text = "what to preprocess (default: all 3D ones in the plans)"
    option("-c", "--configuration", metavar="NAME", nargs="+", help=text)
    option("--size", choices=choices["size"], help="encoder (default: tiny)")
    text = "reduction of the first layer (default: 2)"
    option("--stem-stride", choices=choices["stem_stride"], type=int, help=text)
    option("--memory", metavar="GIB", type=float, help=f"GPU memory to plan for (default: {_DEFAULTS.memory:g})")
    option("--patch-size", type=int, **ZYX, help="voxels (default: by --memory)")
    option("--batch-size", metavar="N", type=int, help="patches a step (default: by --memory)")
    option("--plans-name", metavar="NAME", default="nnUNetNeurINOPlans", help="(default: %(default)s)")
    option("-np", "--processes", metavar="N", type=int, help="workers (default: half the cores, at most 8)")
    option("--verify", action="store_true", help="check the data set's integrity first")
    option("--redo", action="store_true", help="fingerprint and preprocess again what is already there")
    option("--no-preprocess", action="store_true", help="only write the plans")


def run(args: argparse.Namespace) -> int:
    names = ("size", "stem_stride", "memory", "patch_size", "batch_size")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings = _DEFAULTS.replaced(given)
    if "__" in args.plans_name:
        raise NeurinoError(f"plans name {args.plans_name}: nnU-Net splits folder names at __, so it must not hold one")
    if args.processes is not None and args.processes < 1:
        raise NeurinoError(f"--processes {args.processes}: give 1 or more")
    processes = args.processes or max(1, min(8, (os.cpu_count() or 2) // 2))
    for dataset in args.dataset:
        _plan(dataset, settings, args, processes)
    return 0


def _plan(dataset: str, settings: Recipe, args: argparse.Namespace, processes: int) -> None:
    from nnunet_neurino.trainers.datasets import dataset_name, nnunet_folder

    name = dataset_name(dataset)
    raw = nnunet_folder("nnUNet_raw") / name
    if not (raw / "dataset.json").is_file():
        raise NeurinoError(f"{raw}: no dataset.json; make it with `neurino convert`")

    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprint_dataset, preprocess_dataset

    from nnunet_neurino.trainers.planner import NeurINOPlanner, missing_cases

    number = int(name.removeprefix("Dataset")[:3])
    extract_fingerprint_dataset(
        number, num_processes=processes, check_dataset_integrity=args.verify, clean=args.redo, verbose=False
    )
    plans = NeurINOPlanner(number, _FAMILY, settings, args.plans_name).plan_experiment()
    configurations: dict[str, Any] = plans["configurations"]
    if not any(key.startswith("3d") for key in configurations):
        raise NeurinoError(f"{name}: its images are 2D; NeurINO needs stacks of at least two slices")
    wanted = args.configuration or [key for key in configurations if key.startswith("3d")]
    for key in wanted:
        if key not in configurations:
            raise NeurinoError(f"{name}: no configuration {key} in the plans; there are {', '.join(configurations)}")
    if args.no_preprocess:
        return
    with_data = [key for key in wanted if "data_identifier" in configurations[key]]
    needed = [k for k in with_data if args.redo or missing_cases(name, configurations[k]["data_identifier"])]
    for key in sorted(set(with_data) - set(needed)):
        print(f"{key}: preprocessed before ({configurations[key]['data_identifier']}), used again")
    if needed:
        preprocess_dataset(number, args.plans_name, needed, [processes])
