"""Further loss terms in any nnU-Net trainer: logged, drawn and resumed.

A term of your own::

    @with_loss_terms
    class nnUNetTrainerMine(nnUNetTrainer):
        def _build_loss(self): return MyLoss(super()._build_loss())

A loss that tells its terms has ``term_names``, a sequence of strings, and ``term_values() -> dict[str, Tensor]``: what
it has just computed (detached scalars, any subset of the names). It is called like nnU-Net's own loss, ``loss(output,
target)``, where both are lists (full resolution first) with deep supervision and tensors without it. If it has
``set_epoch(epoch, num_epochs)``, that is called before every epoch (for warm-up).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import distributed as dist

from nnunet_neurino.trainers.logger import TERM_PREFIX, TermLogger

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as _Base
else:
    _Base = object

T = TypeVar("T", bound="type[Any]")


def with_loss_terms(trainer: T) -> T:
    """The trainer class with its loss's terms logged; a class decorator.

    Every epoch the mean of each term over all training iterations and all DDP ranks is printed, logged as
    ``loss_term/<name>`` (Weights & Biases included), and drawn in ``progress.png``. ``--c`` works with checkpoints
    that were written without these terms, or with others.
    """
    return before(trainer, LossTermHooks)


def before(trainer: T, hooks: type[Any]) -> T:
    """The trainer class with ``hooks`` before all its own; it keeps its name. Nothing happens if it has them."""
    if issubclass(trainer, hooks):
        return trainer
    kept = {name: getattr(trainer, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(trainer.__name__, (hooks, trainer), kept)  # type: ignore[return-value]


class LossTermHooks(_Base):
    """What ``with_loss_terms`` puts before a trainer's own methods."""

    def initialize(self) -> None:
        super().initialize()
        self.logger.local_logger = TermLogger(self._terms)

    @property
    def _terms(self) -> tuple[str, ...]:
        return tuple(getattr(self.loss, "term_names", ()))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if hasattr(self.loss, "set_epoch"):
            self.loss.set_epoch(self.current_epoch, self.num_epochs)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        result = super().train_step(batch)
        if self._terms:
            values = self.loss.term_values()
            for name in self._terms:
                result[TERM_PREFIX + name] = float(values[name]) if name in values else float("nan")
        return result

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        super().on_train_epoch_end(train_outputs)
        for name in self._terms:
            key = TERM_PREFIX + name
            values = np.array([output[key] for output in train_outputs], dtype=np.float64)
            self.logger.log(key, _mean_over_ranks(values, self.is_ddp), self.current_epoch)

    def on_epoch_end(self) -> None:
        self.logger.local_logger.pad_terms(self.current_epoch + 1)
        if self._terms:
            latest = {name: self.logger.get_value(TERM_PREFIX + name, -1) for name in self._terms}
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
