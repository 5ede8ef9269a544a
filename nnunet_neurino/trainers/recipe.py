"""A training step by step as ``TrainerSettings`` say, inside nnU-Net's own loop."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import atomic_path
from nnunet_neurino.trainers.optimisation import AveragedAdamW, WarmupPoly, encoder_blocks, parameter_groups
from nnunet_neurino.trainers.settings import TrainerSettings
from nnunet_neurino.trainers.threads import use_fastest_thread_count

ATTRIBUTES = {
    "num_epochs": "epochs",
    "num_iterations_per_epoch": "iterations",
    "num_val_iterations_per_epoch": "val_iterations",
    "initial_lr": "lr",
    "weight_decay": "weight_decay",
    "oversample_foreground_percent": "oversample_foreground",
}
"""nnU-Net's attributes and the settings they come from."""


def without_wrappers(network: Any) -> nn.Module:
    """The network without the wrappers of DDP and torch.compile."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        network = network.module
    return getattr(network, "_orig_mod", network)


class RecipeTrainer(nnUNetTrainer):
    """Optimiser, schedule, clipping, frozen encoder and averaged weights; it reads ``self.settings``.

    ``self.encoder_is_pretrained`` decides whether the encoder's learning rate decays from layer to layer.
    """

    settings: TrainerSettings
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    num_epochs: int
    initial_lr: float
    weight_decay: float
    encoder_is_pretrained: bool = False
    _iteration = 0

    def apply_settings(self, before: TrainerSettings | None = None) -> None:
        """Copy settings to the attributes in which nnU-Net keeps them.

        Args:
            before: copy only what differs from these, so that what a subclass has set in its ``__init__``, as nnU-Net's
                own variants do, stays.
        """
        for attribute, name in ATTRIBUTES.items():
            value = getattr(self.settings, name)
            if before is None or value != getattr(before, name):
                setattr(self, attribute, value)
        # nnU-Net's 50 epochs between checkpoints can be hours here.
        self.save_every = max(1, min(10, self.num_epochs // 10))
        if self.settings.full_precision:
            self.grad_scaler = None

    @property
    def bare_network(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        return without_wrappers(self.network)

    def configure_optimizers(self) -> tuple[AveragedAdamW, WarmupPoly]:
        settings = self.settings
        if settings.frozen_epochs == -1:
            # Before DDP wraps the network: it must not wait for gradients that never come.
            self._let_encoder_learn(False)
        groups = parameter_groups(
            self.bare_network,
            self.initial_lr,
            self.weight_decay,
            settings.decay_all,
            settings.layer_decay if self.encoder_is_pretrained else 1.0,
            max(settings.frozen_epochs, 0),
        )
        optimizer = AveragedAdamW(groups, ema=settings.ema, eps=settings.eps)
        return optimizer, WarmupPoly(optimizer, self.num_epochs, settings.warmup_epochs, settings.poly_power)

    def _build_loss(self) -> nn.Module:
        loss = super()._build_loss()
        if self.settings.bottleneck_loss and isinstance(loss, DeepSupervisionWrapper):
            weights = [0.5**level for level in range(len(loss.weight_factors))]
            loss.weight_factors = tuple(weight / sum(weights) for weight in weights)
        return loss

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, bool, Any, Any]:
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.settings.mirroring:
            mirror_axes = None
        if not (self.settings.mirroring and self.settings.tta):
            self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, initial_patch_size, mirror_axes

    def plot_network_architecture(self) -> None:
        """Nothing: the library nnU-Net draws it with no longer works and only leaves an error in the log."""

    def initialize(self) -> None:
        super().initialize()
        if self.device.type == "cpu":
            # nnUNetv2_train takes all cores, which on a busy machine is many times slower than one.
            n_threads = use_fastest_thread_count()
            self.print_to_log_file(f"PyTorch uses {n_threads} CPU thread(s): OMP_NUM_THREADS, or the fastest here")

    def on_train_epoch_start(self) -> None:
        self._iteration = 0
        if not self.is_ddp and self.settings.frozen_epochs > 0:
            # Saves the encoder's backward pass. DDP could not do without its gradients; there only the rate is 0.
            self._let_encoder_learn(self.current_epoch >= self.settings.frozen_epochs)
        super().on_train_epoch_start()

    def _let_encoder_learn(self, wish: bool) -> None:
        """Train the pretrained part of the encoder or not; what is new in it (DINeuro's bends and gate) always is."""
        for block in encoder_blocks(self.bare_network):
            for parameter in block:
                parameter.requires_grad_(wish)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of the optimiser; nnU-Net's own has its clipping and its schedule built in."""
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        if isinstance(target, list):
            target = [level.to(self.device, non_blocking=True) for level in target]
        else:
            target = target.to(self.device, non_blocking=True)
        if self.settings.stepwise:
            fraction = (self._iteration + 0.5) / self.num_iterations_per_epoch
            self.lr_scheduler.step(self.current_epoch + fraction)
        self._iteration += 1

        self.optimizer.zero_grad(set_to_none=True)
        loss = self.add_gradients(data, target)
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
            self._clip()
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            self._clip()
            self.optimizer.step()
        return {"loss": loss.detach().cpu().numpy()}

    def add_gradients(self, data: Any, target: Any) -> torch.Tensor:
        """Add the gradient of the loss, scaled for mixed precision, to the parameters'; the loss comes back."""
        with self.mixed_precision():
            loss = self.loss(self.network(data), target)
        self.scaled(loss).backward()
        return loss

    def mixed_precision(self) -> contextlib.AbstractContextManager[Any]:
        """The context in which the network runs."""
        mixed = self.device.type == "cuda" and not self.settings.full_precision
        # autocast would be slow on a CPU and is not there on every MPS, so it is not even entered.
        return torch.autocast("cuda") if mixed else contextlib.nullcontext()

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss as it goes into the backward pass."""
        return loss if self.grad_scaler is None else self.grad_scaler.scale(loss)

    def _clip(self) -> None:
        for group in self.optimizer.param_groups:
            if group["lr"] == 0.0:  # frozen: neither moved nor counted
                for parameter in group["params"]:
                    parameter.grad = None
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)

    # ---- averaged weights: what is validated, saved and predicted with ------------------------------------------

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.optimizer.swap()

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        self.optimizer.swap()
        super().on_validation_epoch_end(val_outputs)

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        self.optimizer.swap()
        try:
            yield
        finally:
            self.optimizer.swap()

    def save_checkpoint(self, filename: str) -> None:
        """Save as nnU-Net does, with the averaged weights as the model's, and whole or not at all."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        try:
            with self._averaged_weights(), atomic_path(filename) as unfinished:
                super().save_checkpoint(str(unfinished))
        except (OSError, RuntimeError) as error:  # PyTorch says neither why nor where
            free = shutil.disk_usage(Path(filename).parent).free / 2**20
            raise NeurinoError(
                f"{filename} could not be written ({str(error).splitlines()[0]}); {free:.0f} MiB are free there. The "
                "last checkpoint is whole: make room and resume with --c"
            ) from error

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        super().load_checkpoint(filename_or_checkpoint)
        if self.optimizer.swapped:
            self.optimizer.swap()
        if not self.settings.ema:  # it was asked for before, and would be validated and saved as it is now for good
            self.optimizer.forget_average()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self._averaged_weights():
            super().perform_actual_validation(save_probabilities)
