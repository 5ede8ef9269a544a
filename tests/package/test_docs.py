"""What the documentation names exists, and documentation, code and help speak the field's words."""

from __future__ import annotations

import argparse
import ast
import importlib
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_floors import FLOOR

from nnunet_neurino import trainers
from nnunet_neurino.cli import main as cli

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")), *DOCS]
CODE = sorted(
    path
    for folder in ("nnunet_neurino", "tests", "benchmarks", "dataset_conversion")
    for path in (ROOT / folder).rglob("*.py")
    if path != Path(__file__)
)
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Words that only their authors understand, and what a stranger understands.
SAY_INSTEAD = {
    r"house": "package",
    r"rooms|(?:this|that|the|each|other|a|swc) room": "folder",
    r"wish(?:es|ed)?": "aim, request",
    r"guests?|(?:at|a) home": "what it is",
    r"way back": "backward pass",
    r"way (?:up|down)": "upsampling, downsampling",
    r"numbers of (?:a|the) token|tokens?['\u2019]s? numbers|hidden numbers": "channels",
    r"the seeds['\u2019]|of the seeds|--table seeds": "the published, the papers'",
    r"(?:is|are|been|mended and) told(?! (?:apart|to)\b)": "reported, listed, given",
    r"belief|not believing|fully believed|believed (?:in|to be of)": "predicted, probability",
    r"methods\.md|design/|paper-review": "something in this repository, or the paper's number",
}

# A file that pip installs, and the network that CONTRIBUTING.md shows how to add.
NO_MODULES = {"nnunet_neurino.pth", "nnunet_neurino.networks.tiny.Tiny"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def private_words(text: str) -> list[str]:
    """Private words in a text, line breaks and the marks of comments aside."""
    text = re.sub(r"\s*\n\s*#?\s*", " ", text)
    return [
        f"{found.group()!r} in {text[max(0, found.start() - 40) : found.end() + 40]!r}: say {instead}"
        for words, instead in SAY_INSTEAD.items()
        for found in re.finditer(rf"(?<!\w)(?:{words})(?!\w)", text, re.IGNORECASE)
    ]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def parsers_of(command: str) -> list[argparse.ArgumentParser]:
    return list(parsers(cli._command_parser(command, cli._module(command))))


def code_blocks(page: Path, *languages: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for language, text in blocks if language in languages]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_list_of_words_finds_what_it_should() -> None:
    # Across a line break in a comment, too; and not in words that only contain one.
    assert private_words("# kept for the way\n    # back")
    assert not private_words("a warehouse is wishful; told apart; no room is left")


@pytest.mark.parametrize("path", [*PAGES, *CODE], ids=name_of)
def test_the_fields_words(path: Path) -> None:
    assert private_words(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_fields_words_in_help(command: str) -> None:
    for parser in parsers_of(command):
        assert private_words(parser.format_help()) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_lines_wrap(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(target)
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            if anchor not in map(slug, headings):
                broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=name_of)
def test_files_and_modules_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:nnunet_neurino|tests|benchmarks|dataset_conversion|docs)/[\w./-]*\w", text))
    assert sorted(path for path in named if not (ROOT / path).exists()) == []
    for dotted in set(re.findall(r"\bnnunet_neurino(?:\.[A-Za-z_]\w*)+", text)):
        if dotted not in NO_MODULES:
            resolve(dotted)


def resolve(dotted: str) -> object:
    """The module, or the attribute of a module, of this name."""
    module, _, attribute = dotted.rpartition(".")
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        if error.name != dotted:
            raise
    return getattr(resolve(module), attribute)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_examples_import_what_exists(page: Path) -> None:
    for block in code_blocks(page, "python"):
        for node in ast.walk(ast.parse(textwrap.dedent(block))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nnunet_neurino"):
                for alias in node.names:
                    resolve(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_have_the_options_that_are_shown(page: Path) -> None:
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S))
    shell = "\n".join([*code_blocks(page, "", "bash"), *inline]).replace("\\\n", " ")
    for line in shell.splitlines():
        words = shlex.split(line, comments=True) if line.count("'") % 2 == 0 else line.split()
        start = next((i for i, word in enumerate(words) if word in ("neurino", "python")), None)
        if start is None or len(words) < start + 2:
            continue
        program, used = words[start + 1], [word for word in words[start + 2 :] if re.match(r"--?[A-Za-z]", word)]
        if words[start] == "neurino" and program in cli.COMMANDS:
            known = {o for parser in parsers_of(program) for action in parser._actions for o in action.option_strings}
            assert set(used) <= known, line
        elif words[start] == "python" and program.startswith("benchmarks/"):
            source = (ROOT / program).read_text(encoding="utf-8")
            assert all(f'"{option}"' in source for option in used), line


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)", page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve()
            if file.exists() and file not in reached:
                todo.append(file)
    assert set(PAGES) - {ROOT / "CHANGELOG.md"} <= reached


def test_readme_lists_every_command() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \|", README.split("## Commands")[1], re.MULTILINE)
    assert sorted(listed) == sorted(cli.COMMANDS)


def test_readme_lists_trainers_that_exist() -> None:
    rows = re.findall(r"^\| (`nnUNetTrainer[^|]+)\|", README, re.MULTILINE)
    assert len(rows) > 5
    for row in rows:
        first, *others = re.findall(r"`(\w+)`", row)
        base = first.partition("_")[0]
        for name in (first, *(base + other if other.startswith("_") else other for other in others)):
            assert trainers.find(name), name


def test_architecture_is_one_screen_and_has_the_levels_of_the_import_test() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    rows = re.findall(r"^\| (\d) \| (.+) \|$", text, re.MULTILINE)
    levels = {
        name.removesuffix(".py"): int(level) for level, cells in rows for name in re.findall(r"`([\w.]+)`", cells)
    }
    assert {name: levels.get(name) for name in FLOOR if name != "__init__"} == {
        name: level for name, level in FLOOR.items() if name != "__init__"
    }
