"""TASL beside another loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.losses.tasl import TASL

_SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class WithTASL(nn.Module):
    """Another loss and TASL: ``base + weight * TASL``, or for the published mode ``base * (1 + weight * f(TASL))``.

    Wrap nnU-Net's whole loss to use TASL at full resolution only: lists of outputs and targets go to ``base`` as they
    are, their first entries to TASL. Wrap the loss inside nnU-Net's ``DeepSupervisionWrapper`` to use it per scale.

    Args:
        base: the loss to extend, called as ``base(output, target)``.
        tasl: the term to add.
        weight: weight of the localised term; ``beta`` of the published one (the seeds': 0.1).
        f: ``identity``, ``sigmoid`` or ``tanh``; published mode only.
        warmup_epochs: epochs over which the weight rises from 0, where somebody calls ``set_epoch`` before each.
    """

    def __init__(
        self,
        base: nn.Module,
        tasl: TASL,
        weight: float = 0.5,
        f: Literal["identity", "sigmoid", "tanh"] = "identity",
        warmup_epochs: float = 0.0,
    ) -> None:
        super().__init__()
        if f not in _SHAPES:
            raise NeurinoError(f"WithTASL: expected f to be one of {', '.join(_SHAPES)}, got {f!r}; choose one of them")
        self.base = base
        self.tasl = tasl
        self.weight = weight
        self.f = f
        self.warmup_epochs = warmup_epochs
        self.ramp = 1.0
        """Share of the weight that applies now, 0 to 1."""

    def set_epoch(self, epoch: int, num_epochs: int) -> None:
        """Set the weight of an epoch (from 0); ``num_epochs`` is what trainers pass and is not needed."""
        self.ramp = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs > 0 else 1.0

    def term_values(self) -> dict[str, Tensor]:
        """The terms of the last call (``tasl_node``...), unweighted and detached, for logging."""
        return {f"tasl_{name}": torch.as_tensor(value) for name, value in self.tasl.last_terms.items()}

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        """The combined loss; arguments as nnU-Net passes them (a list of scales, or one tensor each)."""
        base = self.base(output, target)
        finest, truth = (output[0], target[0]) if isinstance(output, (list, tuple)) else (output, target)
        value = self.tasl(finest, truth)
        if self.tasl.mode == "published":
            return base * (1 + self.ramp * self.weight * _SHAPES[self.f](value.detach()))
        return base + self.ramp * self.weight * value
