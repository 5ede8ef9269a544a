"""The pages of the trainers say what the code does: names, words, settings of every family."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from recipe_comments import recipe_comments

from nnunet_neurino.trainers.families import Family, Recipe, families
from nnunet_neurino.trainers.names import documented_names

DOCS = Path(__file__).parents[2] / "docs"
FAMILIES = families()
SECTIONS = {
    "nnUNetTrainerNeurINO": ("trainers.md", "### NeurINO"),
    "nnUNetTrainerMedNeXtTASL": ("trainers.md", "### MedNeXt"),
    "nnUNetTrainerDINeuro": ("dineuro.md", "## Settings"),
    "nnUNetTrainerDINOWindow": ("windows.md", "## Settings"),
}
"""Where the settings of a family are listed."""


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def settings_below(heading: str, text: str) -> list[tuple[str, str, str]]:
    """Name, default and meaning of the first table of settings below a heading."""
    table = text.split(f"\n{heading}\n")[1].split("\n| setting ")[1].split("\n\n")[0]
    return re.findall(r"^\| `([a-z_]+)` \| `(.+?)` \| (.+) \|$", table, re.M)


def explained(kind: type[Recipe]) -> dict[str, str]:
    return {name: meaning.replace("``", "`") for name, meaning in recipe_comments(kind).items()}


def test_every_name_and_meaning_is_on_a_page() -> None:
    pages = "".join(page(path.name) for path in DOCS.glob("*.md"))
    rows = re.findall(r"^\| `(nnUNetTrainer\w+)` \| (.+) \|$", pages, re.M)
    assert dict(rows) == {name: meaning.rstrip(".") for name, meaning in documented_names().items()}
    assert len(rows) == len(dict(rows))


@pytest.mark.parametrize("family", [f for f in FAMILIES.values() if f.words], ids=lambda family: family.title)
def test_words_that_can_be_combined(family: Family) -> None:
    rows = re.findall(r"^\d+\. (.+)$", page(SECTIONS[family.base][0]), re.M)
    assert [re.findall(r"`(\w+)`", row) for row in rows] == [list(group) for group in family.words]


def test_settings_of_all_trainers() -> None:
    rows = settings_below("## Settings", page("trainers.md"))
    assert [row[:2] for row in rows] == [(field.name, str(field.default)) for field in dataclasses.fields(Recipe)]
    assert {name: meaning for name, _, meaning in rows} == explained(Recipe)


@pytest.mark.parametrize("base", SECTIONS)
def test_what_a_family_has_beside_them_or_with_another_default(base: str) -> None:
    settings, shared = FAMILIES[base].settings, Recipe().as_json()
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    own = [
        (name, str(value)) for name, value in values.items() if name not in shared or getattr(Recipe(), name) != value
    ]
    name, heading = SECTIONS[base]
    rows = settings_below(heading, page(name))
    assert [row[:2] for row in rows] == own
    code = explained(type(settings))
    assert {setting: meaning for setting, _, meaning in rows} == {setting: code[setting] for setting, _, _ in rows}
