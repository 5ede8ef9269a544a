"""The page: self-contained, escaped, whole."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures import Page, png_bytes

EVIL = "<script>alert('x')</script> & \"quoted\""


class Reader(HTMLParser):
    """Collects tags, attributes and text; complains about tags that do not match."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words.append(data)


def small_figure() -> Figure:
    figure = Figure(figsize=(1.23, 0.5), dpi=100)
    figure.add_subplot().plot([0, 1])
    return figure


def full_page() -> Page:
    page = Page(EVIL)
    for number in range(5):
        page.heading(f"{EVIL} {number}")
    page.text(EVIL).code(EVIL).table([{EVIL: EVIL, "n": 1.0}], caption=EVIL).figure(small_figure(), EVIL)
    return page


def test_everything_is_escaped_and_well_formed() -> None:
    read = Reader(full_page().html())
    assert "script" not in [tag for tag, _ in read.tags]
    assert "".join(read.words).count(EVIL) >= 14
    (picture,) = [attributes for tag, attributes in read.tags if tag == "img"]
    assert picture["alt"] == EVIL


def test_nothing_is_fetched_from_anywhere() -> None:
    text = full_page().html()
    read = Reader(text)
    for tag, attributes in read.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#")), (tag, name)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"base64,[\w+/=]*", "", text))


def test_the_picture_comes_back_unchanged() -> None:
    read = Reader(full_page().html())
    (picture,) = [attributes for tag, attributes in read.tags if tag == "img"]
    data = base64.b64decode(picture["src"].partition(",")[2])
    assert data == png_bytes(small_figure())
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.size == (123, 50)
    assert picture["width"] == "123"


def test_links_of_the_contents_lead_to_headings() -> None:
    read = Reader(full_page().html())
    anchors = {attributes["href"] for tag, attributes in read.tags if tag == "a"}
    ids = {f"#{attributes['id']}" for tag, attributes in read.tags if tag == "h2"}
    assert len(anchors) == 5
    assert anchors == ids


def test_tables_from_mappings_and_from_rows() -> None:
    def cells(rows) -> list[str]:
        return re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", Page("t").table(rows).html())

    expected = ["case", "F1", "a", "0.9123", "b", "–"]  # noqa: RUF001
    assert cells([{"case": "a", "F1": 0.912345}, {"case": "b"}]) == expected
    assert cells([["case", "F1"], ["a", np.float32(0.9123)], ["b", float("nan")]]) == expected
    assert "(no rows)" in Page("t").table([]).html()
    for value in (1, 0.5, "0.912", "-", None, np.int64(3)):
        assert "<td class=number>" in Page("t").table([{"n": value}]).html()
    for value in ("case_1", "1.0.2", True, ""):
        assert "<td class=number>" not in Page("t").table([{"n": value}]).html()


def test_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "new" / "page.html"
    assert full_page().write(target) == target
    before = target.read_bytes()

    def disk_full(*_args, **_kwargs) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", disk_full)
    with pytest.raises(OSError, match="No space"):
        full_page().write(target)
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]


def test_a_picture_that_is_no_png_is_refused() -> None:
    with pytest.raises(NeurinoError, match="expected a PNG"):
        Page("t").figure(b"GIF89a")
