"""Batches of volumes as windows, from kept or computed tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nnunet_neurino.networks import DINOWindow
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.trainers.token_cache import TokenCache
from nnunet_neurino.trainers.volume_copies import CopyRecipe


class WindowLoader:
    """Skeleton; an endless iterator of {"data": windows, "target": tensor, "keys": [...]}."""

    def __init__(
        self,
        dataset: Any,
        names: Sequence[str],
        network: DINOWindow,
        patch: Triple,
        batch_size: int,
        recipe: CopyRecipe,
        cache: TokenCache | None,
        seed: int | Sequence[int],
        oversample_foreground: float,
        labels: Any,
    ) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        raise NotImplementedError
