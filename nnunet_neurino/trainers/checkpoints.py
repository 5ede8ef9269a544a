"""Checkpoints: written whole or not at all, read, and what a resumed training takes over from one."""

from __future__ import annotations

import contextlib
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import atomic_path
from nnunet_neurino.trainers.families.recipe import PLANS_KEY, Recipe


@contextlib.contextmanager
def whole_file(filename: str) -> Iterator[str]:
    """A path to save a checkpoint under, which then takes the place of ``filename``."""
    try:
        with atomic_path(filename) as unfinished:
            yield str(unfinished)
    except (OSError, RuntimeError) as error:  # PyTorch says neither why nor where
        free = shutil.disk_usage(Path(filename).parent).free / 2**20
        raise NeurinoError(
            f"{filename} could not be written ({str(error).splitlines()[0]}); {free:.0f} MiB are free there. The "
            "last checkpoint is whole: make room and resume with --c"
        ) from error


def init_args_of(filename: str) -> dict[str, Any]:
    """What the trainer that wrote a checkpoint was made with."""
    try:
        checkpoint = torch.load(filename, map_location="cpu", weights_only=False)
    except FileNotFoundError:
        raise
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise NeurinoError(
            f"{filename}: cannot be read ({str(error).splitlines()[0][:160]}); it may be cut short: move it away, and "
            "--c goes on from another checkpoint of the folder, if there is one"
        ) from None
    if "optimizer_state" not in checkpoint:
        raise NeurinoError(
            f"{filename}: holds a model without the state of its training, as `neurino import-checkpoint` makes it; it "
            "predicts, but cannot be resumed or validated. To train on, start anew with -pretrained_weights"
        )
    return dict(checkpoint["init_args"])


def resumed_settings(init_args: dict[str, Any], defaults: Recipe, changed: dict[str, Any], filename: str) -> Recipe:
    """The settings that a checkpoint's training was started with, then ``changed``.

    Raises:
        NeurinoError: for a change of what the network, or the optimiser's saved state, depends on.
    """
    record = init_args.get("neurino") or {}
    started = defaults.restored(record.get("settings") or init_args["plans"].get(PLANS_KEY, {}))
    settings = started.replaced(changed)
    for name in (*settings.fixed, *settings.of_the_optimiser):
        if getattr(settings, name) != getattr(started, name):
            raise NeurinoError(
                f"{filename}: this model was started with {name} {getattr(started, name)}, which cannot become "
                f"{getattr(settings, name)} when it is resumed; leave it out, or start anew without --c"
            )
    return settings


def resumed_plans(
    plans: dict[str, Any], stored: dict[str, Any], configuration: str, settings: Recipe, changed: dict[str, Any]
) -> None:
    """Give ``plans`` the network, patch and batch of a checkpoint's, and ``changed`` settings, in place."""
    known = settings.as_json()
    given = {name: value for name, value in stored.get(PLANS_KEY, {}).items() if name in known}
    plans[PLANS_KEY] = {**given, **changed}
    current, before = plans["configurations"][configuration], stored["configurations"][configuration]
    current.update({key: before[key] for key in ("architecture", "patch_size", "batch_size") if key in before})
    if "batch_size" in changed:
        current["batch_size"] = settings.batch_size
    if "checkpointing" in current["architecture"]["arch_kwargs"]:
        current["architecture"]["arch_kwargs"]["checkpointing"] = settings.as_json()["checkpointing"]
