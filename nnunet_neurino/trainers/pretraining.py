"""Where a training finds the 2D weights its encoder starts from.

Only a training that starts from nothing asks: prediction, validation and resuming never do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.settings import TrainerSettings
from nnunet_neurino.transfer import hub, inflate_into, load_2d_weights
from nnunet_neurino.transfer.weights import as_mapping

VARIABLE = "NNUNET_NEURINO_WEIGHTS"
"""Says where 2D weights are (whatever ``neurino weights`` accepts), or ``none``. Never what the model is."""

DINOV3 = {size: f"convnext_{size}.dinov3_lvd1689m" for size in ("tiny", "small", "base", "large")}
"""timm's names of the weights that fit each size."""


@dataclass(frozen=True)
class Source:
    """Where the 2D weights are.

    Attributes:
        location: for ``load_2d_weights``; None to start from nothing.
        notice: what the user must be told, or "".
    """

    location: str | None
    notice: str = ""


def find_source(settings: TrainerSettings) -> Source:
    """Decide where the weights come from, without reading them.

    1. ``settings.pretrained`` False: from nowhere.
    2. The variable ``NNUNET_NEURINO_WEIGHTS``: from there; what is named and cannot be had is an error later on.
       ``none`` means from nowhere.
    3. DINOv3 weights for this size that lie in the Hugging Face cache of this machine: from there.
    4. Nowhere, with a notice that cannot be missed; an error for a trainer that freezes its encoder.

    Training never goes online unless the variable names an online model.
    """
    if not settings.pretrained:
        if settings.frozen_epochs != 0:
            raise NeurinoError("settings pretrained=false and frozen_epochs contradict each other: nothing would learn")
        return Source(None)
    named = os.environ.get(VARIABLE, "").strip()
    if named and named.lower() != "none":
        return Source(named)
    cached = None if named else _cached_file(settings.size)
    if cached is not None:
        return Source(str(cached))
    if settings.frozen_epochs != 0:
        raise NeurinoError(
            f"this trainer freezes its encoder, which needs 2D weights, and there are none: {_how_to(settings.size)}"
        )
    if named or settings.size not in DINOV3:
        return Source(None, f"Training from scratch: no 2D weights ({named or settings.size}).")
    frame = "#" * 79
    return Source(
        None,
        f"{frame}\nNO 2D WEIGHTS WERE FOUND: THE ENCODER IS TRAINED FROM SCRATCH. NeurINO is meant to start from\n"
        f"DINOv3 weights; without them it learns more slowly and ends less accurate on small data sets.\n"
        f"{_how_to(settings.size)}\n"
        f"To train from scratch on purpose: -tr nnUNetTrainerNeurINO_scratch, or {VARIABLE}=none.\n{frame}",
    )


def _how_to(size: str) -> str:
    example = DINOV3.get(size, DINOV3["tiny"])
    return (
        f"Accept Meta's DINOv3 licence, then set {VARIABLE} (or neurino train --weights) to a file or to "
        f"{example}; see `neurino weights --help`"
    )


def _cached_file(size: str) -> Path | None:
    """timm's DINOv3 file for ``size`` in the local Hugging Face cache."""
    return hub.cached(DINOV3[size]) if size in DINOV3 else None


def load_into(network: nn.Module, location: str, settings: TrainerSettings) -> dict[str, Any]:
    """Inflate the 2D weights at ``location`` into the encoder of ``network``, in place.

    Returns:
        What to record: where they came from, what they are, their hash, how they were inflated.
    """
    weights = load_2d_weights(location)
    if weights is None:
        raise NeurinoError(f"{location}: no weights; leave {VARIABLE} unset to train from scratch")
    inflate_into(network, weights, settings.inflation, settings.rgb)
    return {**as_mapping(weights), "inflation": settings.inflation, "rgb": settings.rgb}
