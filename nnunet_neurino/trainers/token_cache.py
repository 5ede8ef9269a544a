"""Tokens of frozen features, computed once and kept on disk as float16."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_neurino.networks import DINOWindow
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.trainers.volume_copies import CopyRecipe


class TokenCache:
    """Skeleton; see the arguments. ``folder`` is the parent: the arrays lie in a folder of their own below it."""

    def __init__(
        self,
        folder: Path,
        network: DINOWindow,
        copies: CopyRecipe,
        patch: Triple,
        source: Any,
        identity: dict[str, Any],
    ) -> None:
        raise NotImplementedError

    def prepare(self, case_names: Iterable[str], say: Callable[[str], object], plain: Iterable[str] = ()) -> None:
        """Fill; ``plain`` are cases (validation) of which only copy 0 is wanted.

        Any number of processes may call it at the same time: one fills, the others wait, so DDP needs no barrier.
        """
        raise NotImplementedError

    def open(self, case: str, copy: int) -> np.memmap:
        """(windows, token numbers, d, y', x') float16."""
        raise NotImplementedError
