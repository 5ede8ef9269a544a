"""What the comments beside the fields of a recipe say."""

from __future__ import annotations

import inspect
import re

from nnunet_neurino.trainers.families import Recipe


def recipe_comments(kind: type[Recipe]) -> dict[str, str]:
    """Meaning of each setting: the comment behind its field or above it, in the nearest parent that explains it."""
    found = {}
    for parent in reversed([parent for parent in kind.__mro__ if issubclass(parent, Recipe)]):
        above: list[str] = []
        for line in inspect.getsource(parent).splitlines():
            field = re.match(r"    (\w+): [^#]*(?:# (.*))?", line)
            if field and (field[2] or above):
                found[field[1]] = field[2] or " ".join(above)
            comment = re.match(r"    # (.*)", line)
            above = [*above, comment[1]] if comment else []
    return found
