"""What a training step, an epoch and a checkpoint of our trainers do, without nnU-Net's data loading."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunet_plans import DATASET_JSON, plans

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers import launch
from nnunet_neurino.trainers.launch import Training, make_trainer
from nnunet_neurino.trainers.pretraining import Source

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make and initialise a trainer of the smallest network from changed settings."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    data = tmp_path / "preprocessed" / "Dataset001_Test"
    (data / "nnUNetPlans_3d_fullres").mkdir(parents=True)
    (data / "nnUNetPlans_3d_fullres" / "case.b2nd").touch()  # by which nnU-Net knows the storage format
    (data / "nnUNetPlans.json").write_text(json.dumps(plans((16, 16, 16))))
    (data / "dataset.json").write_text(json.dumps(DATASET_JSON))

    def made(trainer: str = "nnUNetTrainerNeurINO_scratch", initialise: bool = True, **settings: Any) -> Any:
        settings = {"size": "atto", "epochs": 10, "iterations": 4, "tasl": None, **settings}
        instance = make_trainer(Training("1", "3d_fullres", 0, trainer, settings=settings, device="cpu"))
        torch.manual_seed(0)
        if initialise:
            instance.initialize()
        return instance

    return made


def batch(seed: int = 0) -> dict[str, Any]:
    """A batch as nnU-Net's loader gives it, targets for five scales."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 1, 16, 16, 16, generator=generator)
    label = (image > 1).to(torch.int16)
    return {"data": image, "target": [label[..., ::s, ::s, ::s].clone() for s in (1, 2, 4, 8, 16)]}


def start_epoch(trainer: Any, epoch: int = 0) -> None:
    trainer.current_epoch = epoch
    trainer.on_train_epoch_start()


def weights(trainer: Any, part: str = "") -> torch.Tensor:
    return torch.cat(
        [p.detach().flatten() for n, p in trainer.bare_network.named_parameters() if n.startswith(part)]
    ).clone()


def test_targets_and_weights_of_deep_supervision(make: Make) -> None:
    default, published = make(), make(bottleneck_loss=True)
    assert len(default._get_deep_supervision_scales()) == 5
    total = 1 + 1 / 2 + 1 / 4 + 1 / 8
    assert default.loss.weight_factors == pytest.approx([1 / total, 0.5 / total, 0.25 / total, 0.125 / total, 0])
    # The published weights: halved from scale to scale, the coarsest head included.
    assert published.loss.weight_factors == pytest.approx([0.516, 0.258, 0.129, 0.065, 0.032], abs=5e-4)


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


def test_a_resumed_run_has_the_rate_it_would_have_had_or_the_one_given_anew(make: Make, tmp_path: Path) -> None:
    trainer = make(lr=0.01)
    path = str(tmp_path / "checkpoint.pth")
    trainer.save_checkpoint(path)
    same, other = make(initialise=False), make(lr=0.002, weight_decay=0.5, initialise=False)
    # `make` gives settings, as a command line would; without them the stored ones count.
    for instance, peak in ((same, 0.01), (other, 0.002)):
        if instance is same:
            instance.plans_manager.plans["neurino_settings"].pop("lr", None)
        instance.load_checkpoint(path)
        assert {round(group["peak_lr"], 9) for group in instance.optimizer.param_groups} == {peak}
        assert instance.settings.lr == peak
    assert {group["weight_decay"] for group in other.optimizer.param_groups} == {0.0, 0.5}


def test_a_checkpoint_of_an_earlier_version_is_resumed_with_what_is_still_a_setting(make: Make, tmp_path: Path) -> None:
    trainer = make("nnUNetTrainerMedNeXt", size="S", lr=0.003)
    path = tmp_path / "checkpoint.pth"
    trainer.save_checkpoint(str(path))
    checkpoint = torch.load(path, weights_only=False)
    # As written before every network had settings of its own.
    older = {"network": "mednext", "stem_stride": 2, "pretrained": False, "inflation": "center_sym", "rgb": "sum",
             "frozen_epochs": 0, "layer_decay": 1.0}  # fmt: skip
    checkpoint["init_args"]["neurino"]["settings"] |= older
    checkpoint["init_args"]["plans"]["neurino_settings"] |= {"network": "mednext"}
    torch.save(checkpoint, path)
    resumed = make("nnUNetTrainerMedNeXt", size="S", initialise=False)
    resumed.plans_manager.plans["neurino_settings"] = {}
    resumed.load_checkpoint(str(path))
    assert (resumed.settings.size, resumed.settings.lr, resumed.settings.epochs) == ("S", 0.003, 10)
    assert torch.equal(weights(resumed), weights(trainer))
    assert "network" not in resumed.plans_manager.plans["neurino_settings"]
    resumed.save_checkpoint(str(path))
    make("nnUNetTrainerMedNeXt", size="S", initialise=False).load_checkpoint(str(path))
    with pytest.raises(NeurinoError, match="unknown setting 'network'"):
        make("nnUNetTrainerMedNeXt", size="S", initialise=False, network="mednext")


def test_settings_given_anew_count_or_are_refused(make: Make, tmp_path: Path) -> None:
    trainer = make(ema=0.9, weight_decay=0.0)
    start_epoch(trainer)
    for seed in range(3):
        trainer.train_step(batch(seed))
    raw, path = weights(trainer), str(tmp_path / "checkpoint.pth")
    trainer.save_checkpoint(path)

    resumed = make(ema=0.0, eps=1e-4, weight_decay=0.1, checkpointing=True, initialise=False)
    resumed.load_checkpoint(path)
    assert torch.equal(weights(resumed), raw)
    assert resumed.bare_network.encoder.checkpointing
    assert {group["eps"] for group in resumed.optimizer.param_groups} == {1e-4}
    assert {group["weight_decay"] for group in resumed.optimizer.param_groups} == {0.0, 0.1}
    start_epoch(resumed, 1)
    resumed.train_step(batch(5))
    latest = weights(resumed)
    resumed.on_validation_epoch_start()
    assert torch.equal(weights(resumed), latest), "an average that is no longer kept must not be validated"

    for name, value in {"decay_all": True, "frozen_epochs": 2, "layer_decay": 0.5}.items():
        with pytest.raises(NeurinoError, match=f"started with {name} .*cannot become {value}"):
            make(initialise=False, **{name: value}).load_checkpoint(path)


def test_checkpoints_that_cannot_be_resumed_are_named(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_latest.pth"
    make().save_checkpoint(str(path))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(NeurinoError, match=r"checkpoint_latest.pth: cannot be read .*cut short"):
        make(initialise=False).load_checkpoint(str(path))
    torch.save({"network_weights": {}, "init_args": {}}, path)  # as `neurino import-checkpoint` writes it
    with pytest.raises(NeurinoError, match="cannot be resumed or validated"):
        make(initialise=False).load_checkpoint(str(path))


def test_a_model_to_start_from_is_taken_over_or_named(make: Make, tmp_path: Path) -> None:
    donor, path = make(), tmp_path / "checkpoint.pth"
    with torch.no_grad():
        for parameter in donor.network.parameters():
            parameter.add_(0.5)
    donor.save_checkpoint(str(path))
    trainer = make(initialise=False)
    launch._start_from(trainer, path)
    assert torch.equal(weights(trainer, "encoder"), weights(donor, "encoder"))
    assert not torch.equal(weights(trainer, "decoder.seg_layers"), weights(donor, "decoder.seg_layers"))

    with pytest.raises(NeurinoError, match=r"checkpoint.pth: not a checkpoint of this network.*missing or have"):
        launch._start_from(make(size="tiny", initialise=False), path)
    for content in (path.read_bytes()[:5000], b"text", b""):
        path.write_bytes(content)
        with pytest.raises(NeurinoError, match=r"checkpoint.pth: .*cut short") as caught:
            launch._start_from(make(initialise=False), path)
        assert "\n" not in str(caught.value)


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_a_model_to_start_from_executes_nothing(make: Make, tmp_path: Path) -> None:
    path, target = tmp_path / "checkpoint.pth", tmp_path / "executed"
    torch.save({"network_weights": make().network.state_dict(), "logging": _Bomb(target)}, path)
    with pytest.raises(NeurinoError, match="which is not data; nothing was executed"):
        launch._start_from(make(initialise=False), path)
    assert not target.exists()


def test_a_compiled_network_is_seen_through(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(initialise=False)
    compile_ = torch.compile
    monkeypatch.setattr(trainer, "_do_i_compile", lambda: True)
    monkeypatch.setattr(torch, "compile", lambda module: compile_(module, backend="eager"))
    trainer.initialize()
    assert isinstance(trainer.network, torch._dynamo.OptimizedModule)
    path = tmp_path / "checkpoint.pth"
    trainer.save_checkpoint(str(path))
    plain = make(initialise=False)
    plain.load_checkpoint(str(path))
    assert torch.equal(weights(plain), weights(trainer))


def test_a_full_disk_is_said_in_one_line_and_keeps_the_last_checkpoint(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    path = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(path))
    before = path.read_bytes()

    def full(checkpoint: Any, filename: str) -> None:
        Path(filename).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NeurinoError, match=r"checkpoint_latest.pth could not be written .*MiB are free"):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before
    assert sorted(tmp_path.glob("*.pth")) == [path]
    assert not list(tmp_path.glob(".unfinished*"))


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
