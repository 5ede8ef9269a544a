"""TASL beside another loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.losses.tasl import TASL, TERMS

_SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class WithTASL(nn.Module):
    """Another loss and TASL: ``base + weight * TASL``; published: ``(base - least) * (1 + weight * f(TASL))``.

    Args:
        base: the loss to extend, called as ``base(output, target)``.
        tasl: the term to add.
        weight: weight of the localised term; ``beta`` of the published one (published: 0.1).
        f: ``identity``, ``sigmoid`` or ``tanh``; published mode only.
        warmup_epochs: epochs over which the weight rises from 0, at most a tenth of all; whoever trains calls
            ``set_epoch`` before each.
        scale_weights: None for TASL at full resolution only: ``base`` gets outputs and targets as they come (lists of
            scales, or one tensor each), TASL their first entries. Else ``base`` is the loss of one scale, and the
            whole is a sum over the scales with these weights.
        least: what ``base`` gives for a perfect prediction; published mode only. nnU-Net's cross-entropy - Dice gives
            -1 where the published cross-entropy + 1 - Dice gives 0. A factor on a negative loss would lower it.
    """

    term_names = tuple(f"tasl_{name}" for name in TERMS)
    """Of ``term_values``."""

    def __init__(
        self,
        base: nn.Module,
        tasl: TASL,
        weight: float = 1.0,
        f: Literal["identity", "sigmoid", "tanh"] = "identity",
        warmup_epochs: float = 0.0,
        scale_weights: Sequence[float] | None = None,
        least: float = 0.0,
    ) -> None:
        super().__init__()
        if f not in _SHAPES:
            raise NeurinoError(f"WithTASL: expected f to be one of {', '.join(_SHAPES)}, got {f!r}; choose one of them")
        self.base = base
        self.tasl = tasl
        self.weight = weight
        self.f = f
        self.warmup_epochs = warmup_epochs
        self.scale_weights = None if scale_weights is None else tuple(float(w) for w in scale_weights)
        self.least = least
        self.ramp = 1.0
        """Share of the weight that applies now, 0 to 1."""
        self._terms: dict[str, Tensor] = {}

    def set_epoch(self, epoch: int, num_epochs: int) -> None:
        """Set the weight for an epoch (from 0) of a training of ``num_epochs``."""
        warmup = min(self.warmup_epochs, num_epochs / 10)
        self.ramp = min(1.0, epoch / warmup) if warmup > 0 else 1.0

    def term_values(self) -> dict[str, Tensor]:
        """The terms of the last call at full resolution (``tasl_node``...), unweighted and detached, for logging."""
        return self._terms

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """The combined loss; arguments as nnU-Net passes them (a list of scales, or one tensor each)."""
        if self.scale_weights is None:
            whole = self._joined(self.base(output, target), _finest(output), _finest(target))
            self._keep_terms()
            return whole
        total: Tensor | None = None
        for weight, scale, truth in zip(self.scale_weights, output, target, strict=False):
            if weight != 0:
                part = weight * self._joined(self.base(scale, truth), scale, truth)
                if total is None:
                    self._keep_terms()
                total = part if total is None else total + part
        if total is None:
            raise NeurinoError(f"WithTASL: no scale with a weight: got weights {self.scale_weights}; give one above 0")
        return total

    def _joined(self, base: Tensor, output: Tensor, target: Tensor) -> Tensor:
        value = self.tasl(output, target)
        if self.tasl.mode == "published":
            return (base - self.least) * (1 + self.ramp * self.weight * _SHAPES[self.f](value.detach()))
        return base + self.ramp * self.weight * value

    def _keep_terms(self) -> None:
        self._terms = {f"tasl_{name}": torch.as_tensor(value) for name, value in self.tasl.last_terms.items()}


def _finest(scales: Tensor | Sequence[Tensor]) -> Tensor:
    return scales if isinstance(scales, Tensor) else scales[0]
