"""The result of one check."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass


class Level(enum.IntEnum):
    """How serious a result is."""

    OK = 0
    NOTE = 1
    PROBLEM = 2


@dataclass(frozen=True)
class Result:
    """What was looked at, what was seen, and what to do about it (empty when nothing is to be done)."""

    level: Level
    subject: str
    detail: str
    remedy: str = ""


def ok(subject: str, detail: str) -> Result:
    """All is well."""
    return Result(Level.OK, subject, detail)


def note(subject: str, detail: str, remedy: str = "") -> Result:
    """It works, but the user may want to know."""
    return Result(Level.NOTE, subject, detail, remedy)


def problem(subject: str, detail: str, remedy: str) -> Result:
    """nnU-Net or the package will not work."""
    return Result(Level.PROBLEM, subject, detail, remedy)


@dataclass(frozen=True)
class Check:
    """A function that looks at one thing; ``slow`` ones start another Python."""

    look: Callable[[], Iterable[Result]]
    slow: bool = False
