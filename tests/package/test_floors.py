"""Imports go down only, as docs/architecture.md says, and files stay short."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import nnunet_neurino

PACKAGE = Path(nnunet_neurino.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
FLOOR = {
    **dict.fromkeys(("plugin", "cli", "demo", "diagnosis"), 5),
    **dict.fromkeys(("trainers", "conversion"), 4),
    **dict.fromkeys(("networks", "losses", "transfer", "tracing", "metrics", "figures"), 3),
    **dict.fromkeys(("synth",), 2),
    **dict.fromkeys(("swc", "skeleton", "images", "__init__"), 1),
    **dict.fromkeys(("files", "findings", "errors", "_startup"), 0),
}
# Siblings that may be imported on the same floor, as docs/architecture.md says.
SIBLINGS = {
    ("cli", "demo"),
    ("cli", "diagnosis"),
    ("transfer", "networks"),
    ("swc", "skeleton"),
}
# Folders inside a folder; to the modules beside them each is one thing.
INSIDE = {"trainers/families", "trainers/windows", "networks/cpu", "tracing/gaps", "tracing/crossings"}
KNOW_NNUNET = {"plugin", "cli", "demo", "diagnosis", "trainers", "conversion"}
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300  # lines


def folder_of(module: Path) -> str:
    relative = module.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def unit_of(module: Path) -> str:
    """The sub-folder, or the module itself."""
    relative = module.relative_to(PACKAGE)
    return relative.parent.as_posix() if len(relative.parts) > 2 else relative.with_suffix("").as_posix()


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Dotted names of everything that ``nodes`` import."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module}"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def parsed(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def unit_named(name: str) -> str | None:
    """The unit that the dotted ``name`` of a module, or of something in a module, belongs to."""
    parts = name.split(".")[1:]
    for n in range(len(parts), 0, -1):
        path = PACKAGE.joinpath(*parts[:n])
        for module in (path.with_suffix(".py"), path / "__init__.py"):
            if module.is_file():
                return unit_of(module)
    return None


def test_every_folder_has_a_floor():
    assert {folder_of(module) for module in MODULES} <= set(FLOOR)
    assert {unit_of(module) for module in MODULES if len(module.relative_to(PACKAGE).parts) > 2} <= INSIDE


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(module):
    folder = folder_of(module)
    for name in imported(ast.walk(parsed(module))):
        top, _, rest = name.partition(".")
        if top in ("nnunetv2", "batchgenerators", "batchgeneratorsv2"):
            assert folder in KNOW_NNUNET, f"{folder} imports {name}"
        if top != "nnunet_neurino" or not rest:
            continue
        other = rest.split(".")[0]
        if other in FLOOR and other != folder:
            assert FLOOR[other] < FLOOR[folder] or (folder, other) in SIBLINGS, f"{folder} imports {name}"


def test_no_circles_among_imports():
    """Between modules, and between sub-folders and the modules beside them; imports inside functions do not count."""
    needs: dict[str, set[str]] = {}
    for module in MODULES:
        names = imported(node for node in parsed(module).body if not isinstance(node, ast.If))
        others = {unit_named(name) for name in names if name.startswith("nnunet_neurino.")}
        needs.setdefault(unit_of(module), set()).update(other for other in others if other)
        needs[unit_of(module)].discard(unit_of(module))
    graphlib.TopologicalSorter(needs).prepare()  # a CycleError names the circle


@pytest.mark.parametrize("folder", ["nnunet_neurino", "dataset_conversion", "tests"])
def test_files_are_short(folder):
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in (ROOT / folder).rglob("*.py")}
    assert lines
    too_long = {path.relative_to(ROOT).as_posix(): n for path, n in lines.items() if n > LONGEST}
    assert not too_long, f"more than {LONGEST} lines; divide them by purpose"
