"""Settings are checked when they are made, and survive JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest
from recipe_comments import recipe_comments

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families import Recipe, families
from nnunet_neurino.trainers.families.neurino import NeurINOSettings

SETTINGS = list(dict.fromkeys(type(family.settings) for family in families().values() if hasattr(family, "settings")))


def test_settings_survive_json() -> None:
    settings = NeurINOSettings(patch_size=(8, 96, 96), tasl=None, size="small", lr=3e-4)
    assert NeurINOSettings().replaced(json.loads(json.dumps(settings.as_json()))) == settings


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_field_is_documented(kind: type[Recipe]) -> None:
    names = {field.name for field in dataclasses.fields(kind)}
    assert names - set(recipe_comments(kind)) == set()
    assert set(kind.fixed) <= names
    assert set(kind.choices) <= names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "huge"}, "size is 'huge'; choose one of tiny"),
        ({"epochs": 0}, "epochs is 0; it must be greater than 0"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"epochs": 2.5}, "epochs is 2.5; int is needed"),
        ({"epochs": True}, "epochs is True; int is needed"),
        ({"batch_size": "four"}, "batch_size is 'four'; int is needed"),
        ({"patch_size": [64, 64]}, r"patch_size is \(64, 64\); 3 numbers"),
        ({"patch_size": [64, 64, "x"]}, "patch_size is 'x'; int is needed"),
        ({"frozen_epochs": -2}, "frozen_epochs is -2"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5; it must lie in 0 to 1"),
        ({"patch_size": [0, 64, 64]}, r"patch_size is \(0, 64, 64\); 3 numbers of at least 1"),
        ({"lr": float("inf")}, "lr is inf; .*finite"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be 0 or greater"),
        ({"warmup_epochs": float("nan")}, "warmup_epochs is nan"),
        ({"tasl_lambdas": [1.0, -1.0, 0.5]}, "tasl_lambdas is .*at least 0"),
        ({"learning_rate": 1.0}, "unknown setting 'learning_rate'; known are .*lr"),
        ({"fixed": ["size"]}, "unknown setting 'fixed'; known are .*eps, frozen_epochs"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(changes: dict, message: str) -> None:
    with pytest.raises(NeurinoError, match=message) as caught:
        NeurINOSettings().replaced(changes)
    assert "\n" not in str(caught.value)


def test_whole_numbers_do_for_fractions() -> None:
    assert NeurINOSettings().replaced({"memory": 24}).memory == 24.0
