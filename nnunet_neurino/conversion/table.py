"""Which tracing (or mask) belongs to which image: by a table."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

from nnunet_neurino.conversion.names import case_name, stem_of
from nnunet_neurino.conversion.pairing import refuse_duplicates
from nnunet_neurino.conversion.settings import Case
from nnunet_neurino.errors import NeurinoError

_COLUMNS = ("case", "image", "tracing", "mask", "specimen", "set")


def read_pairs(table: Path) -> list[Case]:
    """Read cases from a CSV file with a header.

    Columns: image (needed; several channels separated by ";"), tracing or mask (empty for test cases), case,
    specimen, set ("train" or "test"). Paths count from the table's folder. Rows without any content are skipped.
    """
    rows = _rows(table)
    if not rows:
        raise NeurinoError(f"{table}: no rows below the header")
    return refuse_duplicates(_shared_tracings([_case(table, line, row) for line, row in rows]))


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Line and cells by lower-case column of every row; cells beyond the header have the key ""."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        if any("\0" in cell for _, cells in lines for cell in cells):
            raise csv.Error("it holds NUL bytes")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise NeurinoError(f"{table}: cannot be read as CSV ({error}); save it as UTF-8 with commas") from None
    if "image" not in header or set(header) - set(_COLUMNS):
        raise NeurinoError(
            f"{table}: columns {', '.join(header) or 'none'}; expected image and any of "
            f"{', '.join(c for c in _COLUMNS if c != 'image')}, separated by commas"
        )
    if len(set(header)) < len(header):
        raise NeurinoError(f"{table}: columns {', '.join(header)}; expected each once")
    return [
        (line, {**dict(zip(header, cells, strict=False)), "": "".join(cells[len(header) :])})
        for line, cells in lines
        if any(cells)
    ]


def _case(table: Path, line: int, row: dict[str, str]) -> Case:
    images = tuple(table.parent / part.strip() for part in row["image"].split(";") if part.strip())
    tracing, mask, kind = row.get("tracing"), row.get("mask"), row.get("set", "")
    problem = ""
    if row[""]:
        problem = "more cells than columns; put names that hold a comma in quotes"
    elif not images:
        problem = "no image"
    elif tracing and mask:
        problem = "both a tracing and a mask; give one"
    elif kind not in ("", "train", "test"):
        problem = f"set {kind!r}; expected train or test"
    elif not (tracing or mask) and kind == "train":
        problem = "a training case without tracing or mask"
    return Case(
        case_name(row.get("case") or (stem_of(images[0]) if images else f"line{line}")),
        images,
        table.parent / tracing if tracing else None,
        table.parent / mask if mask else None,
        row.get("specimen", ""),
        kind == "test" or not (tracing or mask),
        f"{table}: line {line}: {problem}" if problem else "",
    )


def _shared_tracings(cases: list[Case]) -> list[Case]:
    counts = Counter(c.tracing or c.mask for c in cases)
    return [
        replace(c, problem=f"{c.tracing or c.mask}: given to {counts[c.tracing or c.mask]} images in the table")
        if (c.tracing or c.mask) and counts[c.tracing or c.mask] > 1 and not c.problem
        else c
        for c in cases
    ]
