"""Cross-validation folds that keep the cases of a specimen together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_neurino.conversion.settings import Case
from nnunet_neurino.errors import NeurinoError


def specimen_of(case: str, rule: str | None, given: str = "") -> str:
    """The specimen of a case: the table's word, else the rule's first group in its name, else the case itself."""
    if given:
        return given
    if rule:
        match = re.search(rule, case)
        if match is None:
            raise NeurinoError(f"--specimen {rule!r}: not found in the case name {case!r}; widen the expression")
        return match.group(1) if match.groups() else match.group(0)
    return case


def with_specimens(cases: Sequence[Case], rule: str | None) -> list[Case]:
    """Give every case its specimen; training cases of several specimens that show one image get a problem."""
    named = []
    for case in cases:
        try:
            named.append(replace(case, specimen=specimen_of(case.name, rule, case.specimen)))
        except NeurinoError as error:
            named.append(replace(case, problem=case.problem or str(error)))
    specimens: dict[Path, set[str]] = defaultdict(set)
    for case in named:
        for path in () if case.test else case.images:
            specimens[path].add(case.specimen)
    for i, case in enumerate(named):
        shared = [path for path in case.images if len(specimens[path]) > 1]
        if shared and not case.problem:
            problem = f"{shared[0]}: belongs to several cases: give them one specimen, so that no split parts them"
            named[i] = replace(case, problem=problem)
    return named


def make_splits(specimens: Mapping[str, Sequence[str]], folds: int = 5) -> list[dict[str, list[str]]]:
    """Deal specimens out to folds: the largest first, each to the fold with the fewest cases so far.

    Args:
        specimens: for each specimen the identifiers of its cases (blocks of one volume belong to one specimen).
        folds: number of folds; with fewer specimens there are as many folds as specimens.

    Returns:
        nnU-Net's splits_final: for each fold the identifiers to train on and to validate on; empty when there are
        fewer than two specimens. The same for the same input.

    Examples:
        >>> make_splits({"a": ["a1", "a2"], "b": ["b1"]})
        [{'train': ['b1'], 'val': ['a1', 'a2']}, {'train': ['a1', 'a2'], 'val': ['b1']}]
    """
    count = min(folds, len(specimens))
    if count < 2:
        return []
    members: dict[int, list[str]] = defaultdict(list)
    for name in sorted(specimens, key=lambda s: (-len(specimens[s]), s)):
        fold = min(range(count), key=lambda f: (len(members[f]), f))
        members[fold] += specimens[name]
    everything = sorted(case for cases in specimens.values() for case in cases)
    held_out = [set(members[fold]) for fold in range(count)]
    return [{"train": [c for c in everything if c not in held], "val": sorted(held)} for held in held_out]
