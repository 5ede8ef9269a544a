"""TIFF stacks: ImageJ, OME, LSM, BigTIFF, palette, 1-bit, any compression imagecodecs knows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.images.stack import Raw, check_size
from nnunet_neurino.images.tiff_spacing import stored_spacing


def read_tiff(path: Path, max_bytes: int | None = None) -> Raw:
    """Read the (largest) image of a TIFF file; uncompressed contiguous data are mapped, not read.

    Raises:
        NeurinoError: the file is damaged, cut short, holds several images, or does not fit into memory.
    """
    with _warnings() as warnings:
        try:
            with tifffile.TiffFile(path) as tif:
                series, findings = _choose_series(path, tif)
                _check_complete(path, tif, series)
                spacing, more = stored_spacing(tif, series)
                findings += more + _meaning_of_values(series.keyframe)
                voxels = _voxels(path, tif, series, max_bytes)
        except (NeurinoError, KeyboardInterrupt):
            raise
        except (Exception, RecursionError) as error:  # damaged files raise whatever the decoder meets
            raise NeurinoError(
                f"{path}: not a readable TIFF ({_one_line(error)}); open it in Fiji and save it again"
            ) from None
    findings += [Finding(0, f"the TIFF library says: {text}") for text in dict.fromkeys(warnings[:3])]
    return Raw(voxels, series.axes, spacing, tuple(findings))


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
    what = f"the file holds {len(everything)} images"
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
