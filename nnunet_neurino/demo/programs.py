"""Run a program as the user would, with its whole output in a log file and one live line on the screen."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nnunet_neurino.errors import NeurinoError


def program(name: str) -> str:
    """The path of an installed console script, looked for beside this Python first."""
    beside = Path(sys.executable).parent
    found = shutil.which(name, path=os.pathsep.join([str(beside), os.environ.get("PATH", "")]))
    if found is None:
        raise NeurinoError(
            f"the command {name} is not in {beside} nor on PATH; install with: pip install nnunet-neurino"
        )
    return found


def run_program(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Run ``command`` to its end, or stop it and all its children when we are interrupted.

    Args:
        command: Name of a console script, then its arguments.
        log: File that gets the command and everything it prints.
        environment: Variables added to ours.
        on_line: Called with each line of output, without its end.

    Raises:
        NeurinoError: The program failed; the message quotes its last line and names the log.
    """
    arguments = [program(command[0]), *command[1:]]
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=1)
    with log.open("w", encoding="utf-8") as record:
        record.write("$ " + " ".join(command) + "\n")
        process = subprocess.Popen(
            arguments,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            # A group of its own, so that worker processes are stopped with it.
            start_new_session=os.name == "posix",
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                record.write(line)
                record.flush()
                if line.strip():
                    last.append(line.strip())
                    on_line(line.rstrip("\n"))
            status = process.wait()
        except BaseException:
            _stop(process)
            raise
    if status != 0:
        reason = last[0] if last else "no output"
        raise NeurinoError(f"{command[0]} failed ({reason}); everything it printed is in {log}")


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the program to end, then kill it and the workers that outlive it."""
    if os.name != "posix":
        process.kill()
        process.wait()
        return
    for number, patience in ((signal.SIGINT, 10), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
