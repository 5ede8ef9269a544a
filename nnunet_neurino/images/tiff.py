"""TIFF stacks: ImageJ, OME, LSM, BigTIFF, palette, 1-bit, any compression imagecodecs knows."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.images.stack import Raw, check_size
from nnunet_neurino.images.tiff_spacing import stored_spacing

# What the library says where a page does not lead to the next one.
_BROKEN_CHAIN = ("page offset", "circular reference", "IFD")


def read_tiff(path: Path, max_bytes: int | None = None, allow_damaged: bool = False) -> Raw:
    """Read the (largest) image of a TIFF file; uncompressed contiguous data are mapped, not read.

    Raises:
        NeurinoError: the file is damaged (and that is not allowed), cut short, holds several images, or does not fit
            into memory.
    """
    with _warnings() as warnings:
        try:
            with tifffile.TiffFile(path) as tif:
                try:
                    raw = _whole(path, tif, max_bytes)
                    broken = next((text for text in warnings if any(sign in text for sign in _BROKEN_CHAIN)), None)
                except (NeurinoError, KeyboardInterrupt):
                    raise
                except (Exception, RecursionError) as error:  # damaged files raise whatever the decoder meets
                    broken = _one_line(error)
                if broken:
                    raw = _what_is_left(path, tif, broken, max_bytes, allow_damaged)
        except (NeurinoError, KeyboardInterrupt):
            raise
        except (Exception, RecursionError) as error:
            raise _unreadable(path, error) from None
    more = [Finding(0, f"the TIFF library says: {text}") for text in dict.fromkeys(warnings[:3])]
    return replace(raw, findings=(*raw.findings, *more))


def _whole(path: Path, tif: tifffile.TiffFile, max_bytes: int | None) -> Raw:
    series, findings = _choose_series(path, tif)
    _check_complete(path, tif, series)
    spacing, more = stored_spacing(tif)
    findings += more + _meaning_of_values(series.keyframe)
    return Raw(_voxels(path, tif, series, max_bytes), series.axes, spacing, tuple(findings))


def _what_is_left(path: Path, tif: tifffile.TiffFile, why: str, max_bytes: int | None, allowed: bool) -> Raw:
    """The pages that can be read of a file whose pages do not all lead to the next one, and 0 for the others."""
    pages: list[tifffile.TiffPage | tifffile.TiffFrame] = []
    with contextlib.suppress(Exception):
        for page in tif.pages:
            if pages and (page.shape, page.dtype) != (pages[0].shape, pages[0].dtype):
                break
            pages.append(page)
    if len(pages) < 2:
        raise _unreadable(path, why)
    shape = (max(len(pages), _pages_promised(tif)), *pages[0].shape)
    check_size(path, shape, np.dtype(pages[0].dtype).itemsize, max_bytes)
    voxels, n_read = np.zeros(shape, pages[0].dtype), 0
    for page, voxels_of_page in zip(pages, voxels, strict=False):
        with contextlib.suppress(Exception):
            voxels_of_page[...] = page.asarray()
            n_read += 1
    if not n_read:
        raise _unreadable(path, why)
    wrong = (len(voxels) - n_read) * pages[0].size
    what = (
        f"its chain of pages is broken ({why}): {wrong:,} of {voxels.size:,} voxels are lost, and slices behind a gap "
        "may be out of place"
    )
    if not allowed:
        raise NeurinoError(f"{path}: {what}; copy it again, or take it as it is: neurino convert --allow-damaged")
    spacing, findings = stored_spacing(tif)
    return Raw(voxels, "Z" + pages[0].axes, spacing, (*findings, Finding(0, what, f"{n_read} slices taken, else 0")))


def _pages_promised(tif: tifffile.TiffFile) -> int:
    """The number of pages that the file's description tells of; 0 where it does not say."""
    if tif.is_imagej:
        return int((tif.imagej_metadata or {}).get("images", 0))
    if tif.is_shaped:
        return math.prod(next(iter(tif.shaped_metadata or ()), {}).get("shape", (0,))[:-2])
    return 0


def _unreadable(path: Path, why: object) -> NeurinoError:
    return NeurinoError(f"{path}: not a readable TIFF ({_one_line(why)}); open it in Fiji and save it again")


def _voxels(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, max_bytes: int | None) -> np.ndarray:
    dtype = np.dtype(series.dtype)
    if dtype.kind not in "buif":
        raise NeurinoError(f"{path}: voxels of type {dtype}, expected whole numbers or floats; convert it in Fiji")
    if series.dataoffset is not None and series.keyframe.is_memmappable and dtype.kind != "b":
        stored = dtype.newbyteorder(tif.byteorder)
        if series.dataoffset + series.size * dtype.itemsize > tif.filehandle.size:
            raise _cut_short(path, series.dataoffset + series.size * dtype.itemsize, tif.filehandle.size)
        return np.memmap(path, dtype=stored, mode="r", offset=series.dataoffset, shape=series.shape)
    check_size(path, series.shape, dtype.itemsize, max_bytes)
    voxels = series.asarray(maxworkers=1)
    if voxels.shape != tuple(series.shape):
        voxels = voxels.reshape(series.shape)
    return voxels.view(np.uint8) if voxels.dtype.kind == "b" else voxels


def _choose_series(path: Path, tif: tifffile.TiffFile) -> tuple[tifffile.TiffPageSeries, list[Finding]]:
    everything = list(tif.series)
    if not everything:
        raise NeurinoError(f"{path}: the TIFF file holds no image")
    sizes = [int(s.size) for s in everything]
    largest = int(np.argmax(sizes))
    rest = [s for i, s in enumerate(everything) if i != largest]
    if not rest:
        return everything[0], []
    if any(s.size * 4 > sizes[largest] for s in rest):
        shapes = ", ".join("x".join(map(str, s.shape)) for s in everything[:4])
        raise NeurinoError(
            f"{path}: the file holds {len(everything)} images ({shapes}{', ...' if len(everything) > 4 else ''}), "
            "one stack was expected; save the one you mean on its own"
        )
    previews = ", ".join("x".join(map(str, s.shape)) for s in rest[:4]) + ", ..." * (len(rest) > 4)
    what = f"the file holds {len(everything)} images: beside the largest {previews}"
    return everything[largest], [Finding(0, what, "the largest is taken, the others look like previews")]


def _check_complete(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    size = tif.filehandle.size
    if series.kind == "imagej" and len(series.pages) == 1 and series.dataoffset is not None:
        return  # one directory for all slices: checked where the data are mapped
    for page in series.pages:
        if page is None:
            raise NeurinoError(f"{path}: some slices are missing from the file (or from its companion files)")
        end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)), default=0)
        if end > size:
            raise _cut_short(path, end, size)


def _cut_short(path: Path, expected: int, found: int) -> NeurinoError:
    return NeurinoError(
        f"{path}: cut short: its header promises {expected:,} bytes, the file has {found:,}; copy or download it again"
    )


def _meaning_of_values(page: tifffile.TiffPage) -> list[Finding]:
    """Say how values are taken that a viewer would not show as brightness."""
    if page.photometric == 3:
        return [Finding(0, "a palette image", "the stored values are taken, the colour table is ignored")]
    if page.photometric == 0:
        return [Finding(0, "stored with 0 as white (MINISWHITE)", "the stored values are taken, not inverted")]
    return []


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what tifffile would print."""
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(_one_line(record.getMessage()))

    logger = logging.getLogger("tifffile")
    before, handler = logger.propagate, Collect(logging.WARNING)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.propagate = before
        logger.removeHandler(handler)


def _one_line(message: object, limit: int = 160) -> str:
    text = " ".join(str(message).split()) or type(message).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."
