"""Which settings a trainer takes, by its name; neither PyTorch nor nnU-Net is imported."""

from __future__ import annotations

from typing import Any

from nnunet_neurino.trainers import dineuro_settings, window_settings
from nnunet_neurino.trainers.dineuro_settings import DINeuroSettings
from nnunet_neurino.trainers.settings import TrainerSettings
from nnunet_neurino.trainers.window_settings import WindowSettings

RELEASED_OPTIMISER: dict[str, Any] = {
    "weight_decay": 3e-5,
    "decay_all": True,
    "eps": 1e-4,
    "layer_decay": 1.0,
    "warmup_epochs": 0.0,
    "stepwise": False,
}
"""Of the released code of both NeurINO and MedNeXt."""

# The baseline of the paper's tables: its network, its optimiser.
_MEDNEXT: dict[str, Any] = {
    "network": "mednext",
    "size": "L",
    "grn": True,
    "norm": "group",
    "pretrained": False,
    **RELEASED_OPTIMISER,
}

DEFAULTS: dict[str, TrainerSettings] = {
    dineuro_settings.BASE: DINeuroSettings(),
    window_settings.BASE: WindowSettings(),
    "nnUNetTrainerMedNeXt": TrainerSettings(**_MEDNEXT, tasl=None),
    "nnUNetTrainerMedNeXtTASL": TrainerSettings(**_MEDNEXT),
}
"""By the first part of the name; all other trainers take ``TrainerSettings``."""


def settings_for(trainer: str) -> TrainerSettings:
    """What can be set of the trainer of this name."""
    return DEFAULTS.get(trainer.partition("_")[0], TrainerSettings())
