"""The base of all NeurINO trainers: plans adapted before nnU-Net reads them, 2D weights, settings kept on resuming."""

from __future__ import annotations

import pickle
from typing import Any, ClassVar

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers import model_folder
from nnunet_neurino.trainers.logger import TermLogger
from nnunet_neurino.trainers.optimisation import NOT_DECAYED
from nnunet_neurino.trainers.plan_adaptation import adapt_plans, settings_in
from nnunet_neurino.trainers.pretraining import find_source, load_into
from nnunet_neurino.trainers.recipe import RecipeTrainer
from nnunet_neurino.trainers.settings import PLANS_KEY, TrainerSettings
from nnunet_neurino.trainers.tasl import TASLMixin, TASLOptions


class NeurINOTrainer(TASLMixin, RecipeTrainer):
    """Everything follows from ``defaults`` and the changes to them that the plans carry.

    A variant is a subclass with other ``defaults``. Prediction never makes an instance of it: it reads the adapted
    plans from the model folder.
    """

    defaults: ClassVar[TrainerSettings] = TrainerSettings()

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        self.settings = settings_in(plans, self.defaults)
        adapt_plans(plans, configuration, dataset_json, self.settings)
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp and device.type == "cpu":
            # nnU-Net takes DDP for CUDA; two processes on a CPU (gloo) are how this path is tested.
            self.device, self.grad_scaler = device, None
        self.apply_settings()
        self.pretraining: dict[str, Any] | None = None
        self._restoring = False

    @property
    def tasl_options(self) -> TASLOptions:  # type: ignore[override]
        """TASL as the settings say; the published form counts at every scale, as published."""
        settings = self.settings
        return TASLOptions(
            mode=settings.tasl,
            weight=settings.tasl_weight,
            lambdas=settings.tasl_lambdas,
            warmup_epochs=settings.tasl_warmup_epochs,
            per_scale=settings.tasl == "published",
        )

    def initialize(self) -> None:
        """Build everything; a training that starts from nothing looks for 2D weights, here and only here."""
        source = None
        if not self._restoring:
            if self.output_folder_base is not None:
                model_folder.refuse_mixed_folds(
                    self.output_folder_base, self.fold, self.configuration_name, self.plans_manager.plans
                )
            source = find_source(self.settings)
            self.encoder_is_pretrained = source.location is not None
            if source.notice:
                self.print_to_log_file(source.notice, add_timestamp=False)
        super().initialize()
        if source is not None and source.location is not None:
            self.pretraining = load_into(self.bare_network, source.location, self.settings)
            facts = ", ".join(f"{key} {value}" for key, value in self.pretraining.items())
            self.print_to_log_file(f"The encoder starts from 2D weights: {facts}")

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.local_rank == 0:
            model_folder.remove_unfinished_checkpoints(self.output_folder)
            changed = self.plans_manager.plans.get(PLANS_KEY, {})
            model_folder.write_settings(
                self.output_folder, type(self).__name__, self.settings, list(changed), self.pretraining
            )

    def save_checkpoint(self, filename: str) -> None:
        """Save as nnU-Net does; the settings and the origin of the weights lie beside the plans, in ``init_args``."""
        self.my_init_kwargs["neurino"] = {"settings": self.settings.as_json(), "pretraining": self.pretraining}
        super().save_checkpoint(filename)

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """Resume or validate. A checkpoint is complete in itself: no 2D weights are looked for.

        The run goes on with the settings and the network it was started with; settings given anew (``neurino train
        --c --epochs 300``) count from here on. A setting the network depends on cannot be changed.
        """
        self._restoring = True
        changed = dict(self.plans_manager.plans.get(PLANS_KEY, {}))
        if not self.was_initialized:
            self._adopt(_init_args_of(filename_or_checkpoint), changed, str(filename_or_checkpoint))
        super().load_checkpoint(filename_or_checkpoint)
        record = self.my_init_kwargs.get("neurino") or {}
        self.pretraining = record.get("pretraining")
        # nnU-Net has put back the arguments of the first start; the next checkpoint must hold those of today.
        self.my_init_kwargs["plans"] = self.plans_manager.plans
        for group in self.optimizer.param_groups:
            group["peak_lr"] *= self.settings.lr / record.get("settings", {}).get("lr", self.settings.lr)
            if "weight_decay" in changed and not group["name"].endswith(NOT_DECAYED):
                group["weight_decay"] = self.settings.weight_decay
            if "eps" in changed:
                group["eps"] = self.settings.eps

    def _adopt(self, init_args: dict[str, Any], changed: dict[str, Any], filename: str) -> None:
        """Take over settings and network of a checkpoint, then ``changed`` settings."""
        stored_plans = init_args["plans"]
        record = init_args.get("neurino") or {}
        started = self.defaults.replaced(record.get("settings") or stored_plans.get(PLANS_KEY, {}))
        settings = started.replaced(changed)
        for name in (*settings.fixed, *settings.of_the_optimiser):
            if getattr(settings, name) != getattr(started, name):
                raise NeurinoError(
                    f"{filename}: this model was started with {name} {getattr(started, name)}, which cannot become "
                    f"{getattr(settings, name)} when it is resumed; leave it out, or start anew without --c"
                )
        before, self.settings = self.settings, settings
        plans = self.plans_manager.plans
        plans[PLANS_KEY] = {**stored_plans.get(PLANS_KEY, {}), **changed}
        stored = stored_plans["configurations"][self.configuration_name]
        current = plans["configurations"][self.configuration_name]
        for key in ("architecture", "patch_size", "batch_size"):
            if key in stored:
                current[key] = stored[key]
        if "batch_size" in changed:
            current["batch_size"] = settings.batch_size
        if "checkpointing" in current["architecture"]["arch_kwargs"]:
            current["architecture"]["arch_kwargs"]["checkpointing"] = settings.checkpointing
        self.plans_manager = PlansManager(plans)
        self.configuration_manager = self.plans_manager.get_configuration(self.configuration_name)
        self.apply_settings(before)
        self.logger.local_logger = TermLogger(self.loss_term_names)


def _init_args_of(filename: str) -> dict[str, Any]:
    """What the trainer that wrote a checkpoint was made with."""
    try:
        checkpoint = torch.load(filename, map_location="cpu", weights_only=False)
    except FileNotFoundError:
        raise
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise NeurinoError(
            f"{filename}: cannot be read ({str(error).splitlines()[0][:160]}); it may be cut short: move it away, and "
            "--c goes on from another checkpoint of the folder, if there is one"
        ) from None
    if "optimizer_state" not in checkpoint:
        raise NeurinoError(
            f"{filename}: holds a model without the state of its training, as `neurino import-checkpoint` makes it; it "
            "predicts, but cannot be resumed or validated. To train on, start anew with -pretrained_weights"
        )
    return dict(checkpoint["init_args"])
