"""The trainer of all our networks. When nnU-Net calls what:

``nnUNetv2_train`` finds the class by its name (``names``) and makes one for each process.

1. ``__init__``: the plans are adapted to the family's network before nnU-Net reads them; the settings are copied to the
   attributes in which nnU-Net keeps epochs, steps, learning rate.
2. ``load_checkpoint``, if a training is resumed or validated: settings and plans of the checkpoint are taken over, then
   ``initialize`` runs, then nnU-Net loads weights, optimiser and log.
3. ``initialize``: builds network, optimiser (``configure_optimizers``) and loss (``_build_loss``). Only here, and only
   if nothing is resumed, 2D weights are looked for and put into the encoder.
4. ``on_train_start``: data loaders, and ``neurino_settings.json`` for people.
5. each epoch: ``on_train_epoch_start``, ``train_step`` many times, ``on_train_epoch_end``; then, with the averaged
   weights, ``on_validation_epoch_start`` to ``on_validation_epoch_end``; ``on_epoch_end``, which may call
   ``save_checkpoint``.
6. ``perform_actual_validation``: predicts the validation cases with the averaged weights.

``with_tasl`` and the ``LossTermHooks`` in it stand before these methods: they add TASL to the loss, and log its terms.
Prediction makes no instance: it reads the adapted plans from the model folder.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from torch.utils._pytree import tree_map

from nnunet_neurino.trainers import model_folder
from nnunet_neurino.trainers.checkpoints import init_args_of, resumed_plans, resumed_settings, whole_file
from nnunet_neurino.trainers.families import Family, Recipe
from nnunet_neurino.trainers.families.recipe import PLANS_KEY
from nnunet_neurino.trainers.optimisation import (
    AveragedAdamW,
    WarmupPoly,
    clip_gradients,
    let_encoder_learn,
    parameter_groups,
    without_wrappers,
)
from nnunet_neurino.trainers.plan_adaptation import adapt_plans
from nnunet_neurino.trainers.pretraining import find_source, load_into
from nnunet_neurino.trainers.tasl import TASLOptions, with_tasl
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


@with_tasl
class Trainer(nnUNetTrainer):
    """Everything follows from ``family``, its ``defaults`` and the changes to them that the plans carry.

    ``nnunet_neurino.trainers`` has a subclass for every name; a variant of yours is one with other ``defaults``.
    """

    family: ClassVar[Family[Any]]
    defaults: ClassVar[Recipe]

    settings: Recipe
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    num_epochs: int
    initial_lr: float
    weight_decay: float

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        self.settings = self.defaults.replaced(plans.get(PLANS_KEY, {}))
        adapt_plans(plans, configuration, dataset_json, self.family, self.settings)
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp and device.type == "cpu":
            # nnU-Net takes DDP for CUDA; two processes on a CPU (gloo) are how this path is tested.
            self.device, self.grad_scaler = device, None
        self._apply_settings()
        self.pretraining: dict[str, Any] | None = None
        self.encoder_is_pretrained = False
        self._restoring = False
        self._iteration = 0

    def _apply_settings(self, before: Recipe | None = None) -> None:
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

    # ---- building ---------------------------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Build everything; a training that starts from nothing looks for 2D weights, here and only here."""
        location = None
        if not self._restoring:
            if self.output_folder_base is not None:
                model_folder.refuse_mixed_folds(
                    self.output_folder_base, self.fold, self.configuration_name, self.plans_manager.plans
                )
            source = find_source(self.family, self.settings)
            location = source.location
            self.encoder_is_pretrained = location is not None
            if source.notice:
                self.print_to_log_file(source.notice, add_timestamp=False)
        super().initialize()
        if self.device.type == "cpu":
            # nnUNetv2_train takes all cores, which on a busy machine is many times slower than one.
            n_threads = use_fastest_thread_count()
            self.print_to_log_file(f"PyTorch uses {n_threads} CPU thread(s): OMP_NUM_THREADS, or the fastest here")
        if location is not None:
            self.pretraining = load_into(self.bare_network, location, self.family, self.settings)
            facts = ", ".join(f"{key} {value}" for key, value in self.pretraining.items())
            self.print_to_log_file(f"The encoder starts from 2D weights: {facts}")

    def configure_optimizers(self) -> tuple[AveragedAdamW, WarmupPoly]:
        settings = self.settings
        if settings.frozen_epochs == -1:
            # Before DDP wraps the network: it must not wait for gradients that never come.
            let_encoder_learn(self.bare_network, False)
        groups = parameter_groups(
            self.bare_network,
            self.initial_lr,
            self.weight_decay,
            settings.decay_all,
            settings.layer_decay if self.encoder_is_pretrained else 1.0,
            max(settings.frozen_epochs, 0),
        )
        optimizer = AveragedAdamW(groups, settings.ema, self.bare_network.buffers(), eps=settings.eps)
        return optimizer, WarmupPoly(optimizer, self.num_epochs, settings.warmup_epochs, settings.poly_power)

    def _build_loss(self) -> nn.Module:
        loss = self.voxel_loss()
        if isinstance(loss, DeepSupervisionWrapper):
            n_outputs = len(loss.weight_factors)
            # nnU-Net gives the last output no weight, and would divide 0 by 0 for a single one.
            if self.settings.bottleneck_loss or n_outputs == 1:
                weights = [0.5**level for level in range(n_outputs)]
                loss.weight_factors = tuple(weight / sum(weights) for weight in weights)
        return loss

    def voxel_loss(self) -> nn.Module:
        """The loss that TASL joins: nnU-Net's Dice and cross-entropy."""
        return super()._build_loss()

    @property
    def tasl_options(self) -> TASLOptions:
        """TASL as the settings say; the published form counts at every scale, as published."""
        s = self.settings
        return TASLOptions(
            s.tasl, s.tasl_weight, s.tasl_lambdas, warmup_epochs=s.tasl_warmup_epochs, per_scale=s.tasl == "published"
        )

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

    # ---- a training -------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.local_rank == 0:
            model_folder.remove_unfinished_checkpoints(self.output_folder)
            changed = self.plans_manager.plans.get(PLANS_KEY, {})
            model_folder.write_settings(
                self.output_folder, type(self).__name__, self.settings, list(changed), self.pretraining
            )

    def on_train_epoch_start(self) -> None:
        self._iteration = 0
        if not self.is_ddp and self.settings.frozen_epochs > 0:
            # Saves the encoder's backward pass. DDP could not do without its gradients; there only the rate is 0.
            let_encoder_learn(self.bare_network, self.current_epoch >= self.settings.frozen_epochs)
        super().on_train_epoch_start()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of the optimiser; nnU-Net's own has its clipping and its schedule built in."""
        data = batch["data"].to(self.device, non_blocking=True)
        target = tree_map(lambda scale: scale.to(self.device, non_blocking=True), batch["target"])
        if self.settings.stepwise:
            fraction = (self._iteration + 0.5) / self.num_iterations_per_epoch
            self.lr_scheduler.step(self.current_epoch + fraction)
        self._iteration += 1

        self.optimizer.zero_grad(set_to_none=True)
        loss = self.add_gradients(data, target)
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
            clip_gradients(self.optimizer, self.network, self.settings.clip)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            clip_gradients(self.optimizer, self.network, self.settings.clip)
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

    # ---- averaged weights: what is validated, saved and predicted with ------------------------------------------

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.optimizer.swap()

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        self.optimizer.swap()
        super().on_validation_epoch_end(val_outputs)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self.optimizer.averaged():
            super().perform_actual_validation(save_probabilities)

    # ---- checkpoints ------------------------------------------------------------------------------------------------

    def save_checkpoint(self, filename: str) -> None:
        """Save as nnU-Net does, with the averaged weights as the model's, and whole or not at all.

        The settings and the origin of the 2D weights lie beside the plans, in ``init_args``.
        """
        self.my_init_kwargs["neurino"] = {"settings": self.settings.as_json(), "pretraining": self.pretraining}
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with self.optimizer.averaged(), whole_file(filename) as unfinished:
            super().save_checkpoint(unfinished)

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Resume or validate. A checkpoint is complete in itself: no 2D weights are looked for.

        The run goes on with the settings and the network it was started with; settings given anew (``neurino train
        --c --epochs 300``) count from here on. A setting the network depends on cannot be changed.
        """
        self._restoring = True
        changed = dict(self.plans_manager.plans.get(PLANS_KEY, {}))
        if not self.was_initialized:
            init_args, before = init_args_of(filename_or_checkpoint), self.settings
            self.settings = resumed_settings(init_args, self.defaults, changed, str(filename_or_checkpoint))
            plans, stored = self.plans_manager.plans, init_args["plans"]
            resumed_plans(plans, stored, self.configuration_name, self.settings, changed)
            self.plans_manager = PlansManager(plans)
            self.configuration_manager = self.plans_manager.get_configuration(self.configuration_name)
            self._apply_settings(before)
        super().load_checkpoint(filename_or_checkpoint)
        record = self.my_init_kwargs.get("neurino") or {}
        self.pretraining = record.get("pretraining")
        # nnU-Net has put back the arguments of the first start; the next checkpoint must hold those of today.
        self.my_init_kwargs["plans"] = self.plans_manager.plans
        self.optimizer.resume(self.settings, record.get("settings", {}).get("lr", self.settings.lr), changed)
