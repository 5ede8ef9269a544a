"""Where a training finds the 2D weights its encoder starts from.

Only a training that starts from nothing asks: prediction, validation and resuming never do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families import Family, Recipe

VARIABLE = "NNUNET_NEURINO_WEIGHTS"
"""Says where 2D weights are (whatever ``neurino weights`` accepts), or ``none``. Never what the model is."""

_EXAMPLE = "convnext_tiny.dinov3_lvd1689m"
_NOTHING_FOUND = """\
{frame}
NO 2D WEIGHTS WERE FOUND: THE ENCODER IS TRAINED FROM SCRATCH. {title} is meant to start from
{whose} weights; without them it learns more slowly and ends less accurate on small data sets.
{remedy}
To train from scratch on purpose: -tr {base}_scratch, or {variable}=none.
{frame}"""


@dataclass(frozen=True)
class Source:
    """Where the 2D weights are."""

    location: str | None  # for the family to fill its network from; None to start from nothing
    notice: str = ""  # what the user must be told, or ""


def find_source(family: Family[Any], settings: Recipe) -> Source:
    """Decide where the weights come from, without reading them.

    1. ``settings.pretrained`` False: from nowhere.
    2. The variable ``NNUNET_NEURINO_WEIGHTS``: from there; what is named and cannot be had is an error later on.
       ``none`` means from nowhere.
    3. DINO's or DINOv3's weights for this network and size that lie in this machine's Hugging Face cache: from there.
    4. Nowhere, with a notice that cannot be missed; an error for a trainer that freezes its encoder.
    """
    if not settings.pretrained:
        return Source(None, family.unpretrained(settings))
    named = os.environ.get(VARIABLE, "").strip()
    if named and named.lower() != "none":
        return Source(named)
    page = family.weight_page(settings)
    cached = None if named else family.cached_weights(settings)
    if cached is not None:
        return Source(str(cached))
    licence = "Accept Meta's DINOv3 licence, then set" if "dinov3" in (page or _EXAMPLE) else "Set"
    remedy = (
        f"{licence} {VARIABLE} (or neurino train --weights) to a file or to {page or _EXAMPLE}; see "
        "`neurino weights --help`"
    )
    if settings.frozen_epochs != 0:
        raise NeurinoError(f"this trainer freezes its encoder, which needs 2D weights, and there are none: {remedy}")
    if named or page is None:
        return Source(None, f"Training from scratch: no 2D weights ({named or settings.as_json().get('size')}).")
    return Source(
        None,
        _NOTHING_FOUND.format(
            frame="#" * 79,
            title=family.title,
            whose="DINOv3" if "dinov3" in page else "DINO",
            remedy=remedy,
            base=family.base,
            variable=VARIABLE,
        ),
    )


def load_into(network: Any, location: str, family: Family[Any], settings: Recipe) -> dict[str, Any]:
    """Put the 2D weights at ``location`` into the encoder of ``network``, in place; what to record comes back."""
    if location == "none":
        raise NeurinoError(f"{location}: no weights; leave {VARIABLE} unset to train from scratch")
    return family.fill(network, location, settings)
