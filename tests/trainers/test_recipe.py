"""What a training step, an epoch and a checkpoint of our trainers do, without nnU-Net's data loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipe_cases import Make, batch, start_epoch, weights

from nnunet_neurino.trainers import launch
from nnunet_neurino.trainers.families import Family, Plan
from nnunet_neurino.trainers.families.neurino import NeurINOSettings
from nnunet_neurino.trainers.pretraining import Source


def test_targets_and_weights_of_deep_supervision(make: Make) -> None:
    default, published = make(), make(bottleneck_loss=True)
    assert len(default._get_deep_supervision_scales()) == 5
    total = 1 + 1 / 2 + 1 / 4 + 1 / 8
    assert default.loss.weight_factors == pytest.approx([1 / total, 0.5 / total, 0.25 / total, 0.125 / total, 0])
    # The published weights: halved from scale to scale, the coarsest head included.
    assert published.loss.weight_factors == pytest.approx([0.516, 0.258, 0.129, 0.065, 0.032], abs=5e-4)


class Shallow(Family[NeurINOSettings]):
    """Two levels, so one output of deep supervision."""

    base, title, settings = "nnUNetTrainerShallow", "Shallow", NeurINOSettings(pretrained=False)
    network = "dynamic_network_architectures.architectures.unet.PlainConvUNet"

    def plan(self, configuration: dict[str, Any], settings: NeurINOSettings, fits: Callable[[Plan], bool]) -> Plan:
        arch_kwargs = {"n_stages": 2, "features_per_stage": [4, 8], "conv_op": "torch.nn.Conv3d", "kernel_sizes": 3,
                       "strides": [[1, 1, 1], [2, 2, 2]], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1,
                       "conv_bias": True, "norm_op": "torch.nn.InstanceNorm3d", "nonlin": "torch.nn.ReLU"}  # fmt: skip
        return Plan((16, 16, 16), 2, arch_kwargs, ("conv_op", "norm_op", "nonlin"))


@pytest.mark.parametrize("tasl", [None, "localised", "published"])
def test_a_single_output_of_deep_supervision_counts(
    make: Make, monkeypatch: pytest.MonkeyPatch, tasl: str | None
) -> None:
    monkeypatch.setattr("nnunet_neurino.trainers.families.family._FAMILIES", {Shallow.base: Shallow()})
    trainer = make("nnUNetTrainerShallow", tasl=tasl)
    start_epoch(trainer)
    before, example = weights(trainer), batch()
    # nnU-Net's own weights are 0 / 0 here.
    step = trainer.train_step({**example, "target": example["target"][:1]})
    assert np.isfinite(step["loss"])
    assert step["loss"] != 0
    assert torch.isfinite(weights(trainer)).all()
    assert not torch.equal(weights(trainer), before)


def test_the_gradient_is_clipped_where_the_settings_say(make: Make) -> None:
    norms = {}
    for clip in (1e-3, 1e3):
        trainer = make(clip=clip)
        start_epoch(trainer)
        trainer.train_step(batch())
        norms[clip] = float(
            torch.stack([p.grad.norm() for p in trainer.network.parameters() if p.grad is not None]).norm()
        )
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert norms[1e3] > 1e-2


def test_the_rate_changes_with_every_step_or_with_every_epoch(make: Make) -> None:
    for stepwise in (True, False):
        trainer = make(stepwise=stepwise, warmup_epochs=0.0, lr=0.1, poly_power=1.0)
        start_epoch(trainer, 5)
        rates = []
        for _ in range(4):
            trainer.train_step(batch())
            rates.append(trainer.optimizer.param_groups[0]["lr"])
        expected = [0.1 * (1 - (5 + (i + 0.5) / 4) / 10) for i in range(4)] if stepwise else [0.05] * 4
        assert rates == pytest.approx(expected)


def test_a_frozen_encoder_waits_and_then_learns(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    # As with pretrained weights, which this smallest network has none of.
    monkeypatch.setattr("nnunet_neurino.trainers.trainer.find_source", lambda family, settings: Source(None))
    trainer = make("nnUNetTrainerNeurINO", frozen_epochs=2)
    before = weights(trainer, "encoder")
    decoder = weights(trainer, "decoder")
    start_epoch(trainer, 1)
    trainer.train_step(batch())
    assert torch.equal(weights(trainer, "encoder"), before)
    assert not torch.equal(weights(trainer, "decoder"), decoder)
    assert all(p.grad is None for p in trainer.bare_network.encoder.parameters()), "nothing is computed for it"
    start_epoch(trainer, 2)
    trainer.train_step(batch())
    trainer.train_step(batch())
    assert not torch.equal(weights(trainer, "encoder"), before)


@pytest.mark.parametrize("frozen_epochs", [-1, 2])
def test_a_frozen_vit_still_learns_where_its_tubes_bend(
    make: Make, monkeypatch: pytest.MonkeyPatch, frozen_epochs: int
) -> None:
    monkeypatch.setattr("nnunet_neurino.trainers.trainer.find_source", lambda family, settings: Source(None))
    trainer = make("nnUNetTrainerDINeuro", frozen_epochs=frozen_epochs, tube_length=16, tube_controls=5)
    before, gate = weights(trainer, "encoder.blocks"), weights(trainer, "encoder.tubes.gate")
    kernels = weights(trainer, "encoder.tubes.views.0.weight")
    start_epoch(trainer)
    example = batch()
    label = example["target"][0]
    trainer.train_step({**example, "target": [label[..., ::s, ::s] for s in (1, 2, 4, 8)]})
    assert torch.equal(weights(trainer, "encoder.blocks"), before)
    assert torch.equal(weights(trainer, "encoder.tubes.views.0.weight"), kernels)
    assert not torch.equal(weights(trainer, "encoder.tubes.gate"), gate), "a gate that is never trained stays closed"


def test_the_average_is_validated_and_saved_and_training_goes_on_without_it(make: Make, tmp_path: Path) -> None:
    trainer = make(ema=0.9)
    start_epoch(trainer)
    for seed in range(3):
        trainer.train_step(batch(seed))
    raw = weights(trainer)
    trainer.on_validation_epoch_start()
    average = weights(trainer)
    assert not torch.equal(average, raw)
    with torch.no_grad():
        result = trainer.validation_step(batch(9))
    trainer.on_validation_epoch_end([result])
    assert torch.equal(weights(trainer), raw)

    path = tmp_path / "checkpoint.pth"
    trainer.save_checkpoint(str(path))
    assert torch.equal(weights(trainer), raw)
    stored = torch.load(path, weights_only=False)["network_weights"]
    assert all(torch.isfinite(tensor).all() for tensor in stored.values())
    names = [name for name, _ in trainer.bare_network.named_parameters()]
    assert torch.equal(torch.cat([stored[name].flatten() for name in names]), average)

    resumed = make(ema=0.9, initialise=False)
    resumed.load_checkpoint(str(path))
    assert torch.equal(weights(resumed), raw)
    # One more step of each is the same step.
    for instance in (trainer, resumed):
        start_epoch(instance, 1)
        instance.train_step(batch(5))
    assert torch.equal(weights(resumed), weights(trainer))


def test_loss_terms_are_logged_as_the_mean_over_the_epoch(make: Make) -> None:
    trainer = make(tasl="localised", tasl_warmup_epochs=0.0)
    assert trainer.loss.term_names
    start_epoch(trainer)
    outputs = [trainer.train_step(batch(seed)) for seed in range(3)]
    trainer.on_train_epoch_end(outputs)
    for name in trainer.loss.term_names:
        key = f"loss_term/{name}"
        assert trainer.logger.get_value(key, 0) == pytest.approx(np.mean([output[key] for output in outputs]))
    assert trainer.logger.get_value("train_losses", 0) == pytest.approx(np.mean([o["loss"] for o in outputs]))


def test_attributes_that_a_subclass_sets_as_nnunets_variants_do(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunet_neurino.trainers import find

    class Shorter(find("nnUNetTrainerNeurINO_scratch")):  # type: ignore[misc]
        def __init__(
            self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device
        ) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = 4
            self.initial_lr = 0.5

    monkeypatch.setattr(launch, "_trainer_class", lambda name: Shorter)
    trainer = make(warmup_epochs=0.0, poly_power=1.0, stepwise=False)
    start_epoch(trainer, 1)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 3 / 4)
    path = str(tmp_path / "checkpoint.pth")
    trainer.save_checkpoint(path)
    resumed = make(initialise=False)
    resumed.load_checkpoint(path)
    start_epoch(resumed, 1)
    assert (resumed.num_epochs, resumed.initial_lr) == (4, 0.5)
    assert resumed.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 3 / 4)
