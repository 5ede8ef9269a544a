"""From the bytes of an SWC file to a table of numbers, with every departure from the format noted.

Nothing is resolved here (parents are still names): that is :mod:`nnunet_neurino.swc.mend`.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc.tree import Finding

#: Larger files are refused before they are read; 10 million nodes, the other limit, take about 400 MB.
MAX_BYTES = 512 * 2**20
MAX_LINE_BYTES = 2**16
_BLOCK_BYTES = 2**22
_MAX_COMMENTS = 1000
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
    comments: list[tuple[int, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


class _Notes:
    """Findings while parsing; those about the manner of writing are told once, at the first line."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._told: set[str] = set()

    def once(self, line: int, what: str, mended: str = "") -> None:
        if what not in self._told:
            self._told.add(what)
            self.findings.append(Finding(line, what, mended))


def parse_swc(path: Path, max_nodes: int) -> RawTable:
    """Read the rows of ``path`` block by block.

    Raises:
        NeurinoError: the file is missing, too large, not text, or a line is not a node.
    """
    notes = _Notes()
    comments: list[tuple[int, str]] = []
    blocks: list[_Block] = []
    n_nodes = 0
    with _open(path) as file:
        for first_line, lines in _blocks_of_lines(file, path, notes):
            block = _parse_block(path, first_line, lines, notes, comments, has_nodes=n_nodes > 0)
            n_nodes += len(block.lines)
            if n_nodes > max_nodes:
                raise NeurinoError(
                    f"{path}: more than {max_nodes} nodes; give read_swc a larger max_nodes if that is meant"
                )
            if len(block.lines):
                blocks.append(block)
    if not blocks:
        blocks.append(_Block.empty())
    columns = [np.concatenate(parts) for parts in zip(*(b.columns() for b in blocks), strict=True)]
    return RawTable(*columns, comments=comments, findings=notes.findings)


def _open(path: Path) -> BinaryIO:
    try:
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            raise NeurinoError(f"{path}: is a folder; expected an SWC file")
        if not stat.S_ISREG(info.st_mode):
            raise NeurinoError(f"{path}: is not an ordinary file; copy it to one first")
        if info.st_size > MAX_BYTES:
            raise NeurinoError(
                f"{path}: {info.st_size / 1e9:.2f} GB is too large for an SWC file (at most {MAX_BYTES / 1e9:.2f} GB); "
                "split it into one file a neuron"
            )
        return open(path, "rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise NeurinoError(f"{path}: cannot be read ({reason}); expected an SWC file") from None


def _blocks_of_lines(file: BinaryIO, path: Path, notes: _Notes) -> Iterator[tuple[int, list[bytes]]]:
    """Number of the first line, and whole lines without their ends (``\\n``, ``\\r\\n`` or ``\\r``)."""
    rest = b""
    line = 1
    first = True
    decoder: codecs.IncrementalDecoder | None = None
    while True:
        try:
            data = file.read(_BLOCK_BYTES)
        except OSError as error:
            raise NeurinoError(f"{path}: reading failed after line {line} ({error.strerror}); copy it again") from None
        ended = not data
        if first:
            first = False
            _refuse_by_first_bytes(path, data)
            if data.startswith(codecs.BOM_UTF8):
                data = data[len(codecs.BOM_UTF8) :]
                notes.once(1, "byte-order mark of UTF-8")
            elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                decoder = codecs.getincrementaldecoder("utf-16")(errors="replace")
                notes.once(1, "text in UTF-16", "read as such")
        if decoder is not None:
            data = decoder.decode(data, final=ended).encode("utf-8", errors="replace")
        if b"\0" in data:
            raise NeurinoError(
                f"{path}: line {line} or later holds NUL bytes, so this is not a text file; expected SWC"
            )
        text = rest + data
        if not ended:
            # A final \r may be the first half of \r\n: leave it for the next block.
            cut = max(text.rfind(b"\n"), text.rfind(b"\r", 0, len(text) - 1)) + 1
            text, rest = text[:cut], text[cut:]
            if len(rest) > MAX_LINE_BYTES:
                _refuse_long_line(path, line + len(text.splitlines()))
        if text:
            lines = text.splitlines()
            yield line, lines
            line += len(lines)
        if ended:
            return


def _refuse_long_line(path: Path, line: int) -> None:
    raise NeurinoError(f"{path}: line {line} is longer than {MAX_LINE_BYTES} bytes; expected an SWC text file")


def _refuse_by_first_bytes(path: Path, data: bytes) -> None:
    start = data[:512].lstrip().lower()
    for magic, what in (
        (b"version https://git-lfs", "a Git-LFS pointer instead of the file; run `git lfs pull` in its repository"),
        (b"\x1f\x8b", "gzip-compressed; unpack it first (gunzip)"),
        (b"pk\x03\x04", "a ZIP archive; unpack it first"),
        (b"<!doctype", "a web page, not an SWC file; download the raw file"),
        (b"<html", "a web page, not an SWC file; download the raw file"),
        (b"<?xml", "an XML file; export the tracing as SWC"),
    ):
        if start.startswith(magic):
            raise NeurinoError(f"{path}: is {what}")


@dataclass
class _Block:
    lines: np.ndarray
    ids: np.ndarray
    types: np.ndarray
    xyz: np.ndarray
    radii: np.ndarray
    parents: np.ndarray

    @staticmethod
    def empty() -> _Block:
        none = np.zeros(0, np.int64)
        return _Block(none, none, none, np.zeros((0, 3)), np.zeros(0), none)

    def columns(self) -> tuple[np.ndarray, ...]:
        return self.lines, self.ids, self.types, self.xyz, self.radii, self.parents


def _parse_block(
    path: Path,
    first_line: int,
    lines: list[bytes],
    notes: _Notes,
    comments: list[tuple[int, str]],
    has_nodes: bool,
) -> _Block:
    rows: list[list[bytes]] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, first_line):
        if b"#" in line:
            line, _, comment = line.partition(b"#")
            if len(comments) < _MAX_COMMENTS:
                comments.append((number, _decode(comment)))
        if b"," in line or b";" in line:
            line = _mend_separators(line, number, notes)
        fields = line.split()
        if not fields:
            continue
        if not rows and not has_nodes and len(fields) >= 6 and all(_WORD.fullmatch(f) for f in fields):
            notes.once(number, f"column names without '#': {_show(line)}", "read as a comment")
            continue
        if len(line) > MAX_LINE_BYTES:
            _refuse_long_line(path, number)
        rows.append(fields)
        numbers.append(number)
    if not rows:
        return _Block.empty()
    _check_columns(path, rows, numbers, notes)
    table = _to_floats(path, rows, numbers, notes)
    xyz = table[:, 2:5]
    finite = np.isfinite(xyz).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise NeurinoError(
            f"{path}: line {numbers[bad]}: the position {_show(b' '.join(rows[bad][2:5]))} is not finite; "
            "expected three numbers x y z; delete the node or give it a position"
        )
    return _Block(
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


def _show(text: bytes) -> str:
    """Foreign text, short and printable on one line."""
    short = text if len(text) <= 60 else text[:57] + b"..."
    return repr(short.decode("ascii", errors="backslashreplace"))


def _mend_separators(line: bytes, number: int, notes: _Notes) -> bytes:
    """Commas and semicolons between columns become blanks, a comma inside a number becomes a point."""
    if b";" in line:
        notes.once(number, "columns separated by semicolons", "read as blanks")
        line = line.replace(b";", b" ")
    if b"," not in line:
        return line
    fields = [f.strip(b",") for f in line.split()]
    inner = [f for f in fields if b"," in f]
    if inner and len(fields) >= 7 and all(_DECIMAL_COMMA.fullmatch(f) for f in inner):
        notes.once(number, "commas as decimal points", "read as points")
        return b" ".join(fields).replace(b",", b".")
    notes.once(number, "columns separated by commas", "read as blanks")
    return line.replace(b",", b" ")


def _check_columns(path: Path, rows: list[list[bytes]], numbers: list[int], notes: _Notes) -> None:
    widths = set(map(len, rows))
    if widths == {7}:
        return
    if min(widths) < 7:
        at = next(k for k, fields in enumerate(rows) if len(fields) < 7)
        fields = rows[at]
        seen = f"{path}: line {numbers[at]}: expected 7 columns (id type x y z radius parent), found {len(fields)}"
        if at == 0 and len(fields) == 1 and b"/" in fields[0]:
            raise NeurinoError(
                f"{seen}: {_show(fields[0])} looks like the text of a symbolic link; copy the file it points to"
            )
        raise NeurinoError(f"{seen}: {_show(b' '.join(fields))}; put the line right or export the tracing as SWC again")
    at = next(k for k, fields in enumerate(rows) if len(fields) > 7)
    notes.once(numbers[at], f"{len(rows[at]) - 7} columns more than the 7 of SWC (as in eSWC); they are ignored")
    for fields in rows:
        del fields[7:]


def _to_floats(path: Path, rows: list[list[bytes]], numbers: list[int], notes: _Notes) -> np.ndarray:
    try:
        flat = list(map(float, chain.from_iterable(rows)))
        if not any(b"_" in f for f in chain.from_iterable(rows)):  # float() takes 1_000, SWC does not
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
                        f"{path}: line {numbers[k]}: expected a number in column {column + 1}, found {_show(text)}; "
                        "put the line right or mark it as a comment with '#'"
                    ) from None
                table[k, column] = np.nan
    return table


def _to_names(
    path: Path, values: np.ndarray, rows: list[list[bytes]], column: int, numbers: list[int], notes: _Notes
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
            f"{path}: line {numbers[at]}: expected a whole number as {name}, found {_show(rows[at][column])}"
        )
    large = np.abs(values) >= 2.0**53
    names = np.where(large, 0.0, values).astype(np.int64)
    for at in np.flatnonzero(large):  # such ids exist (64-bit hashes) and floats cannot tell them apart
        text = rows[at][column]
        if len(text) > 20 or not _WHOLE.fullmatch(text) or abs(int(text)) >= 2**63:
            raise NeurinoError(
                f"{path}: line {numbers[at]}: the {name} {_show(text)} is too large; expected a 64-bit whole number"
            )
        names[at] = int(text)
    return names


def _to_types(values: np.ndarray, numbers: list[int], notes: _Notes) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        bad = ~((np.floor(values) == values) & (np.abs(values) < 2.0**31))
    if bad.any():
        at = int(np.argmax(bad))
        notes.once(numbers[at], "a type that is not a whole number", "set to 0 (undefined)")
    return np.where(bad, 0.0, values).astype(np.int64)
