"""Imports go down only: the floors of docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nnunet_neurino

PACKAGE = Path(nnunet_neurino.__file__).parent
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
    ("metrics", "tracing"),
    ("swc", "skeleton"),
}
KNOW_NNUNET = {"plugin", "cli", "demo", "diagnosis", "trainers", "conversion"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    relative = module.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imported(module: Path) -> set[str]:
    """Dotted names of everything ``module`` imports, at the top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def test_every_room_has_a_floor():
    assert {room_of(module) for module in MODULES} <= set(FLOOR)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(module):
    room = room_of(module)
    for name in imported(module):
        top, _, rest = name.partition(".")
        if top in ("nnunetv2", "batchgeneratorsv2"):
            assert room in KNOW_NNUNET, f"{room} imports {name}"
        if top != "nnunet_neurino" or not rest:
            continue
        other = rest.split(".")[0]
        if other in FLOOR and other != room:
            assert FLOOR[other] < FLOOR[room] or (room, other) in SIBLINGS, f"{room} imports {name}"
