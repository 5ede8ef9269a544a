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
from nnunet_neurino.transfer.vit import VIT_PAGES, inflate_vit_into, load_vit_weights
from nnunet_neurino.transfer.weights import as_mapping
from nnunet_neurino.transfer.window import fill_slice_encoder

VARIABLE = "NNUNET_NEURINO_WEIGHTS"
"""Says where 2D weights are (whatever ``neurino weights`` accepts), or ``none``. Never what the model is."""

WEIGHTS = {"neurino": hub.DINOV3, "dineuro": VIT_PAGES, "dino_window": VIT_PAGES}
"""timm's names of the weights that fit each size of an encoder, by network."""


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
    3. DINO's or DINOv3's weights for this network and size that lie in this machine's Hugging Face cache: from there.
    4. Nowhere, with a notice that cannot be missed; an error for a trainer that freezes its encoder.

    Training never goes online unless the variable names an online model.
    """
    if not settings.pretrained:
        if settings.network == "dino_window":
            return Source(None, "The frozen encoder has random weights, on purpose: good for trials only.")
        if settings.frozen_epochs != 0:
            raise NeurinoError("settings pretrained=false and frozen_epochs contradict each other: nothing would learn")
        return Source(None)
    named = os.environ.get(VARIABLE, "").strip()
    if named and named.lower() != "none":
        return Source(named)
    cached = None if named else _cached_file(settings)
    if cached is not None:
        return Source(str(cached))
    if settings.frozen_epochs != 0:
        raise NeurinoError(
            f"this trainer freezes its encoder, which needs 2D weights, and there are none: {_how_to(settings)}"
        )
    if named or _page(settings) is None:
        return Source(None, f"Training from scratch: no 2D weights ({named or settings.size}).")
    frame = "#" * 79
    name, theirs = ("DINeuro", _FAMILY[settings.size]) if settings.network == "dineuro" else ("NeurINO", "DINOv3")
    return Source(
        None,
        f"{frame}\nNO 2D WEIGHTS WERE FOUND: THE ENCODER IS TRAINED FROM SCRATCH. {name} is meant to start from\n"
        f"{theirs} weights; without them it learns more slowly and ends less accurate on small data sets.\n"
        f"{_how_to(settings)}\n"
        f"To train from scratch on purpose: -tr nnUNetTrainer{name}_scratch, or {VARIABLE}=none.\n{frame}",
    )


_FAMILY = {size: "DINOv3" if size.endswith("_v3") else "DINO" for size in VIT_PAGES}


def _page(settings: TrainerSettings) -> str | None:
    """timm's name of the weights that this trainer is meant to start from."""
    return WEIGHTS.get(settings.network, {}).get(settings.size)


def _how_to(settings: TrainerSettings) -> str:
    example = _page(settings) or hub.DINOV3["tiny"]
    licence = "Accept Meta's DINOv3 licence, then set" if "dinov3" in example else "Set"
    return f"{licence} {VARIABLE} (or neurino train --weights) to a file or to {example}; see `neurino weights --help`"


def _cached_file(settings: TrainerSettings) -> Path | None:
    """The file of these weights in the local Hugging Face cache."""
    page = _page(settings)
    if settings.network == "neurino" and page:
        return hub.cached_size(settings.size)
    return hub.cached(page) if page else None


def load_into(network: nn.Module, location: str, settings: TrainerSettings) -> dict[str, Any]:
    """Put the 2D weights at ``location`` into the encoder of ``network``, in place: inflated, or as they are.

    Returns:
        What to record: where they came from, what they are, their hash, how they were inflated.
    """
    weights = load_2d_weights(location) if settings.network == "neurino" else load_vit_weights(location)
    if weights is None:
        raise NeurinoError(f"{location}: no weights; leave {VARIABLE} unset to train from scratch")
    if settings.network == "dino_window":
        fill_slice_encoder(network, weights)
        return dict(as_mapping(weights))
    (inflate_vit_into if settings.network == "dineuro" else inflate_into)(
        network, weights, settings.inflation, settings.rgb
    )
    return {**as_mapping(weights), "inflation": settings.inflation, "rgb": settings.rgb}
