"""One HTML page with everything in it: no server, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nnunet_neurino import __version__
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import write_text

_PNG = b"\x89PNG\r\n\x1a\n"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #111; background: #fff; margin: 0 auto; padding: 1.5rem;
  max-width: 1120px; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; border-bottom: 1px solid #bbb; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number, th.number { text-align: right; }
thead th { border-bottom: 2px solid #555; }
figure { margin: 1rem 0 1.5rem; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #333; margin-top: .4rem; max-width: 80ch; }
nav { columns: 3; margin: 1rem 0; }
pre { background: #f3f3f3; padding: .7rem 1rem; overflow-x: auto; }
footer { margin-top: 3rem; color: #555; font-size: .85rem; }
"""


class Page:
    """A page that is written top to bottom. All text is escaped; figures become PNG inside the page.

    Args:
        title: heading and title of the window.

    Examples:
        >>> page = Page("Scores & pictures")
        >>> page.text("F1 on one case.").table([{"case": "a", "F1": 0.91}])
        Page('Scores & pictures', 2 parts)
        >>> "Scores &amp; pictures" in page.html()
        True
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []
        self._headings: list[str] = []

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {len(self._parts)} parts)"

    def heading(self, text: str) -> Page:
        """Start a section; pages of four and more sections get a list of them at the top."""
        self._headings.append(text)
        self._parts.append(f'<h2 id="s{len(self._headings)}">{html.escape(text)}</h2>')
        return self

    def text(self, text: str) -> Page:
        """A paragraph; an empty line starts another."""
        for paragraph in text.split("\n\n"):
            self._parts.append(f"<p>{html.escape(paragraph.strip())}</p>")
        return self

    def code(self, text: str) -> Page:
        """Commands or other text whose lines and blanks matter."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")
        return self

    def table(self, rows: Sequence[Mapping[str, Any]] | Sequence[Sequence[Any]], caption: str = "") -> Page:
        """A table: mappings from column to value, or sequences of which the first is the heading.

        Floats are written with four significant digits, ``None`` and NaN as a dash.
        """
        if not rows:
            return self.text("(no rows)")
        mappings = [row for row in rows if isinstance(row, Mapping)]
        if len(mappings) == len(rows):
            columns = list(dict.fromkeys(key for row in mappings for key in row))
            body = [[row.get(key) for key in columns] for row in mappings]
        else:
            columns, body = list(rows[0]), [list(row) for row in rows[1:]]
        numeric = [
            all(_is_number(row[at]) for row in body if at < len(row)) and bool(body) for at in range(len(columns))
        ]

        def cells(tag: str, values: Sequence[Any]) -> str:
            return "".join(
                f"<{tag}{' class=number' if right else ''}>{html.escape(_cell(value))}</{tag}>"
                for value, right in zip(values, numeric, strict=False)
            )

        lines = [f"<tr>{cells('td', row)}</tr>" for row in body]
        title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        self._parts.append(
            f"<table>{title}<thead><tr>{cells('th', columns)}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        )
        return self

    def figure(self, picture: Figure | bytes, caption: str = "") -> Page:
        """A matplotlib figure or the bytes of a PNG file, with a caption that also serves as its alt text."""
        data = png_bytes(picture)
        encoded = base64.b64encode(data).decode("ascii")
        text = html.escape(caption)
        # The width that PNG names is that at 100 %.
        width = int.from_bytes(data[16:20], "big")
        self._parts.append(
            f'<figure><img width="{width}" alt="{text}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>{text}</figcaption></figure>"
        )
        return self

    def html(self) -> str:
        """The whole page."""
        contents = ""
        if len(self._headings) > 3:
            links = (f'<a href="#s{n}">{html.escape(text)}</a><br>' for n, text in enumerate(self._headings, start=1))
            contents = f"<nav>{''.join(links)}</nav>"
        title = html.escape(self.title)
        parts = "\n".join(self._parts)
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>{title}</h1>{contents}\n{parts}\n"
            f"<footer>Made by nnunet_neurino {html.escape(__version__)}</footer></body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, whole or not at all, and return its path."""
        write_text(path, self.html())
        return Path(path)


def png_bytes(picture: Figure | bytes) -> bytes:
    """A picture as the bytes of a PNG file."""
    if isinstance(picture, Figure):
        buffer = io.BytesIO()
        # Without the metadata that names the library's version, equal figures give equal bytes.
        picture.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()
    if not picture.startswith(_PNG):
        raise NeurinoError("expected a PNG picture: give a figure, or the bytes of a PNG file")
    return picture


def _is_number(value: Any) -> bool:
    """Whether a cell is set to the right: numbers, numbers written as text, and dashes for missing ones."""
    if isinstance(value, str):
        return re.fullmatch(r"[-+]?\d+(\.\d+)?( ?%)?|-", value) is not None
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) or hasattr(value, "dtype")


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "\N{EN DASH}"
    if hasattr(value, "item"):
        value = value.item()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
