"""Damaged files given to every command: benchmarks/fuzz.py does as many as one likes, here are 300."""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType

import pytest

from nnunet_neurino.cli.main import in_one_line


def test_no_command_breaks_on_a_damaged_file(fuzz: ModuleType, tmp_path: Path) -> None:
    commands = fuzz.Commands(tmp_path)
    failures = {}
    for kind, case, job in fuzz.plan(200, 100, every=20):
        if wrong := fuzz.one(commands, fuzz.SEEDS, kind, case, job):
            failures[kind, case, job] = wrong
    assert not failures


def test_what_a_command_may_not_raise_is_found(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = fuzz.Commands(tmp_path)
    monkeypatch.setattr(fuzz, "neurino", lambda command: int(command[1]))
    assert "ValueError" in fuzz.one(commands, fuzz.SEEDS, "swc", 0, "check")
    monkeypatch.setattr(fuzz, "CASE_SECONDS", 0.1)
    monkeypatch.setattr(fuzz, "neurino", lambda command: in_one_line("neurino", lambda: time.sleep(5)))
    assert "TooSlow" in fuzz.one(commands, fuzz.SEEDS, "swc", 0, "check")
    monkeypatch.setattr(fuzz, "neurino", lambda command: 1)
    assert "without a word" in fuzz.one(commands, fuzz.SEEDS, "swc", 0, "check")
    assert {job for _, _, job in fuzz.plan(200, 100, every=20)} == {*fuzz.SWC_JOBS, *fuzz.STACK_JOBS}
