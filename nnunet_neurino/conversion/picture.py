"""Pictures to look at: maximum projections of each case with the outline of its label, and sheets of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from nnunet_neurino.conversion.blocks import Box
from nnunet_neurino.files import atomic_path

# Longest side of a projection, pixels; smaller images are enlarged up to it by whole factors.
_SIDE = 320
_GAP = 4
_OUTLINE = (255, 64, 64)
_BACKGROUND = (24, 24, 28)
_INK, _WARNING = (235, 235, 235), (255, 170, 60)
#: Word in a caption that colours it: the stored orientation is not the best one.
BETTER = "BETTER"
_COLUMNS, _ROWS = 3, 8


class CasePicture:
    """Projections along z and along y, each beside the same with the label's outline."""

    def __init__(self, image: np.ndarray, spacing: Sequence[float]) -> None:
        """Project ``image`` (z, y, x), slice by slice."""
        self.spacing = tuple(float(s) for s in spacing)
        self.top = np.array(image[0], dtype=np.float32)
        self.side = np.empty((image.shape[0], image.shape[2]), dtype=np.float32)
        for z, plane in enumerate(image):
            np.maximum(self.top, plane, out=self.top, casting="unsafe")
            self.side[z] = plane.max(axis=0)
        self.top_label = np.zeros(self.top.shape, dtype=bool)
        self.side_label = np.zeros(self.side.shape, dtype=bool)

    def add(self, mask: np.ndarray, box: Box) -> None:
        """Add the part of the label in ``box``."""
        z, y, x = box
        self.top_label[y, x] |= mask.any(axis=0)
        self.side_label[z, x] |= mask.any(axis=1)

    def draw(self) -> Image.Image:
        """Make the picture: left the projections (top: along z, below: along y), right with the outline."""
        z, y, x = self.spacing
        finest = min(y, x)
        top, top_outline = _panel(self.top, self.top_label, y / finest, x / finest)
        # One scale for both panels: the x axis is the same.
        side, side_outline = _panel(self.side, self.side_label, z / finest, x / finest, width=top.width)
        size = (2 * top.width + _GAP, top.height + _GAP + side.height)
        sheet = Image.new("RGB", size, _BACKGROUND)
        for i, panels in enumerate(((top, side), (top_outline, side_outline))):
            sheet.paste(panels[0], (i * (top.width + _GAP), 0))
            sheet.paste(panels[1], (i * (top.width + _GAP), top.height + _GAP))
        return sheet

    def save(self, path: Path) -> None:
        """Write the picture as PNG."""
        with atomic_path(path) as unfinished:
            self.draw().save(unfinished, format="PNG")


def _panel(
    image: np.ndarray, label: np.ndarray, row_size: float, column_size: float, width: int | None = None
) -> tuple[Image.Image, Image.Image]:
    """A grey picture in true proportions, and the same with the label's outline."""
    rows, columns = image.shape[0] * row_size, image.shape[1] * column_size
    scale = _SIDE / max(rows, columns) if width is None else width / columns
    # A projection along y of a deep stack is kept to the same bound.
    size = (max(1, round(columns * scale)), max(1, min(2 * _SIDE, round(rows * scale))))
    low, high = np.percentile(image, (1, 99.8))
    high = high if high > low else float(image.max())
    grey = np.clip((image - low) / max(high - low, 1e-12), 0, 1) ** 0.7
    plain = _resized(grey, size)
    pixels = np.repeat((plain * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    outlined = pixels.copy()
    drawn = _resized(label.astype(np.float32), size) > 0
    outlined[drawn & ~ndimage.binary_erosion(drawn)] = _OUTLINE
    return Image.fromarray(pixels), Image.fromarray(outlined)


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to (columns, rows): nearest when enlarged, the maximum when reduced, so that thin lines stay."""
    for axis, n in enumerate(reversed(size)):
        old = image.shape[axis]
        if n >= old:
            image = np.take(image, np.minimum((np.arange(n) * old) // n, old - 1), axis=axis)
        else:
            image = np.maximum.reduceat(image, (np.arange(n) * old) // n, axis=axis)
    return image


def contact_sheets(pictures: Sequence[tuple[Path, str]], folder: Path) -> list[Path]:
    """Paste case pictures, each with a caption, into contact_sheet.png (contact_sheet_2.png, ...).

    Args:
        pictures: PNG files and their captions, in order.
        folder: where the sheets are written.

    Returns:
        The sheets' paths.
    """
    a_page = _COLUMNS * _ROWS
    n_pages = math.ceil(len(pictures) / a_page)
    paths = []
    for page in range(n_pages):
        path = folder / f"contact_sheet{'' if page == 0 else f'_{page + 1}'}.png"
        with atomic_path(path) as unfinished:
            _sheet(pictures[page * a_page : (page + 1) * a_page]).save(unfinished, format="PNG")
        paths.append(path)
    return paths


def _sheet(pictures: Sequence[tuple[Path, str]]) -> Image.Image:
    tiles = []
    for path, caption in pictures:
        with Image.open(path) as image:
            tiles.append((image.convert("RGB"), caption))
    columns = min(_COLUMNS, len(tiles))
    width, text = 2 * _SIDE + _GAP, 30
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(image.height for image, _ in row) + text + _GAP for row in rows]
    sheet = Image.new("RGB", (columns * (width + 2 * _GAP), sum(heights)), _BACKGROUND)
    draw, top = ImageDraw.Draw(sheet), 0
    for row, height in zip(rows, heights, strict=True):
        for column, (image, caption) in enumerate(row):
            left = column * (width + 2 * _GAP) + _GAP
            draw.text(
                (left, top + 2),
                caption.encode("ascii", "replace").decode(),
                fill=_WARNING if BETTER in caption else _INK,
            )
            sheet.paste(image, (left, top + text))
        top += height
    return sheet
