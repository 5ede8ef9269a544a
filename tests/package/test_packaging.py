"""What the package says of itself in several places agrees."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_supported_versions_of_python_are_the_same_everywhere():
    project = text_of("pyproject.toml")
    first, end = map(int, re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project).groups())
    assert re.findall(r"Python :: 3\.(\d+)", project) == [str(minor) for minor in range(first, end)]
    assert f'target-version = "py3{first}"' in project
    assert f"python_version = 3.{first}" in text_of("setup.cfg")
    assert f"(3, {first}) <= v < (3, {end})" in text_of("Makefile")
    for page in ("Makefile", "README.md"):
        assert f"3.{first} to 3.{end - 1}" in text_of(page), page
    # Python 3.15 reads start files of another kind; as long as it is not supported, none is shipped.
    assert (end > 15) == any(ROOT.glob("*.start"))


def test_every_check_of_make_lint_is_one_before_a_commit():
    tools = re.findall(
        r"^\t\$\(BIN\)/(\w+)", text_of("Makefile").partition("lint: setup\n")[2].partition("\n\n")[0], re.M
    )
    assert {"ruff", "mypy", "deptry", "vulture"} <= set(tools)
    assert set(tools) <= set(re.findall(r"entry: (\w+)", text_of(".pre-commit-config.yaml")))
