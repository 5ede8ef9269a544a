"""What the options of several commands share."""

from __future__ import annotations

from typing import Any

# Three numbers, one for each axis of a stack.
ZYX: dict[str, Any] = {"nargs": 3, "metavar": ("Z", "Y", "X")}
