"""nnU-Net trainers: which network, loss, optimiser and schedule.

``find(name)`` gives the trainer class of a name. Every class is also an attribute of this package, made when it is
first asked for; importing the package imports neither PyTorch nor nnU-Net.
"""

from __future__ import annotations

import re
from typing import Any

_OURS = re.compile(r"nnUNetTrainer(NeurINO|DINeuro|DINOWindow|TASL|MedNeXt|MedNeXtTASL)(_[A-Za-z0-9]+)*")


def find(name: str) -> type | None:
    """The trainer class of this exact name (``nnUNetTrainerNeurINO_S_100epochs``), or None if there is none."""
    if not _OURS.fullmatch(name):
        return None
    from nnunet_neurino.trainers import variants

    return variants.find(name)


def __getattr__(name: str) -> Any:
    trainer = find(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return trainer
