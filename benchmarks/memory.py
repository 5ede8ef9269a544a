"""Which patch and batch the trainers plan for GPUs of several sizes, and the memory a training step on them takes.

Every trainer adapts two of nnU-Net's plans, one of 128^3 cubic voxels and one of thick slices. The memory is counted in
a trial on the meta device (``nnunet_neurino.trainers.memory``), so no GPU is needed; it is that of a step that is not
compiled. With --before, plans that --write saved (with another version of the package) stand beside today's, and both
are counted by today's program.

Examples:
  python benchmarks/memory.py
  python benchmarks/memory.py --write before.json
  python benchmarks/memory.py --before before.json --trainers nnUNetTrainerNeurINO nnUNetTrainerDINeuro
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = tempfile.TemporaryDirectory()  # nnU-Net's trainers open a log file; it reads where when it is imported
os.environ.update(dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), FOLDER.name))

sys.path.append(str(Path(__file__).parents[1] / "tests" / "trainers"))

import torch  # noqa: E402
from nnunet_plans import DATASET_JSON, plans  # noqa: E402 (those of the tests)

from nnunet_neurino import trainers  # noqa: E402
from nnunet_neurino.trainers.memory import training_memory  # noqa: E402

TRAINERS = {
    "nnUNetTrainerNeurINO": {},
    "nnUNetTrainerNeurINO checkpointing": {"checkpointing": True},
    "nnUNetTrainerNeurINO_frozen": {},
    "nnUNetTrainerNeurINO_B": {},
    "nnUNetTrainerMedNeXt": {},
    "nnUNetTrainerDINeuro": {},
    "nnUNetTrainerDINOWindow": {},
}
"""Trainers, and settings beside their own."""
HALVED = [[1, 1, 1], *[[2, 2, 2]] * 5]
THICK = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]
PLANS = {
    "cubic": {"patch_size": [128, 128, 128], "spacing": [1.0, 1.0, 1.0], "strides": HALVED, "median": [256, 512, 512]},
    "thick": {"patch_size": [48, 192, 192], "spacing": [1.0, 0.3, 0.3], "strides": THICK, "median": [96, 1024, 1024]},
}


def planned(name: str, plan: str, memory: float) -> dict[str, Any]:
    """What a trainer makes of a plan for so many GiB: network, its arguments, patch, batch, and how it trains."""
    contents = json.loads(json.dumps(plans(**PLANS[plan])))
    contents["continue_training"] = False  # as nnUNetv2_train adds it
    contents["neurino_settings"] = {"memory": memory, **TRAINERS.get(name, {})}
    trainer_class: Any = trainers.find(name.split()[0])
    with contextlib.redirect_stdout(io.StringIO()):
        settings = trainer_class(contents, "3d_fullres", 0, DATASET_JSON, torch.device("cpu")).settings
    configuration = contents["configurations"]["3d_fullres"]
    return {
        "network": configuration["architecture"]["network_class_name"],
        "arch_kwargs": configuration["architecture"]["arch_kwargs"],
        "patch": configuration["patch_size"],
        "batch": configuration["batch_size"],
        "options": {
            "full_precision": settings.full_precision,
            "ema": bool(settings.ema),
            "frozen": getattr(settings, "frozen_epochs", 0) == -1,
            "tasl": settings.tasl is not None,
        },
    }


def described(plan: dict[str, Any]) -> str:
    """Patch, batch, and the memory that a step takes."""
    needed = training_memory(
        plan["network"], plan["arch_kwargs"], tuple(plan["patch"]), plan["batch"], 1, 2, **plan["options"]
    )
    patch = " x ".join(map(str, plan["patch"]))
    return f"{plan['batch']} x ({patch}), {needed:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", nargs="+", default=list(TRAINERS), help="names")
    parser.add_argument("--memory", nargs="+", type=float, default=[8, 12, 24], help="GiB of the GPUs")
    parser.add_argument("--write", type=Path, metavar="FILE", help="save the plans and stop")
    parser.add_argument("--before", type=Path, metavar="FILE", help="plans that --write saved, to stand beside today's")
    options = parser.parse_args()
    found = {
        f"{name}, {plan}, {memory:g}": planned(name, plan, memory)
        for name in options.trainers
        for plan in PLANS
        for memory in options.memory
    }
    if options.write:
        options.write.write_text(json.dumps(found))
        return
    before = json.loads(options.before.read_text()) if options.before else None
    print("| trainer | plan | GiB |" + (" before: batch x patch, GiB |" if before else "") + " batch x patch, GiB |")
    print("|---|---|---:|---|" + ("---|" if before else ""))
    for key, plan in found.items():
        old = [described(before[key])] if before else []
        print(f"| {' | '.join([*key.split(', '), *old, described(plan)])} |", flush=True)


if __name__ == "__main__":
    main()
