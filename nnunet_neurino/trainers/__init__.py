"""nnU-Net trainers: which network, loss, optimiser and schedule.

``find(name)`` gives the trainer class of a name. Every class is also an attribute of this package, made when it is
first asked for; importing the package imports neither PyTorch nor nnU-Net.
"""

from __future__ import annotations

from typing import Any


def find(name: str) -> type[Any] | None:
    """The trainer class of this exact name (``nnUNetTrainerNeurINO_S_100epochs``), or None if there is none."""
    from nnunet_neurino.trainers import names

    return names.find(name)


def __getattr__(name: str) -> Any:
    trainer = find(name) if name.startswith("nnUNetTrainer") else None
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return trainer
