"""The hook through which any nnU-Net trainer gets a further loss term that is logged, drawn and resumed.

Three lines add a term to a trainer of your own::

    class nnUNetTrainerMine(LossTermsMixin, nnUNetTrainer):
        loss_term_names = ("mine",)
        def wrap_loss(self, base): return MyLoss(base)  # a module with `term_values() -> {"mine": tensor}`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import distributed as dist
from torch import nn

from nnunet_neurino.trainers.logger import TERM_PREFIX, TermLogger

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Base
else:
    _Base = object


class LossTermsMixin(_Base):
    """Put before an ``nnUNetTrainer`` class in the list of bases.

    A subclass names its terms in ``loss_term_names`` and returns, from ``wrap_loss``, a module that is called like
    nnU-Net's own loss, ``loss(output, target)``, where both are lists (full resolution first) with deep supervision
    and tensors without it. The module says what it has just computed by ``term_values() -> dict[str, Tensor]``
    (detached scalars, any subset of the names). If it has ``set_epoch(epoch, num_epochs)``, that is called before
    every epoch (for warm-up).

    Every epoch the mean of each term over all training iterations and all DDP ranks is printed, logged as
    ``loss_term/<name>`` (Weights & Biases included), and drawn in ``progress.png``. ``--c`` works with checkpoints
    that were written without these terms, or with others.
    """

    loss_term_names: tuple[str, ...] = ()

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.logger.local_logger = TermLogger(self.loss_term_names)

    def wrap_loss(self, base: nn.Module) -> nn.Module:
        """Return nnU-Net's loss ``base`` with the terms joined to it; the default adds none."""
        return base

    def _build_loss(self) -> nn.Module:
        return self.wrap_loss(super()._build_loss())

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if hasattr(self.loss, "set_epoch"):
            self.loss.set_epoch(self.current_epoch, self.num_epochs)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        result = super().train_step(batch)
        if self.loss_term_names:
            values = self.loss.term_values()
            for name in self.loss_term_names:
                result[TERM_PREFIX + name] = float(values[name]) if name in values else float("nan")
        return result

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        super().on_train_epoch_end(train_outputs)
        for name in self.loss_term_names:
            key = TERM_PREFIX + name
            values = np.array([output[key] for output in train_outputs], dtype=np.float64)
            self.logger.log(key, _mean_over_ranks(values, self.is_ddp), self.current_epoch)

    def on_epoch_end(self) -> None:
        local_logger = self.logger.local_logger
        if isinstance(local_logger, TermLogger):
            local_logger.pad_terms(self.current_epoch + 1)
            if self.loss_term_names:
                latest = {name: self.logger.get_value(TERM_PREFIX + name, -1) for name in self.loss_term_names}
                listing = ", ".join(f"{name} {value:.4f}" for name, value in latest.items())
                self.print_to_log_file("loss terms:", listing)
        super().on_epoch_end()


def _mean_over_ranks(values: np.ndarray, is_ddp: bool) -> float:
    """Mean of the values that are not NaN, over this process or over all of them; NaN if there is none."""
    valid = values[~np.isnan(values)]
    parts: list[Any] = [(float(valid.sum()), len(valid))]
    if is_ddp:
        parts = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (float(valid.sum()), len(valid)))
    total, count = (sum(part[i] for part in parts) for i in (0, 1))
    return total / count if count else float("nan")
