"""The trainer of DINOWindow: one loss over the whole volume, two passes, tokens from a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import distributed as dist
from torch import nn

from nnunet_neurino.losses import PortionedDiceCE
from nnunet_neurino.networks import DINOWindow
from nnunet_neurino.networks.two_pass import per_window, two_pass
from nnunet_neurino.trainers.families.dinowindow import WindowSettings
from nnunet_neurino.trainers.trainer import Trainer
from nnunet_neurino.trainers.windows.copies import PLAIN, CopyRecipe
from nnunet_neurino.trainers.windows.loader import WindowLoader
from nnunet_neurino.trainers.windows.token_cache import TokenCache

CACHE_FOLDER = "neurino_tokens"
"""In nnU-Net's folder of the preprocessed data set."""


class WindowTrainer(Trainer):
    """Only the decoder is trained. ``settings`` are ``WindowSettings``."""

    settings: WindowSettings

    def initialize(self) -> None:
        self.enable_deep_supervision = False  # there is one resolution only
        super().initialize()

    def _do_i_compile(self) -> bool:
        """No: each window goes through the network by itself, twice."""
        return False

    def voxel_loss(self) -> nn.Module:
        """Dice and cross-entropy as nnU-Net's, with the memory of a portion of the volume."""
        batch_dice = self.configuration_manager.batch_dice
        if self.is_ddp and batch_dice:  # sums of several processes are needed, which only nnU-Net's gathers
            return super().voxel_loss()
        labels = self.label_manager
        alone = self.settings.tasl is None and self.settings.loss_over == "volume"
        return PortionedDiceCE(labels.has_regions, labels.ignore_label, batch_dice, over_logits=alone)

    def add_gradients(self, data: Any, target: torch.Tensor) -> torch.Tensor:
        """Two passes, or, for comparison, the mean of the windows' losses."""
        network = self._window_network
        windows = network.windows(data) if isinstance(data, torch.Tensor) else data
        if self.settings.loss_over == "volume":
            loss = two_pass(
                network.decoder, windows, lambda logits: self.loss(logits, target), self.scaled, self.mixed_precision
            )
        else:
            loss = per_window(network.decoder, windows, target, self.loss, self.scaled, self.mixed_precision)
        if self.is_ddp:
            # DDP's own averaging belongs to a backward pass of the whole network at once.
            for parameter in network.decoder.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= dist.get_world_size()
        return loss

    @property
    def _window_network(self) -> DINOWindow:
        return cast(DINOWindow, self.bare_network)

    # ---- data -------------------------------------------------------------------------------------------------------

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's own loaders for ``tokens="augmented"``, else volumes as windows."""
        if self.settings.tokens == "augmented":
            return super().get_dataloaders()
        self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()  # for prediction's mirroring
        training, validation = self.get_tr_and_val_datasets()
        y, x = self.configuration_manager.spacing[1:]
        patch = self.configuration_manager.patch_size
        recipe = CopyRecipe(
            copies=self.settings.copies,
            mirroring=self.settings.mirroring,
            quarter_turns=self.settings.mirroring and abs(y - x) < 1e-3 * x and patch[1] == patch[2],
            intensity=True,
            shifts=True,
        )
        cache = None
        if self.settings.tokens == "cached":
            cache = self._cache(training, recipe)
            cache.prepare(training.identifiers, self.print_to_log_file, plain=validation.identifiers)
        return self._loader(training, recipe, cache), self._loader(validation, PLAIN, cache)

    def _cache(self, dataset: Any, recipe: CopyRecipe) -> TokenCache:
        configuration = self.configuration_manager
        identity = {
            "data": configuration.data_identifier,
            "configuration": self.configuration_name,
            "normalisation": list(configuration.normalization_schemes),
        }
        folder = Path(self.preprocessed_dataset_folder_base) / CACHE_FOLDER
        return TokenCache(folder, self._window_network, recipe, tuple(configuration.patch_size), dataset, identity)

    def _loader(self, dataset: Any, recipe: CopyRecipe, cache: TokenCache | None) -> WindowLoader:
        return WindowLoader(
            dataset,
            dataset.identifiers,
            self._window_network,
            tuple(self.configuration_manager.patch_size),
            self.batch_size,
            recipe,
            cache,
            seed=[self.fold if isinstance(self.fold, int) else 5, self.current_epoch, self.local_rank],
            oversample_foreground=self.oversample_foreground_percent,
            labels=self.label_manager,
        )
