"""docs/trainers.md says what the code does."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from nnunet_neurino.trainers.settings import TrainerSettings
from nnunet_neurino.trainers.variants import GROUPS, documented_names

PAGE = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text(encoding="utf-8")


def test_names_and_meanings() -> None:
    rows = dict(re.findall(r"^\| `(nnUNetTrainer\w+)` \| (.+) \|$", PAGE, re.M))
    assert rows == {name: meaning.rstrip(".") for name, meaning in documented_names().items()}


def test_words_that_can_be_combined() -> None:
    rows = re.findall(r"^\d+\. (.+)$", PAGE, re.M)
    assert [re.findall(r"`(\w+)`", row) for row in rows] == [list(group) for group in GROUPS]


def test_settings_and_defaults() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| `(.+?)` \| (.+) \|$", PAGE, re.M)
    assert [(name, default) for name, default, _ in rows] == [
        (field.name, str(field.default)) for field in dataclasses.fields(TrainerSettings)
    ]
    documentation = " ".join(TrainerSettings.__doc__.replace("``", "`").split())
    for name, _, meaning in rows:
        assert f"{name}: {meaning}" in documentation, f"the page says something else of {name}"
