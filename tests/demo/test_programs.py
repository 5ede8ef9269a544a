"""Programs: output to a log, errors in one line, nothing left running."""

from __future__ import annotations

import os
import sys
import time

import pytest

from nnunet_neurino.demo import programs
from nnunet_neurino.errors import NeurinoError


@pytest.fixture(autouse=True)
def python_as_a_program(monkeypatch):
    monkeypatch.setattr(programs, "program", lambda name: sys.executable)


def test_lines_are_logged_and_handed_on(tmp_path):
    lines: list[str] = []
    code = "import os; print('one'); print(); print(os.environ['COLOUR'])"
    programs.run_program(["python", "-c", code], tmp_path / "logs" / "a.log", {"COLOUR": "blue"}, lines.append)
    assert lines == ["one", "blue"]
    assert (tmp_path / "logs" / "a.log").read_text().splitlines()[1:] == ["one", "", "blue"]


def test_failure_names_the_reason_and_the_log(tmp_path):
    with pytest.raises(NeurinoError, match=r"no GPU here.*a\.log"):
        programs.run_program(["python", "-c", "import sys; sys.exit('no GPU here')"], tmp_path / "a.log", {})


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_interruption_stops_the_children_too(tmp_path):
    pid_file = tmp_path / "pid"
    code = (
        "import subprocess, sys, time;"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=False);"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid)); print('ready', flush=True); time.sleep(60)"
    )

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        programs.run_program(["python", "-c", code], tmp_path / "a.log", {}, interrupt)
    assert time.monotonic() - start < 30
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _is_running(int(pid_file.read_text())):
        time.sleep(0.05)
    assert not _is_running(int(pid_file.read_text()))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a child whose parent has gone may wait for init to reap it
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_missing_program_is_one_line(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(NeurinoError, match="pip install nnunet-neurino"):
        programs.program("nnUNetv2_no_such_command")
