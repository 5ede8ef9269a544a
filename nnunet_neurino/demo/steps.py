"""A row of steps that can be interrupted and taken up again: each leaves a stamp when it is whole."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_neurino.files import write_json


@dataclass(frozen=True)
class Step:
    """One step of a pipeline."""

    name: str  # Short name; the stamp's file name
    title: str  # What the user reads while it runs
    work: Callable[[], None]  # Does it; must be safe to call again after an interruption
    settings: Any = None  # Everything the result depends on besides the steps before it (JSON-able)
    makes: Sequence[Path] = field(default=())  # Files or folders that must exist for the stamp to count
    # The work goes on with what an interrupted run with the same settings has left in `makes`. Otherwise `makes` is
    # removed before the work starts
    resumes: bool = False


def run_steps(steps: Iterable[Step], stamps: Path) -> dict[str, float]:
    """Run ``steps`` in order and return the seconds each took (0 when it was reused).

    A step is reused when its stamp says that it was finished with the same settings, after the same steps, and what
    it makes is still there. Everything behind a step that runs anew runs anew too.
    """
    steps = list(steps)
    seconds: dict[str, float] = {}
    digest = ""
    for number, step in enumerate(steps, start=1):
        digest = hashlib.sha256(json.dumps([digest, step.name, step.settings]).encode()).hexdigest()
        stamp = stamps / f"{step.name}.json"
        label = f"[{number}/{len(steps)}] {step.title}"
        if _is_done(step, stamp, digest):
            print(f"{label}: done before, reused", flush=True)
            seconds[step.name] = 0.0
            continue
        for later in steps[number - 1 :]:
            (stamps / f"{later.name}.json").unlink(missing_ok=True)
        print(label, flush=True)
        begun = stamps / f"{step.name}.begun.json"
        if not (step.resumes and _digest_in(begun) == digest):
            for path in step.makes:
                _remove(path)
        write_json(begun, {"digest": digest})
        start = time.monotonic()
        step.work()
        seconds[step.name] = time.monotonic() - start
        write_json(stamp, {"digest": digest, "seconds": round(seconds[step.name], 1)})
        begun.unlink(missing_ok=True)
        print(f"      {seconds[step.name]:.0f} s", flush=True)
    return seconds


def _is_done(step: Step, stamp: Path, digest: str) -> bool:
    return _digest_in(stamp) == digest and all(path.exists() for path in step.makes)


def _digest_in(stamp: Path) -> str | None:
    try:
        return str(json.loads(stamp.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
