"""From a table of rows to a :class:`Tree`: parents are looked up and what is broken is mended, with a finding each."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.swc.parse import RawTable
from nnunet_neurino.swc.tree import Tree, Unit, circle_nodes, has_repeats, parents_first_order, take

# A position this many times as far off as those of 90 % of the nodes, of which there must be some, is mistyped.
_FAR_OFF, _FEWEST_AROUND = 100, 10
# A radius up to this, and up to twice the farthest position, may be real.
_LARGE_RADIUS = 1000.0

_LINES_NAMED = 5  # of a finding that several lines share, beside the first

_OWN_UNIT = re.compile(r"^unit:\s*(voxel|micrometre|unknown)$")
_IN_UNIT = r"\b(?:in|units?)\s*(?:are|is)?\s*[:=]?\s*\(?"
_MICROMETRE = re.compile(_IN_UNIT + r"(?:[µμ]m|um|microns?|micromet(?:er|re)s?)\b", re.IGNORECASE)
_VOXEL = re.compile(_IN_UNIT + r"(?:(?:\d-based|image)\s+)*(?:voxels?|pixels?)\b", re.IGNORECASE)


def mend(path: Path, table: RawTable, break_circles: bool = False) -> Tree:
    """Make a tree, parents first, of a file's rows.

    Raises:
        NeurinoError: the parents run in a circle, unless ``break_circles``; one node is far off all others.
    """
    findings = list(table.findings)
    unit = _unit_of(table.comments, findings)
    table = _drop_repeats(table, findings)
    parents = _resolve_parents(table, findings)
    ids = _unique_ids(table, findings)
    radii = _mend_radii(table, findings)
    _refuse_far_node(path, table)
    parents = _without_circles(path, table, ids, parents, break_circles, findings)
    order = parents_first_order(parents)
    late = np.flatnonzero(parents >= np.arange(len(parents)))
    if len(late):
        findings.append(
            Finding(int(table.lines[late[0]]), f"{len(late)} nodes stand before their parent", "rows put parents first")
        )
    tree = Tree(ids, table.types, table.xyz, radii, parents, unit)
    findings.sort(key=lambda finding: finding.line)
    return take(tree, order, findings=tuple(findings))


def _tell(findings: list[Finding], table: RawTable, rows: np.ndarray, what: str, mended: str) -> None:
    """One finding for all ``rows`` (ascending): the first in words, of the others the lines.

    ``what`` may name the first one's {id}, {parent} and {radius}.
    """
    if not len(rows):
        return
    lines = table.lines[rows].tolist()
    named, others = ", ".join(map(str, lines[1 : _LINES_NAMED + 1])), len(lines) - 1 - _LINES_NAMED
    if named:
        named = f" (also lines {named} and {others} others)" if others > 0 else f" (also lines {named})"
    first = {"id": table.ids[rows[0]], "parent": table.parents[rows[0]], "radius": table.radii[rows[0]]}
    findings.append(Finding(lines[0], what.format(**first) + named, mended))


def _unit_of(comments: list[tuple[int, str]], findings: list[Finding]) -> Unit:
    """The unit that the comments name: our writer's line, else "in micrometers", "in voxel coordinates"..."""
    for _, text in comments:
        own = _OWN_UNIT.match(text)
        if own:
            return own[1]  # type: ignore[return-value]
    seen: dict[Unit, int] = {}
    for line, text in comments:
        if _MICROMETRE.search(text):
            seen.setdefault("micrometre", line)
        if _VOXEL.search(text):
            seen.setdefault("voxel", line)
    if len(seen) != 1:
        if seen:
            findings.append(Finding(min(seen.values()), "comments name both voxels and micrometres; unit unknown"))
        return "unknown"
    unit, line = next(iter(seen.items()))
    findings.append(Finding(line, f"the comment says that the unit is the {unit}"))
    return unit


def _drop_repeats(table: RawTable, findings: list[Finding]) -> RawTable:
    """Leave out rows that repeat an earlier one in every column."""
    if not has_repeats(table.ids):
        return table
    # Bits instead of floats: a radius that is no number repeats one; + 0.0 makes -0.0 equal to 0.0.
    floats = np.column_stack([table.xyz, table.radii]) + 0.0
    numbers = np.column_stack([table.ids, table.types, table.parents, floats.view(np.int64)])
    _, first, which = np.unique(numbers, axis=0, return_index=True, return_inverse=True)
    first = first[which.ravel()]
    keep = first == np.arange(len(first))
    rows = np.flatnonzero(~keep)
    if len(rows):
        _tell(findings, table, rows, f"repeats line {table.lines[first[rows[0]]]} (id {{id}})", "left out")
    return RawTable(*(column[keep] for column in table.columns()), comments=table.comments)


def _resolve_parents(table: RawTable, findings: list[Finding]) -> np.ndarray:
    """Row of every node's parent, -1 for roots.

    Where several nodes bear the parent's id (files glued together) the nearest one above is meant, else the
    nearest one below.
    """
    ids, wanted = table.ids, table.parents
    n = len(ids)
    rows = np.arange(n)
    order = np.lexsort((rows, ids))
    names, number = np.unique(ids, return_inverse=True)
    place = np.minimum(np.searchsorted(names, wanted), max(len(names) - 1, 0))
    known = names[place] == wanted if n else np.zeros(0, bool)
    key = number[order] * n + order  # ascending: by id, then by row
    after = np.searchsorted(key, place * n + rows)  # the first entry of that id at or below this row
    above = np.maximum(after - 1, 0)
    use_above = (after > 0) & (number[order[above]] == place) if n else known
    parents = np.where(use_above, order[above], order[np.minimum(after, n - 1)]) if n else rows
    is_self = (wanted == ids) & (wanted != -1)
    root = (wanted == -1) | is_self | ~known
    parents = np.where(root, -1, parents)

    odd = ~known & (wanted != -1) & ~is_self
    for rows, what in (
        (is_self, "node {id} is its own parent"),
        (odd & (wanted <= 0), "node {id} names the parent {parent}, which is no node (a root's parent is -1)"),
        (odd & (wanted > 0), "node {id} names the parent {parent}, which is not in the file"),
    ):
        _tell(findings, table, np.flatnonzero(rows), what, "made a root")
    if root.any() and not (wanted == -1).any():
        findings.append(Finding(0, "no node is a root (parent -1)", f"{int(root.sum())} nodes made roots"))
    return parents


def _without_circles(
    path: Path, table: RawTable, ids: np.ndarray, parents: np.ndarray, break_them: bool, findings: list[Finding]
) -> np.ndarray:
    """Parents with the circles refused or broken at their first row."""
    tops: list[int] = []
    visited: set[int] = set()
    for top in circle_nodes(parents).tolist():
        if top in visited:
            continue
        circle = [top]
        while parents[circle[-1]] != top:
            circle.append(int(parents[circle[-1]]))
        visited.update(circle)
        if not break_them:
            raise NeurinoError(
                f"{path}: line {table.lines[top]}: node {ids[top]} is its own ancestor (a circle of {len(circle)} "
                "nodes); set the parent of one of them to -1"
            )
        tops.append(top)
    if not tops:
        return parents
    parents = parents.copy()
    parents[tops] = -1
    _tell(findings, table, np.array(tops), "node {id} is its own ancestor", "made a root")
    return parents


def _unique_ids(table: RawTable, findings: list[Finding]) -> np.ndarray:
    if not has_repeats(table.ids):
        return table.ids
    ids = table.ids.copy()
    again = np.ones(len(ids), dtype=bool)
    again[np.unique(ids, return_index=True)[1]] = False
    rows = np.flatnonzero(again)
    mended = "given a new id; children follow the nearest node of that id above them"
    _tell(findings, table, rows, "the id {id} is used before", mended)
    ids[rows] = np.setdiff1d(np.arange(1, 2 * len(ids) + 1), ids)[: len(rows)]
    return ids


def _refuse_far_node(path: Path, table: RawTable) -> None:
    """A node far off all others is a mistyped number: scores, pictures and sizes would show nothing but it."""
    if len(table.xyz) < _FEWEST_AROUND:
        return
    offset = np.abs(table.xyz - np.median(table.xyz, axis=0)).max(axis=1)
    usual = max(float(np.percentile(offset, 90, method="lower")), 1.0)
    for row in np.flatnonzero(offset > _FAR_OFF * usual)[:_FEWEST_AROUND]:
        apart = np.abs(table.xyz - table.xyz[row]).max(axis=1)
        if np.partition(apart, 1)[1] > _FAR_OFF / 10 * usual:
            raise NeurinoError(
                f"{path}: line {table.lines[row]}: node {table.ids[row]} is {offset[row]:.3g} away from the middle, "
                f"nearly all others are within {usual:.3g}; correct its position or delete it"
            )


def _mend_radii(table: RawTable, findings: list[Finding]) -> np.ndarray:
    radii = table.radii.copy()
    reach = float(np.abs(table.xyz).max(initial=0))
    no_length, too_large = ~(radii >= 0), radii > max(2 * reach, _LARGE_RADIUS)
    positive = radii[~too_large & (radii > 0)]
    stand_in = float(np.median(positive)) if len(positive) else 1.0
    for bad, what in ((no_length, "no length"), (too_large, f"impossible with positions up to {reach:.3g}")):
        mended = f"set to {stand_in:g}" + (", the median" if len(positive) else "")
        _tell(findings, table, np.flatnonzero(bad), f"the radius {{radius:g}} is {what}", mended)
        radii[bad] = stand_in
    zero = np.flatnonzero(radii == 0)
    if len(zero):
        findings.append(
            Finding(int(table.lines[zero[0]]), f"{len(zero)} of {len(radii)} radii are zero (repair_radii sets them)")
        )
    elif len(radii) > 1 and (radii == radii[0]).all():
        findings.append(Finding(0, f"every radius is {radii[0]:g}, so it was probably not measured"))
    return radii
