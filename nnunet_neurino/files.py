"""Writing files so that a reader never meets a half-written one; telling what a file is that was taken for another."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_FOREIGN = (
    (b"version https://git-lfs", "a Git-LFS pointer instead of the file; run `git lfs pull` in its repository"),
    (b"<!doctype", "a web page: the download went wrong; get the raw file"),
    (b"<html", "a web page: the download went wrong; get the raw file"),
    (b"<?xml", "an XML file; export the tracing as SWC, the image as TIFF"),
    (b"pk\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x89hdf", "an HDF5 file (.h5, .ims, .nwb); save it as TIFF, for example with Fiji"),
    (b"zisraw", "a Zeiss CZI file; save it as OME-TIFF, for example with Fiji"),
)


def foreign_kind(head: bytes) -> str:
    """What a file is, with the remedy, that begins with ``head`` and can be neither tracing nor stack; else ""."""
    start = head.lstrip().lower()
    return next((what for magic, what in _FOREIGN if start.startswith(magic)), "")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the same folder; rename it to ``path`` on success, remove it on failure.

    The temporary name keeps all of the target's suffixes, for writers that choose a format by them. Missing parent
    folders are made.

    Examples:
        >>> import tempfile, pathlib
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "a" / "b.txt"
        >>> with atomic_path(target) as unfinished:
        ...     _ = unfinished.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".unfinished-", suffix="-" + target.name, dir=target.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        # mkstemp makes private files; give the result the permissions an ordinary open() would.
        umask = os.umask(0)
        os.umask(umask)
        unfinished.chmod(0o666 & ~umask)
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    with atomic_path(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` as indented JSON, whole or not at all; NaN is refused (write ``None``)."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
