"""From a trainer's name to its class: a family, at most one word of each of its groups, an epoch count.

Every class is an attribute of ``nnunet_neurino.trainers`` and can be pickled by that name. PyTorch and nnU-Net are
imported only once a name is one of ours.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from nnunet_neurino.trainers.families import Words, families, family_of

PACKAGE = "nnunet_neurino.trainers"
"""Where pickling looks a class up by its name; the package's ``__getattr__`` finds it."""


def find(name: str) -> type[Any] | None:
    """The trainer class of this exact name, or None. The same name gives the same class every time."""
    package = sys.modules[PACKAGE]
    known = vars(package).get(name)
    if isinstance(known, type):
        return known
    family = family_of(name)
    parsed = parse(name.split("_")[1:], family.words) if family else None
    if family is None or parsed is None:
        return None
    changes, meanings = parsed
    meaning = f"{family.title}: {', '.join(meanings) or family.plain}."
    attributes = {"__doc__": meaning, "__module__": PACKAGE, **family.attributes(changes)}
    trainer = type(name, (family.trainer(),), attributes)
    setattr(package, name, trainer)
    return trainer


def parse(words: list[str], groups: tuple[Words, ...]) -> tuple[dict[str, Any], list[str]] | None:
    """Settings that the words of a name stand for, and what they mean; None if they are not ours."""
    words = list(words)
    changes: dict[str, Any] = {}
    meanings = []
    for group in groups:
        if words and words[0] in group:
            meaning, values = group[words.pop(0)]
            changes |= values
            meanings.append(meaning)
    # An epoch count in nnU-Net's spelling only.
    if words and re.fullmatch(r"1epoch|[2-9]epochs|[1-9][0-9]+epochs", words[0]):
        changes["epochs"] = int(words[0].partition("epoch")[0])
        meanings.append(words.pop(0).replace("epoch", " epoch"))
    return None if words else (changes, meanings)


def documented_names(base: str | None = None) -> dict[str, str]:
    """Name and meaning of a family's plain trainer and of every single variant; further words can be combined.

    Args:
        base: of a family; None for all families.
    """
    names = []
    for family in families().values():
        if base in (None, family.base):
            words = [word for group in family.words for word in group]
            names += [family.base, *(f"{family.base}_{word}" for word in words)]
            names += [f"{family.base}_100epochs"] if words else []
    return {name: (getattr(find(name), "__doc__", None) or "").partition("\n")[0] for name in names}
