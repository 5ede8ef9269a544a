"""The lines of a foreign text file, block by block, with bounded memory; what is no such file is refused early."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import foreign_kind
from nnunet_neurino.findings import Finding

#: Larger files are refused before they are read.
MAX_BYTES = 512 * 2**20
MAX_LINE_BYTES = 2**16
_BLOCK_BYTES = 2**22


class Notes:
    """Findings while parsing; those about the manner of writing are listed once, at the first line."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.header = False  # a line of column names has been met
        self._told: set[str] = set()

    def once(self, line: int, what: str, mended: str = "") -> None:
        """Add a finding unless the same was found in an earlier line."""
        if what not in self._told:
            self._told.add(what)
            self.findings.append(Finding(line, what, mended))


def open_text(path: Path) -> BinaryIO:
    """Open ``path`` unless it is no ordinary file or too large."""
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


def blocks_of_lines(file: BinaryIO, path: Path, notes: Notes) -> Iterator[tuple[int, list[bytes]]]:
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
            kind = "gzip-compressed; unpack it first (gunzip)" if data[:2] == b"\x1f\x8b" else foreign_kind(data[:512])
            if kind:
                raise NeurinoError(f"{path}: is {kind}")
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
                refuse_long_line(path, line + len(text.splitlines()))
        if text:
            lines = text.splitlines()
            yield line, lines
            line += len(lines)
        if ended:
            return


def refuse_long_line(path: Path, line: int) -> NoReturn:
    """Raise for a line that no SWC file has."""
    raise NeurinoError(f"{path}: line {line} is longer than {MAX_LINE_BYTES} bytes; expected an SWC text file")


def show(text: bytes) -> str:
    """Foreign text, short and printable on one line."""
    short = text if len(text) <= 60 else text[:57] + b"..."
    return repr(short.decode("ascii", errors="backslashreplace"))
