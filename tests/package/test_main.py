"""The ``neurino`` dispatcher: help, exit codes, one-line errors."""

from __future__ import annotations

import errno
import types

import pytest

from nnunet_neurino.cli import main as cli
from nnunet_neurino.errors import NeurinoError


def command(outcome) -> types.ModuleType:
    """A subcommand module whose run() raises or returns ``outcome``."""
    module = types.ModuleType("command", "Does one thing.")
    module.EXAMPLE = "  neurino check a.swc"
    module.add_arguments = lambda parser: parser.add_argument("--number", type=int, default=3)

    def run(args):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    module.run = run
    return module


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (0, 0, ""),
        (None, 0, ""),
        (1, 1, ""),
        (
            NeurinoError("a.swc line 3: 5 columns, 7 expected"),
            1,
            "neurino check: a.swc line 3: 5 columns, 7 expected",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "out.tif"), 1, "out.tif: No space left on device"),
        (MemoryError(), 1, "not enough memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_status_and_message(monkeypatch, capsys, outcome, status, message):
    monkeypatch.setattr(cli, "_module", lambda name: command(outcome))
    assert cli.main(["check"]) == status
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) <= 1


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli, "_module", lambda name: command(ZeroDivisionError("ours")))
    with pytest.raises(ZeroDivisionError):
        cli.main(["check"])


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_teaches(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "example:" in text
    example = text.split("example:")[1]
    assert f"neurino {name}" in example


def test_wrong_usage_is_2(capsys):
    for arguments in ([], ["fly"], ["check"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2
