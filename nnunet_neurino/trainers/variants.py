"""All trainers by name: the recipes, their epoch counts, and how a name is found.

Every class is an attribute of ``nnunet_neurino.trainers`` and can be pickled by that name.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_neurino.trainers import dineuro_settings, window_settings
from nnunet_neurino.trainers.families import DEFAULTS, RELEASED_OPTIMISER
from nnunet_neurino.trainers.neurino import NeurINOTrainer
from nnunet_neurino.trainers.settings import BRIEF, TrainerSettings
from nnunet_neurino.trainers.window import WindowTrainer

BASE = "nnUNetTrainerNeurINO"
PACKAGE = "nnunet_neurino.trainers"
"""Where pickling looks a class up by its name; the package's ``__getattr__`` finds it."""

PAPER: dict[str, Any] = {
    "grn": True,
    "norm": "batch",
    "patch_size": (32, 32, 32),
    "batch_size": 2,
    "inflation": "center",
    "rgb": "mean",
    "epochs": 110,
    "lr": 1e-3,
    **RELEASED_OPTIMISER,
    "full_precision": True,
    "bottleneck_loss": True,
    "tasl": "published",
    "tasl_weight": 0.1,
    "tasl_lambdas": (1.0, 0.5, 0.5),
    "tasl_warmup_epochs": 0.0,
}
DEMO: dict[str, Any] = BRIEF | {"patch_size": (32, 32, 32)}
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
    {"stem4": ("first layer of stride 4: cheaper, loses thin neurites", {"stem_stride": 4})},
    {
        "average": ("2D kernels spread evenly over the depth", {"inflation": "average"}),
        "center": ("2D kernels in the middle slice", {"inflation": "center"}),
        "triplane": ("2D kernels along all three planes", {"inflation": "triplane"}),
    },
    {
        "scratch": ("no 2D weights, none looked for", {"pretrained": False}),
        "frozen": ("the pretrained encoder is never trained", {"frozen_epochs": -1}),
        "frozen10": ("the pretrained encoder is not trained for the first 10 epochs", {"frozen_epochs": 10}),
    },
    {"noTASL": ("without the topology-aware loss", {"tasl": None})},
    {"EMA": ("a moving average of the weights is validated and saved", {"ema": 0.999})},
    {"NoMirroring": ("no mirroring in training and prediction", {"mirroring": False})},
)


@dataclasses.dataclass(frozen=True)
class Family:
    """Trainers of one network by name: a base and words.

    Attributes:
        title: the network.
        plain: what the base without words means.
        defaults: its settings.
        groups: the words, see ``GROUPS``.
        trainer: what its trainers are made from.
    """

    title: str
    plain: str
    defaults: TrainerSettings
    groups: tuple[dict[str, tuple[str, dict[str, Any]]], ...]
    trainer: type[NeurINOTrainer] = NeurINOTrainer


FAMILIES = {
    BASE: Family("NeurINO", "Tiny encoder, our defaults", TrainerSettings(), GROUPS),
    dineuro_settings.BASE: Family(
        "DINeuro",
        "DINO's ViT-S/16, center, tubes, our defaults",
        DEFAULTS[dineuro_settings.BASE],
        dineuro_settings.GROUPS,
    ),
    window_settings.BASE: Family(
        "DINOWindow",
        "a frozen DINOv3 ViT-S/16, windows, our defaults",
        DEFAULTS[window_settings.BASE],
        window_settings.GROUPS,
        WindowTrainer,
    ),
}

BASELINES = {
    "nnUNetTrainerMedNeXt": "MedNeXt-L, kernel 3, without TASL",
    "nnUNetTrainerMedNeXtTASL": "MedNeXt-L, kernel 3, with TASL",
}
"""What these names mean; they take no words but an epoch count."""
OTHERS = {"nnUNetTrainerTASL": "nnunet_neurino.trainers.tasl"}
"""Trainers of nnU-Net's own networks and the modules they are in. An epoch count may follow these names, too."""


def find(name: str) -> type[nnUNetTrainer] | None:
    """The trainer class of this exact name, or None. The same name gives the same class every time."""
    module = sys.modules[PACKAGE]
    known = vars(module).get(name)
    if isinstance(known, type):
        return known if issubclass(known, nnUNetTrainer) else None
    base, *words = name.split("_")
    own = base in FAMILIES or base in BASELINES
    trainer = _from_settings(name, base, words) if own else _from_class(name, base, words)
    if trainer is not None:
        setattr(module, name, trainer)
    return trainer


def _from_settings(name: str, base: str, words: list[str]) -> type[NeurINOTrainer] | None:
    family = FAMILIES.get(base)
    parsed = _parse(words, family.groups if family else ())
    if parsed is None:
        return None
    changes, meanings = parsed
    if family:
        meaning = f"{family.title}: " + (", ".join(meanings) or family.plain)
        defaults = family.defaults
    else:
        meaning = ", ".join([BASELINES[base], *meanings])
        defaults = DEFAULTS[base]
    settings = dataclasses.replace(defaults, **changes)
    base_class = family.trainer if family else NeurINOTrainer
    return type(name, (base_class,), {"__doc__": f"{meaning}.", "__module__": PACKAGE, "defaults": settings})


def _from_class(name: str, base: str, words: list[str]) -> type[nnUNetTrainer] | None:
    """A class of OTHERS, or the same with another number of epochs."""
    if base not in OTHERS or len(words) > 1 or any(_epochs(word) is None for word in words):
        return None
    trainer: type[nnUNetTrainer] = getattr(importlib.import_module(OTHERS[base]), base)
    if not words:
        return trainer
    epochs = _epochs(words[0])

    class Variant(trainer):
        __doc__ = trainer.__doc__

        def __init__(
            self,
            plans: dict[str, Any],
            configuration: str,
            fold: int,
            dataset_json: dict[str, Any],
            device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
        ) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            assert epochs is not None
            self.num_epochs = epochs

    Variant.__name__ = Variant.__qualname__ = name
    Variant.__module__ = PACKAGE
    return Variant


def _parse(
    words: list[str], groups: tuple[dict[str, tuple[str, dict[str, Any]]], ...]
) -> tuple[dict[str, Any], list[str]] | None:
    """Settings that the words of a name stand for, and what they mean; None if they are not ours."""
    words = list(words)
    changes: dict[str, Any] = {}
    meanings = []
    for group in groups:
        if words and words[0] in group:
            meaning, values = group[words.pop(0)]
            changes |= values
            meanings.append(meaning)
    if words and (epochs := _epochs(words[0])) is not None:
        changes["epochs"] = epochs
        meanings.append(words.pop(0).replace("epoch", " epoch"))
    return None if words else (changes, meanings)


def _epochs(word: str) -> int | None:
    """5 for ``5epochs``, in nnU-Net's spelling only."""
    if not re.fullmatch(r"1epoch|[2-9]epochs|[1-9][0-9]+epochs", word):
        return None
    return int(word.removesuffix("s").removesuffix("epoch"))


def documented_names(base: str = BASE) -> dict[str, str]:
    """Name and meaning of a plain trainer and of every single variant; further words can be combined.

    Args:
        base: of ``FAMILIES``. The baselines and the trainers of other networks are listed with NeurINO's.
    """
    words = [word for group in FAMILIES[base].groups for word in group]
    names = [base, *(f"{base}_{word}" for word in words), f"{base}_100epochs"]
    if base == BASE:
        names += [*BASELINES, *OTHERS]
    return {name: (find(name).__doc__ or "").partition("\n")[0] for name in names}
