"""TASL in nnU-Net trainers: what the loss becomes for each kind of labels and deep supervision."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_plans import DATASET_JSON, plans
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_neurino.losses import TASL, WithTASL
from nnunet_neurino.trainers import find
from nnunet_neurino.trainers.tasl import PlainTASLTrainer, TASLOptions, with_tasl

LABELS = {
    "classes": {"background": 0, "neuron": 1},
    "three classes": {"background": 0, "soma": 1, "neurite": 2},
    "ignore": {"background": 0, "neuron": 1, "ignore": 2},
    "regions": {"background": 0, "whole": (1, 2), "soma": 2},
    "regions and ignore": {"background": 0, "whole": (1, 2), "soma": 2, "ignore": 3},
}


@with_tasl
class _Mine(nnUNetTrainer):
    tasl_options = TASLOptions(weight=0.3, warmup_epochs=2)


def _trainer(kind: type, labels: dict[str, Any], monkeypatch, tmp_path, deep_supervision=True):
    for name in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    dataset = DATASET_JSON | {"labels": labels}
    if any(isinstance(v, tuple) for v in labels.values()):
        dataset["regions_class_order"] = (1, 2)
    planned = plans(patch_size=(16, 16, 16)) | {"continue_training": False}
    trainer = kind(planned, "3d_fullres", 0, copy.deepcopy(dataset), torch.device("cpu"))
    trainer.enable_deep_supervision = deep_supervision
    return trainer


def _batch(trainer, labels):
    """Logits and targets as nnU-Net's loader makes them, two scales."""
    rng = np.random.default_rng(0)
    heads = trainer.label_manager.num_segmentation_heads
    n = max(v if isinstance(v, int) else max(v) for v in labels.values())
    segmentation = torch.as_tensor(rng.integers(0, n + 1, (2, 1, 16, 16, 16)))
    if trainer.label_manager.has_regions:
        channels = [torch.isin(segmentation, torch.tensor(r)) for r in trainer.label_manager.foreground_regions]
        if trainer.label_manager.ignore_label is not None:
            channels.append(segmentation == trainer.label_manager.ignore_label)
        segmentation = torch.cat(channels, 1)
    else:
        segmentation = segmentation.short()
    logits = torch.as_tensor(rng.standard_normal((2, heads, 16, 16, 16)), dtype=torch.float32)
    step = slice(None, None, 2)
    return [logits, logits[..., step, step, step]], [segmentation, segmentation[..., step, step, step]]


def _spread(loss: torch.nn.Module, scales: int) -> None:
    """Two scales instead of the plan's five."""
    if isinstance(loss, DeepSupervisionWrapper):
        loss.weight_factors = loss.weight_factors[:scales]


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_nnunets_loss_plus_tasl_for_every_kind_of_labels(labels, deep_supervision, monkeypatch, tmp_path):
    trainer = _trainer(_Mine, labels, monkeypatch, tmp_path, deep_supervision)
    loss = trainer._build_loss()
    assert isinstance(loss, WithTASL)
    assert isinstance(loss.base, DeepSupervisionWrapper) == deep_supervision
    _spread(loss.base, 2)
    outputs, targets = _batch(trainer, labels)
    if not deep_supervision:
        outputs, targets = outputs[0], targets[0]
    outputs = [o.requires_grad_() for o in outputs] if deep_supervision else outputs.requires_grad_()
    plain = nnUNetTrainer._build_loss(trainer) if not deep_supervision else loss.base
    whole = loss(outputs, targets)
    finest = (outputs[0], targets[0]) if deep_supervision else (outputs, targets)
    manager = trainer.label_manager
    term = TASL(regions=manager.has_regions, ignore_label=manager.ignore_label)(*finest)
    assert float(term.detach()) > 0
    torch.testing.assert_close(whole, plain(outputs, targets) + 0.3 * term)
    whole.backward()
    assert torch.isfinite(finest[0].grad).all()
    assert set(loss.term_values()) == set(loss.term_names)
    trainer.current_epoch, trainer.num_epochs, trainer.loss = 1, 100, loss
    trainer.loss.set_epoch(trainer.current_epoch, trainer.num_epochs)
    assert trainer.loss.ramp == 0.5


def test_published_at_every_scale(monkeypatch, tmp_path):
    @with_tasl
    class Published(nnUNetTrainer):
        tasl_options = TASLOptions("published", 0.1, (1.0, 0.5, 0.2), warmup_epochs=0, per_scale=True)

    trainer = _trainer(Published, LABELS["classes"], monkeypatch, tmp_path)
    loss = trainer._build_loss()
    loss.scale_weights = loss.scale_weights[:2]
    outputs, targets = _batch(trainer, LABELS["classes"])
    tasl = TASL("published", path=0.2)
    factors = [1 + 0.1 * tasl(o, t) for o, t in zip(outputs, targets, strict=True)]
    # nnU-Net's cross-entropy - Dice becomes the published cross-entropy + 1 - Dice.
    plain = [loss.base(o, t) + 1 for o, t in zip(outputs, targets, strict=True)]
    each = [w * f * p for w, f, p in zip(loss.scale_weights, factors, plain, strict=True)]
    torch.testing.assert_close(loss(outputs, targets), sum(each))


def test_without_a_mode_the_loss_is_nnunets(monkeypatch, tmp_path):
    @with_tasl
    class Without(nnUNetTrainer):
        tasl_options = TASLOptions(None)

    trainer = _trainer(Without, LABELS["classes"], monkeypatch, tmp_path)
    assert type(trainer._build_loss()) is DeepSupervisionWrapper


def test_nnunets_own_trainer_with_tasl_is_found_by_name():
    trainer = find("nnUNetTrainerTASL")
    assert trainer is not None
    assert issubclass(trainer, PlainTASLTrainer)
    assert issubclass(trainer, nnUNetTrainer)
