"""TASL in any nnU-Net trainer: a class decorator, and nnU-Net's own trainer with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, Literal, TypeVar

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_neurino.losses import TASL, WithTASL
from nnunet_neurino.trainers.loss_terms import LossTermHooks, before

T = TypeVar("T", bound="type[Any]")


@dataclass(frozen=True)
class TASLOptions:
    """How TASL joins a trainer's loss."""

    # ``"localised"`` (a term with a gradient), ``"published"`` (a factor without one), or None for no TASL
    mode: Literal["localised", "published"] | None = "localised"
    weight: float = 1.0  # weight of the localised term, beta of the published factor
    lambdas: tuple[float, float, float] = (1.0, 0.5, 0.5)  # weights of the node, edge and path terms
    # ``"identity"``, ``"sigmoid"`` or ``"tanh"`` around the published value
    f: Literal["identity", "sigmoid", "tanh"] = "identity"
    warmup_epochs: float = 10.0  # epochs over which the weight rises from 0, at most a tenth of all
    per_scale: bool = False  # at every scale of deep supervision (as published) instead of at full resolution only


def with_tasl(trainer: T) -> T:
    """The trainer class with TASL in its loss; a class decorator. ``tasl_options`` in the class changes how.

    The trainer's own loss is kept, whatever it is: class numbers or regions, ignore label, with or without deep
    supervision. The node, edge and path terms are logged and drawn beside it.
    """
    return before(trainer, TASLHooks)


class TASLHooks(LossTermHooks):
    """What ``with_tasl`` puts before a trainer's own methods."""

    def _build_loss(self) -> nn.Module:
        """The trainer's loss with TASL."""
        base = super()._build_loss()
        options = getattr(self, "tasl_options", TASLOptions())
        if options.mode is None:
            return base
        labels = self.label_manager
        node, edge, path = options.lambdas
        tasl = TASL(options.mode, node, edge, path, labels.has_regions, labels.ignore_label)
        scales: Any = None
        if options.per_scale and isinstance(base, DeepSupervisionWrapper):
            base, scales = base.loss, base.weight_factors
        return WithTASL(base, tasl, options.weight, options.f, options.warmup_epochs, scales, least=-1.0)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The trainer's step; on a GPU the truth's graph is worked out while the network is at work."""
        if isinstance(self.loss, WithTASL) and self.device.type != "cpu":
            target = batch["target"]
            scales = target if isinstance(target, list) else [target]
            # Moved here: the step then hands this very tensor to the loss, which knows it again.
            moved = [scale.to(self.device, non_blocking=True) for scale in scales]
            self.loss.tasl.prepare(moved[0], self.label_manager.num_segmentation_heads, scales[0])
            batch = {**batch, "target": moved if isinstance(target, list) else moved[0]}
        return super().train_step(batch)


@with_tasl
class PlainTASLTrainer(nnUNetTrainer):
    """nnU-Net as it is, with TASL at full resolution."""

    epochs: ClassVar[int | None] = None
    """Number of epochs; None: nnU-Net's."""

    @wraps(nnUNetTrainer.__init__)  # type: ignore[misc]  # nnU-Net reads its signature
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.epochs is not None:
            self.num_epochs = self.epochs
