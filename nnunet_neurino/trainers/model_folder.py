"""What a trainer writes into, and expects of, nnU-Net's model folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from nnunet_neurino import __version__
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import write_json
from nnunet_neurino.trainers.families import Recipe

SETTINGS_FILE = "neurino_settings.json"
"""In each fold's folder: all settings of the last run, where its weights came from, versions. For people to read."""

FIXED = ("architecture", "patch_size")
"""Keys of a configuration that all folds of a model folder share, because they share its plans.json."""


def refuse_mixed_folds(model_folder: str | Path, fold: int | str, configuration: str, plans: dict[str, Any]) -> None:
    """Raise ``NeurinoError`` if another fold in ``model_folder`` was trained with another network or patch.

    nnU-Net keeps one plans.json for all folds: starting this one would make the others unusable.
    """
    folder = Path(model_folder)
    others = sorted(p.parent.name for p in folder.glob("fold_*/checkpoint_*.pth") if p.parent.name != f"fold_{fold}")
    if not others or not (folder / "plans.json").is_file():
        return
    recorded = json.loads((folder / "plans.json").read_text(encoding="utf-8"))["configurations"].get(configuration, {})
    wanted = plans["configurations"][configuration]
    different = [key for key in FIXED if _what_counts(recorded.get(key)) != _what_counts(wanted.get(key))]
    if different:
        raise NeurinoError(
            f"{folder}: {others[0]} was trained with another {' and '.join(different)} than is asked for now, and all "
            f"folds of a model folder share one network: train with the same settings (its patch is "
            f"{recorded.get('patch_size')}), or under another trainer or plans name"
        )


def _what_counts(value: Any) -> Any:
    """A value of a configuration without what changes a training's memory only."""
    if not isinstance(value, dict):
        return value
    return {key: _what_counts(item) for key, item in value.items() if key != "checkpointing"}


def remove_unfinished_checkpoints(fold_folder: str | Path) -> None:
    """Remove what a run that was killed while it saved has left (hundreds of megabytes)."""
    for path in Path(fold_folder).glob(".unfinished-*-checkpoint_*.pth"):
        path.unlink(missing_ok=True)


def write_settings(
    fold_folder: str | Path,
    trainer_name: str,
    settings: Recipe,
    changed: Sequence[str],
    pretraining: dict[str, Any] | None,
) -> None:
    """Write ``neurino_settings.json``."""
    record = {
        "trainer": trainer_name,
        "changed_on_the_command_line": sorted(changed),
        "settings": settings.as_json(),
        "pretrained_2d_weights": pretraining,
        "versions": {
            "nnunet_neurino": __version__,
            "nnunetv2": metadata.version("nnunetv2"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    write_json(Path(fold_folder) / SETTINGS_FILE, record)
