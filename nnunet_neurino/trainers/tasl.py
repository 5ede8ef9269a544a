"""TASL in any nnU-Net trainer: a mixin, and nnU-Net's own trainer with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_neurino.losses import TASL, WithTASL
from nnunet_neurino.trainers.loss_terms import LossTermsMixin


@dataclass(frozen=True)
class TASLOptions:
    """How TASL joins a trainer's loss.

    Attributes:
        mode: ``"localised"`` (a term with a gradient), ``"published"`` (a factor without one), or None for no TASL.
        weight: weight of the localised term, beta of the published factor.
        lambdas: weights of the node, edge and path terms.
        f: ``"identity"``, ``"sigmoid"`` or ``"tanh"`` around the published value.
        warmup_epochs: epochs over which the weight rises from 0, at most a tenth of all.
        per_scale: at every scale of deep supervision (as published) instead of at full resolution only.
    """

    mode: Literal["localised", "published"] | None = "localised"
    weight: float = 1.0
    lambdas: tuple[float, float, float] = (1.0, 0.5, 0.5)
    f: Literal["identity", "sigmoid", "tanh"] = "identity"
    warmup_epochs: float = 10.0
    per_scale: bool = False


class TASLMixin(LossTermsMixin):
    """Put before an ``nnUNetTrainer`` class in the list of bases; set ``tasl_options`` to change how it is used.

    The trainer's own loss is kept, whatever it is: class numbers or regions, ignore label, with or without deep
    supervision. The node, edge and path terms are logged and drawn beside it.
    """

    tasl_options: TASLOptions = TASLOptions()

    @property
    def loss_term_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """What is logged: nothing where TASL is off."""
        own = () if self.tasl_options.mode is None else ("tasl_node", "tasl_edge", "tasl_path")
        return (*LossTermsMixin.loss_term_names, *own)

    def wrap_loss(self, base: nn.Module) -> nn.Module:
        """nnU-Net's loss with TASL."""
        options = self.tasl_options
        base = super().wrap_loss(base)
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
        """nnU-Net's step; on a GPU the truth's graph is worked out while the network is at work."""
        if isinstance(self.loss, WithTASL) and self.device.type != "cpu":
            target = batch["target"]
            finest = target[0] if isinstance(target, list) else target
            self.loss.tasl.prepare(finest, self.label_manager.num_segmentation_heads)
        return super().train_step(batch)


class nnUNetTrainerTASL(TASLMixin, nnUNetTrainer):
    """nnU-Net as it is, with TASL at full resolution."""
