"""Which settings a trainer takes, by its name; neither PyTorch nor nnU-Net is imported."""

from __future__ import annotations

from nnunet_neurino.trainers import dineuro_settings, window_settings
from nnunet_neurino.trainers.dineuro_settings import DINeuroSettings
from nnunet_neurino.trainers.settings import TrainerSettings
from nnunet_neurino.trainers.window_settings import WindowSettings

DEFAULTS: dict[str, TrainerSettings] = {
    dineuro_settings.BASE: DINeuroSettings(),
    window_settings.BASE: WindowSettings(),
    **dict.fromkeys(("nnUNetTrainerMedNeXt", "nnUNetTrainerMedNeXtTASL"), TrainerSettings(network="mednext", size="L")),
}
"""By the first part of the name; all other trainers take ``TrainerSettings``."""


def settings_for(trainer: str) -> TrainerSettings:
    """What can be set of the trainer of this name."""
    return DEFAULTS.get(trainer.partition("_")[0], TrainerSettings())
