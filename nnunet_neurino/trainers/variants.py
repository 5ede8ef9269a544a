"""All trainers by name: the recipes, their epoch counts, and how a name is found.

Every class is an attribute of ``nnunet_neurino.trainers`` and can be pickled by that name.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import Any

from nnunet_neurino.trainers.neurino import NeurINOTrainer
from nnunet_neurino.trainers.settings import TrainerSettings

BASE = "nnUNetTrainerNeurINO"

PAPER: dict[str, Any] = {
    "grn": True,
    "norm": "batch",
    "patch_size": (32, 32, 32),
    "batch_size": 2,
    "inflation": "center",
    "rgb": "mean",
    "epochs": 110,
    "lr": 1e-3,
    "weight_decay": 3e-5,
    "decay_all": True,
    "eps": 1e-4,
    "layer_decay": 1.0,
    "warmup_epochs": 0.0,
    "stepwise": False,
    "full_precision": True,
    "bottleneck_loss": True,
    "tasl": "published",
    "tasl_weight": 0.1,
    "tasl_lambdas": (1.0, 0.5, 0.5),
    "tasl_warmup_epochs": 0.0,
}
DEMO: dict[str, Any] = {
    "size": "atto",
    "patch_size": (32, 32, 32),
    "batch_size": 2,
    "pretrained": False,
    "epochs": 8,
    "iterations": 25,
    "val_iterations": 2,
    "lr": 2e-3,
    "warmup_epochs": 1.0,
    "ema": 0.98,
}
RELEASED: dict[str, Any] = PAPER | {"grn": False, "patch_size": (64, 64, 64), "tasl_lambdas": (1.0, 0.5, 0.2)}

# A name is nnUNetTrainerNeurINO, then at most one word of each group, in this order, then an epoch count.
GROUPS: tuple[dict[str, tuple[str, dict[str, Any]]], ...] = (
    {
        "S": ("Small encoder", {"size": "small"}),
        "B": ("Base encoder", {"size": "base"}),
        "L": ("Large encoder", {"size": "large"}),
        "demo": ("a very small network, minutes on a CPU", DEMO),
    },
    {
        "paper": ("every constant of the paper", PAPER),
        "released": ("every constant of the released code", RELEASED),
    },
    {"stem4": ("first layer of stride 4: a quarter of the memory, loses thin neurites", {"stem_stride": 4})},
    {
        "average": ("2D kernels spread evenly over the depth", {"inflation": "average"}),
        "center": ("2D kernels in the middle slice", {"inflation": "center"}),
        "triplane": ("2D kernels along all three planes", {"inflation": "triplane"}),
        "scratch": ("no 2D weights, none looked for", {"pretrained": False}),
    },
    {
        "frozen": ("the pretrained encoder is never trained", {"frozen_epochs": -1}),
        "frozen10": ("the pretrained encoder is not trained for the first 10 epochs", {"frozen_epochs": 10}),
    },
    {"noTASL": ("without the topology-aware loss", {"tasl": None})},
    {"EMA": ("a moving average of the weights is validated and saved", {"ema": 0.999})},
    {"NoMirroring": ("no mirroring in training and prediction", {"mirroring": False})},
)
_EPOCHS = re.compile(r"1epoch|[2-9]epochs|[1-9][0-9]+epochs")


def find(name: str) -> type[NeurINOTrainer] | None:
    """The trainer class of this exact name, or None. The same name gives the same class every time."""
    module = sys.modules["nnunet_neurino.trainers"]
    known = vars(module).get(name)
    if isinstance(known, type):
        return known if issubclass(known, NeurINOTrainer) else None
    parsed = _parse(name)
    if parsed is None:
        return None
    changes, description = parsed
    trainer = type(
        name,
        (NeurINOTrainer,),
        {
            "__doc__": description,
            # Pickling looks a class up by this name, and the package's __getattr__ finds it.
            "__module__": module.__name__,
            "defaults": dataclasses.replace(TrainerSettings(), **changes),
        },
    )
    setattr(module, name, trainer)
    return trainer


def _parse(name: str) -> tuple[dict[str, Any], str] | None:
    """Settings that a name stands for, and what it means; None if it is not one of ours."""
    first, *words = name.split("_")
    if first != BASE:
        return None
    changes: dict[str, Any] = {}
    meanings = []
    for group in GROUPS:
        if words and words[0] in group:
            meaning, values = group[words.pop(0)]
            changes |= values
            meanings.append(meaning)
    if words and _EPOCHS.fullmatch(words[0]):
        changes["epochs"] = int(words[0].removesuffix("s").removesuffix("epoch"))
        meanings.append(f"{changes['epochs']} epochs")
        words.pop(0)
    return None if words else (changes, "NeurINO: " + (", ".join(meanings) or "Tiny encoder, our defaults") + ".")


def documented_names() -> dict[str, str]:
    """Name and meaning of the plain trainer and of every single variant; further words can be combined."""
    words = [word for group in GROUPS for word in group]
    names = [BASE, *(f"{BASE}_{word}" for word in words), f"{BASE}_100epochs"]
    return {name: str((find(name) or NeurINOTrainer).__doc__) for name in names}
