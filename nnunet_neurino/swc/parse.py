"""From the bytes of an SWC file to a table of numbers, with every departure from the format noted.

Nothing is resolved here (parents are still names): that is :mod:`nnunet_neurino.swc.mend`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.swc.text import MAX_LINE_BYTES, Notes, blocks_of_lines, open_text, refuse_long_line, show

_MAX_COMMENTS = 1000
_FARTHEST = 1e9  # a brain is a few 1e8 nanometres long
_MISSING = {b"na", b"n/a", b"nan", b"-nan", b"none", b"null", b"?", b"-"}
_DECIMAL_COMMA = re.compile(rb"[+-]?\d+,\d+([eE][+-]?\d+)?")
_WORD = re.compile(rb"[A-Za-z][\w/\-()\[\].]*")
_WHOLE = re.compile(rb"[+-]?\d+")


@dataclass
class RawTable:
    """The rows of a file: one entry a node, in file order, parents by name; radius NaN where there is none."""

    lines: np.ndarray
    ids: np.ndarray
    types: np.ndarray
    xyz: np.ndarray
    radii: np.ndarray
    parents: np.ndarray
    comments: list[tuple[int, str]] = field(default_factory=list, kw_only=True)
    findings: list[Finding] = field(default_factory=list, kw_only=True)

    @classmethod
    def empty(cls) -> RawTable:
        """No rows."""
        none = np.zeros(0, np.int64)
        return cls(none, none, none, np.zeros((0, 3)), np.zeros(0), none)

    def columns(self) -> tuple[np.ndarray, ...]:
        """Lines, ids, types, positions, radii, parents."""
        return self.lines, self.ids, self.types, self.xyz, self.radii, self.parents


def parse_swc(path: Path, max_nodes: int) -> RawTable:
    """Read the rows of ``path`` block by block.

    Raises:
        NeurinoError: the file is missing, too large, not text, or a line is not a node.
    """
    notes = Notes()
    comments: list[tuple[int, str]] = []
    blocks = [RawTable.empty()]
    n_nodes = 0
    with open_text(path) as file:
        for first_line, text in blocks_of_lines(file, path, notes):
            if first_line > 2 * max_nodes + _MAX_COMMENTS:
                raise NeurinoError(f"{path}: more than {first_line} lines; expected at most {max_nodes} nodes")
            block = _parse_block(path, first_line, text, notes, comments, has_nodes=n_nodes > 0)
            n_nodes += len(block.lines)
            if n_nodes > max_nodes:
                raise NeurinoError(
                    f"{path}: more than {max_nodes} nodes; give read_swc a larger max_nodes if that is meant"
                )
            blocks.append(block)
    columns = map(np.concatenate, zip(*(block.columns() for block in blocks), strict=True))
    return RawTable(*columns, comments=comments, findings=notes.findings)


def _parse_block(
    path: Path, first_line: int, lines: list[bytes], notes: Notes, comments: list[tuple[int, str]], has_nodes: bool
) -> RawTable:
    for k, line in enumerate(lines):
        if len(line) > MAX_LINE_BYTES:
            refuse_long_line(path, first_line + k)
        if b"#" in line:
            line, _, comment = line.partition(b"#")
            if len(comments) < _MAX_COMMENTS:
                comments.append((first_line + k, _decode(comment)))
            lines[k] = line
        if b"," in line or b";" in line:
            lines[k] = _mend_separators(line, first_line + k, notes)
    rows = [line.split() for line in lines]
    numbers = [number for number, fields in enumerate(rows, first_line) if fields]
    rows = [fields for fields in rows if fields]
    if rows and not has_nodes and not notes.header and len(rows[0]) >= 6 and all(map(_WORD.fullmatch, rows[0])):
        notes.header = True
        names = show(b" ".join(rows[0]))
        notes.once(numbers[0], f"column names without '#': {names}", "read as a comment")
        del rows[0], numbers[0]
    if not rows:
        return RawTable.empty()
    _check_columns(path, rows, numbers, notes)
    table = _to_floats(path, rows, numbers, has_underscore=any(b"_" in line for line in lines))
    xyz = table[:, 2:5]
    possible = (np.abs(xyz) <= _FARTHEST).all(axis=1)
    if not possible.all():
        bad = int(np.argmin(possible))
        raise NeurinoError(
            f"{path}: line {numbers[bad]}: no stack reaches to the position {show(b' '.join(rows[bad][2:5]))}; "
            f"expected three numbers x y z up to {_FARTHEST:g}; delete the node or give it a position"
        )
    return RawTable(
        lines=np.array(numbers, dtype=np.int64),
        ids=_to_names(path, table[:, 0], rows, 0, numbers, notes),
        types=_to_types(table[:, 1], numbers, notes),
        xyz=np.ascontiguousarray(xyz),
        radii=np.ascontiguousarray(table[:, 5]),
        parents=_to_names(path, table[:, 6], rows, 6, numbers, notes),
    )


def _decode(comment: bytes) -> str:
    try:
        return comment.decode("utf-8").strip()
    except UnicodeDecodeError:
        return comment.decode("latin-1").strip()


def _mend_separators(line: bytes, number: int, notes: Notes) -> bytes:
    """Commas and semicolons between columns become blanks, a comma inside a number becomes a point.

    Where that would move numbers into other columns (an empty cell, a comma for thousands) the line stays as it is, to
    be refused.
    """
    for mark, name in ((b";", "semicolons"), (b",", "commas")):
        cells = [cell.strip() for cell in line.split(mark)]
        if len(cells) >= 7 and all(len(cell.split()) < 2 for cell in cells[:7]):
            if not all(cells[:7]):
                return line
            notes.once(number, f"columns separated by {name}", "read as blanks")
            line = b" ".join(cells)
    if b";" in line:
        notes.once(number, "columns separated by semicolons", "read as blanks")
        line = line.replace(b";", b" ")
    if b"," not in line:
        return line
    fields = [field for field in (field.strip(b",") for field in line.split()) if field]
    inner = [field for field in fields[:7] if b"," in field]
    if inner and len(fields) >= 7:
        if not all(_DECIMAL_COMMA.fullmatch(field) for field in inner):
            return line
        notes.once(number, "commas as decimal points", "read as points")
        return b" ".join([*(field.replace(b",", b".") for field in fields[:7]), *fields[7:]])
    notes.once(number, "columns separated by commas", "read as blanks")
    return line.replace(b",", b" ")


def _check_columns(path: Path, rows: list[list[bytes]], numbers: list[int], notes: Notes) -> None:
    widths = set(map(len, rows))
    if widths == {7}:
        return
    if min(widths) < 7:
        at = next(k for k, fields in enumerate(rows) if len(fields) < 7)
        fields = rows[at]
        seen = f"{path}: line {numbers[at]}: expected 7 columns (id type x y z radius parent), found {len(fields)}"
        if at == 0 and len(fields) == 1 and b"/" in fields[0]:
            raise NeurinoError(
                f"{seen}: {show(fields[0])} looks like the text of a symbolic link; copy the file it points to"
            )
        raise NeurinoError(f"{seen}: {show(b' '.join(fields))}; put the line right or export the tracing as SWC again")
    at = next(k for k, fields in enumerate(rows) if len(fields) > 7)
    notes.once(numbers[at], f"{len(rows[at]) - 7} columns more than the 7 of SWC (as in eSWC); they are ignored")
    for fields in rows:
        del fields[7:]


def _to_floats(path: Path, rows: list[list[bytes]], numbers: list[int], has_underscore: bool) -> np.ndarray:
    try:
        flat = list(map(float, chain.from_iterable(rows)))
        if not has_underscore:  # float() takes 1_000, SWC does not
            return np.array(flat).reshape(-1, 7)
    except ValueError:
        pass
    table = np.empty((len(rows), 7))
    for k, fields in enumerate(rows):
        for column, text in enumerate(fields):
            try:
                if b"_" in text:
                    raise ValueError
                table[k, column] = float(text)
            except ValueError:
                if column not in (5, 6) or text.lower() not in _MISSING:
                    raise NeurinoError(
                        f"{path}: line {numbers[k]}: expected a number in column {column + 1}, found {show(text)}; "
                        "put the line right or mark it as a comment with '#'"
                    ) from None
                table[k, column] = np.nan
    return table


def _to_names(
    path: Path, values: np.ndarray, rows: list[list[bytes]], column: int, numbers: list[int], notes: Notes
) -> np.ndarray:
    """Ids (column 0) or parents (column 6) as whole numbers; a missing parent is -1."""
    missing = np.isnan(values)
    if column == 6 and missing.any():
        notes.once(numbers[int(np.argmax(missing))], "a parent that is not a number", "made a root")
        values = np.where(missing, -1.0, values)
    name = "id" if column == 0 else "parent"
    with np.errstate(invalid="ignore"):
        bad = ~(np.isfinite(values) & (np.floor(values) == values))
    if bad.any():
        at = int(np.argmax(bad))
        raise NeurinoError(
            f"{path}: line {numbers[at]}: expected a whole number as {name}, found {show(rows[at][column])}"
        )
    large = np.abs(values) >= 2.0**53
    names = np.where(large, 0.0, values).astype(np.int64)
    for at in np.flatnonzero(large).tolist():  # such ids exist (64-bit hashes) and floats cannot tell them apart
        text = rows[at][column]
        if len(text) > 20 or not _WHOLE.fullmatch(text) or abs(int(text)) >= 2**63:
            raise NeurinoError(
                f"{path}: line {numbers[at]}: the {name} {show(text)} is too large; expected a 64-bit whole number"
            )
        names[at] = int(text)
    return names


def _to_types(values: np.ndarray, numbers: list[int], notes: Notes) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        bad = ~((np.floor(values) == values) & (np.abs(values) < 2.0**31))
    if bad.any():
        at = int(np.argmax(bad))
        notes.once(numbers[at], "a type that is not a whole number", "set to 0 (undefined)")
    return np.where(bad, 0.0, values).astype(np.int64)
