"""What is odd in a file of the user's: the same for tracings and stacks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something odd in a file, and what was done about it."""

    line: int  # in the file, counted from 1; 0 when the whole file is meant
    what: str  # what was found
    mended: str = ""  # what was done about it; empty when nothing had to be done (a note)

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.what}" + (f" -> {self.mended}" if self.mended else "")
