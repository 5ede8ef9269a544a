"""Trainings that are resumed, started from a model, or stopped by a full disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from recipe_cases import Make, batch, start_epoch, weights

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers import launch


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


def test_a_model_to_start_from_may_have_the_names_of_version_0_1(make: Make, tmp_path: Path) -> None:
    donor, path = make(), tmp_path / "checkpoint.pth"
    with torch.no_grad():
        for parameter in donor.network.parameters():
            parameter.add_(0.5)
    donor.save_checkpoint(str(path))
    checkpoint = torch.load(path, weights_only=False)
    old_names = {".stem.0.": ".stem.conv.", ".stem.1.": ".stem.norm.", ".downsample.0.": ".downsample.norm.",
                 ".downsample.1.": ".downsample.conv.", ".conv_dw.": ".depthwise.", ".mlp.fc1.": ".expand.",
                 ".mlp.fc2.": ".project."}  # fmt: skip
    older = {}
    for name, tensor in checkpoint["network_weights"].items():
        for new, old in old_names.items():
            name = name.replace(new, old) if name.startswith("encoder.") else name
        older[name] = tensor
    assert {"encoder.stem.conv.weight", "encoder.stages.2.blocks.5.expand.bias"} <= older.keys()
    torch.save({**checkpoint, "network_weights": older}, path)
    trainer = make(initialise=False)
    launch._start_from(trainer, path)
    assert torch.equal(weights(trainer, "encoder"), weights(donor, "encoder"))
    assert torch.equal(weights(trainer, "decoder.levels"), weights(donor, "decoder.levels"))
    # nnU-Net compares names before it asks the network, so the docs send its users here.
    with pytest.raises(AssertionError, match=r"encoder\.stem\.0\.weight is missing in the pretrained model weights"):
        load_pretrained_weights(trainer.network, str(path))


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
