"""A network in one file of a user's own: registered, named, planned, checked, pickled; and no other file knows any."""

from __future__ import annotations

import ast
import copy
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from nnunet_plans import DATASET_JSON, plans

import nnunet_neurino
from nnunet_neurino import trainers
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families import Family, Recipe, families, family_of, register
from nnunet_neurino.trainers.plan_adaptation import adapt_plans

TOY = Path(__file__).with_name("toy_family.py")
PACKAGE = Path(nnunet_neurino.__file__).parent
SHIPPED = families()


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Family:
    """The toy's family, known to this test only; read twice, as nnU-Net reads a user's folder at every look-up."""
    monkeypatch.setattr("nnunet_neurino.trainers.families.family._FAMILIES", families())
    for _ in range(2):
        spec = importlib.util.spec_from_file_location("toy_family", TOY)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return family_of("nnUNetTrainerToy")


def test_the_file_is_short() -> None:
    assert len(TOY.read_text().splitlines()) <= 40


def test_names_settings_and_plans(toy: Family) -> None:
    trainer = trainers.find("nnUNetTrainerToy_wide_noTASL_2epochs")
    assert (trainer.defaults.width, trainer.defaults.tasl, trainer.defaults.epochs) == (8, None, 2)
    assert trainers.find("nnUNetTrainerToy_narrow") is None
    assert pickle.loads(pickle.dumps(trainer)) is trainer
    toy.check({"width": 6})
    with pytest.raises(NeurinoError, match=r"unknown setting 'size'; known are .*width"):
        toy.check({"size": "tiny"})

    contents = plans((20, 60, 64))
    adapt_plans(contents, "3d_fullres", DATASET_JSON, toy, trainer.defaults)
    configuration = contents["configurations"]["3d_fullres"]
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"] == [8, 16, 32]
    assert configuration["patch_size"] == [20, 60, 64]
    again = copy.deepcopy(contents)
    adapt_plans(again, "3d_fullres", DATASET_JSON, toy, trainer.defaults)
    assert again == contents


def test_bases_that_cannot_be_registered(toy: Family) -> None:
    class Taken(Family[Recipe]):
        base = "nnUNetTrainerNeurINO"
        title = "Taken"
        settings = Recipe()

    with pytest.raises(NeurinoError, match=r"families\.neurino has a family of this name"):
        register(Taken)
    Taken.base = "nnUNetTrainer_Mine"
    with pytest.raises(NeurinoError, match="cannot be a family's base"):
        register(Taken)


def test_families_are_read_without_anything_heavy() -> None:
    code = (
        "import sys; from nnunet_neurino.trainers import families, find; assert find('nnUNetTrainerOfNobody') is None\n"
        "print(sorted({'torch', 'numpy', 'nnunetv2', 'matplotlib', 'timm'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def modules_that_know_no_network() -> list[Path]:
    folders = [PACKAGE / name for name in ("trainers", "cli", "plugin", "demo", "diagnosis")]
    found = [path for folder in folders for path in folder.rglob("*.py")]
    return sorted(path for path in found if "families" not in path.relative_to(PACKAGE).parts)


FAMILY_MODULES = {type(family).__module__.rpartition(".")[2] for family in SHIPPED.values()}
NAMES = {name.lower() for name in FAMILY_MODULES | {family.title for family in SHIPPED.values()}} - {
    "nnu-net",
    "nnunet",
}


def names_in(tree: ast.AST) -> set[str]:
    """Networks that comparisons, match cases, isinstance and dictionaries of a module name."""
    found = set()
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.match_case):
            parts = [node.pattern]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            parts = node.args
        for inner in (inner for part in parts for inner in ast.walk(part)):
            text = getattr(inner, "value", None) if isinstance(inner, ast.Constant) else getattr(inner, "id", None)
            words = str(text).lower().removeprefix("nnunettrainer").removesuffix("settings").removesuffix("trainer")
            found |= {words.rpartition(".")[2]} & NAMES
    return found


@pytest.mark.parametrize("path", modules_that_know_no_network(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_file_compares_with_or_tables_a_networks_name(path: Path) -> None:
    assert not names_in(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "code",
    [
        'if settings.network == "neurino": pass',
        'TABLE = {"nnUNetTrainerDINeuro": 1}',
        "isinstance(settings, DINeuroSettings)",
        'x = y in ("mednext", "nnunet_neurino.networks.DINOWindow")',
        'match name:\n case "dinowindow": pass',
    ],
)
def test_the_search_finds_what_it_looks_for(code: str) -> None:
    assert names_in(ast.parse(code))
