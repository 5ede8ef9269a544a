"""Which names stand for a trainer, and that the classes behave like classes of a module."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest

from nnunet_neurino import trainers
from nnunet_neurino.trainers.families.neurino import NeurINOSettings


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("nnUNetTrainerNeurINO", {}),
        ("nnUNetTrainerNeurINO_S", {"size": "small"}),
        ("nnUNetTrainerNeurINO_B", {"size": "base"}),
        ("nnUNetTrainerNeurINO_L", {"size": "large"}),
        ("nnUNetTrainerNeurINO_average", {"inflation": "average"}),
        ("nnUNetTrainerNeurINO_center", {"inflation": "center"}),
        ("nnUNetTrainerNeurINO_triplane", {"inflation": "triplane"}),
        ("nnUNetTrainerNeurINO_scratch", {"pretrained": False}),
        ("nnUNetTrainerNeurINO_frozen", {"frozen_epochs": -1}),
        ("nnUNetTrainerNeurINO_noTASL", {"tasl": None}),
        ("nnUNetTrainerNeurINO_1epoch", {"epochs": 1}),
        ("nnUNetTrainerNeurINO_250epochs", {"epochs": 250}),
        ("nnUNetTrainerNeurINO_S_100epochs", {"size": "small", "epochs": 100}),
        (
            "nnUNetTrainerNeurINO_B_stem4_average_frozen10_noTASL_EMA_NoMirroring_50epochs",
            {
                "size": "base", "stem_stride": 4, "inflation": "average", "frozen_epochs": 10, "tasl": None,
                "ema": 0.999, "mirroring": False, "epochs": 50,
            },
        ),
    ],
)  # fmt: skip
def test_a_name_says_what_differs_from_the_defaults(name: str, changes: dict) -> None:
    trainer = trainers.find(name)
    assert trainer is not None
    assert trainer.__name__ == name
    assert trainer.defaults == replace(NeurINOSettings(), **changes)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "nnUNetTrainer",
        "nnUNetTrainer_100epochs",
        "nnUNetTrainerNeurINO_",
        "nnUNetTrainerNeurINO__S",
        "nnUNetTrainerNeurINO_S_",
        "nnUNetTrainerNeurINO_s",
        "nnUNetTrainerNeurINO_S_B",
        "nnUNetTrainerNeurINO_100epochs_S",
        "nnUNetTrainerNeurINO_0epochs",
        "nnUNetTrainerNeurINO_05epochs",
        "nnUNetTrainerNeurINO_1epochs",
        "nnUNetTrainerNeurINO_100epoch",
        "nnUNetTrainerNeurINO2",
        "nnUNetTrainerTASL_S",
        "nnUNetTrainerTASL_100epochs_100epochs",
        "NeurINOTrainer",
        "find",
        "nnUNetTrainerNeurINO.defaults",
    ],
)
def test_other_names_are_unknown(name: str) -> None:
    assert trainers.find(name) is None


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nnUNetTrainerNeurINO_nonsense"):
        _ = trainers.nnUNetTrainerNeurINO_nonsense


def test_published_constants() -> None:
    # What the paper's supplement (arXiv 2603.23104) and the released code say.
    paper, released = (trainers.find(f"nnUNetTrainerNeurINO_{name}").defaults for name in ("paper", "released"))
    for settings in (paper, released):
        assert (settings.lr, settings.weight_decay, settings.eps, settings.clip) == (1e-3, 3e-5, 1e-4, 12)
        assert (settings.epochs, settings.iterations, settings.val_iterations, settings.batch_size) == (110, 250, 50, 2)
        assert (settings.layer_decay, settings.warmup_epochs, settings.poly_power) == (1.0, 0.0, 0.9)
        assert (settings.norm, settings.stem_stride, settings.size, settings.rgb) == ("batch", 2, "tiny", "mean")
        assert (settings.tasl, settings.tasl_weight) == ("published", 0.1)
        assert settings.oversample_foreground == 0.33
        assert settings.bottleneck_loss
        assert settings.start_values == "published"
        assert settings.full_precision
        assert settings.decay_all
        assert not settings.stepwise
    assert (paper.patch_size, paper.grn, paper.tasl_lambdas) == ((32, 32, 32), True, (1.0, 0.5, 0.5))
    assert (released.patch_size, released.grn, released.tasl_lambdas) == ((64, 64, 64), False, (1.0, 0.5, 0.2))


def test_a_variant_of_a_preset_keeps_the_preset() -> None:
    small = trainers.find("nnUNetTrainerNeurINO_S_paper_average_1epoch").defaults
    paper = trainers.find("nnUNetTrainerNeurINO_paper").defaults
    assert small == replace(paper, size="small", inflation="average", epochs=1)


def test_classes_are_pickled_and_copied_by_name() -> None:
    name = "nnUNetTrainerNeurINO_S_123epochs"
    trainer = trainers.find(name)
    assert trainers.find(name) is trainer
    assert getattr(importlib.import_module(trainer.__module__), trainer.__qualname__) is trainer
    assert pickle.loads(pickle.dumps(trainer)) is trainer
    assert copy.deepcopy(trainer) is trainer
    # A class that no one has asked for in this process, as in a spawned worker.
    assert pickle.loads(pickle.dumps(trainer).replace(b"123epochs", b"124epochs")).defaults.epochs == 124


@pytest.mark.parametrize("name", ["nnUNetTrainerNeurINO", "nnUNetTrainerTASL", "nnUNetTrainerTASL_5epochs"])
def test_nnunet_gets_the_five_arguments_it_looks_up_by_name(name: str) -> None:
    parameters = list(inspect.signature(trainers.find(name).__init__).parameters)
    assert parameters == ["self", "plans", "configuration", "fold", "dataset_json", "device"]


def test_trainers_of_other_networks_have_names_of_the_same_kind() -> None:
    from nnunet_neurino.trainers import tasl

    assert issubclass(trainers.find("nnUNetTrainerTASL"), tasl.PlainTASLTrainer)
    short = trainers.find("nnUNetTrainerTASL_5epochs")
    assert issubclass(short, tasl.PlainTASLTrainer)
    assert pickle.loads(pickle.dumps(short)) is short
    mednext = trainers.find("nnUNetTrainerMedNeXtTASL_20epochs")
    assert mednext.family.network.endswith(".MedNeXt")
    assert (mednext.defaults.size, mednext.defaults.tasl, mednext.defaults.epochs) == ("L", "localised", 20)
    assert trainers.find("nnUNetTrainerMedNeXt").defaults.tasl is None


def test_importing_the_package_and_the_plugin_loads_nothing_heavy() -> None:
    code = (
        "import sys, nnunet_neurino.trainers, nnunet_neurino.plugin.neurino_trainers as plugin\n"
        "assert not hasattr(plugin, 'nnUNetTrainerOfSomebodyElse')\n"
        "print(sorted({'torch', 'numpy', 'nnunetv2', 'matplotlib', 'timm'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "nnUNetTrainerOfSomebodyElse" not in result.stdout
    assert result.stdout.strip() == "[]"


def test_every_documented_name_is_found() -> None:
    from nnunet_neurino.trainers.names import documented_names

    names = documented_names()
    assert {"nnUNetTrainerNeurINO", "nnUNetTrainerNeurINO_S", "nnUNetTrainerNeurINO_paper"} <= set(names)
    for name in names:
        assert trainers.find(name).__name__ == name
        assert "__" not in name
