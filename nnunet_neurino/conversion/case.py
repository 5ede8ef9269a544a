"""Converting one case: image, label, spacing files, picture and record, each written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_neurino.conversion.blocks import Box, block_boxes
from nnunet_neurino.conversion.label import mask_label, traced_label
from nnunet_neurino.conversion.picture import CasePicture
from nnunet_neurino.conversion.reading import Channels, read_channels
from nnunet_neurino.conversion.record import Record, Refusal, fingerprints
from nnunet_neurino.conversion.settings import Case, ConvertSettings
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import write_json
from nnunet_neurino.images import write_nifti, write_tiff

#: Draws or cuts the label (bool, z y x) of a part of the image.
Label = Callable[[Box], np.ndarray]
# A label of fewer voxels is no neuron's.
_LEAST_DRAWN = 20


class CannotWrite(NeurinoError):
    """The output cannot be written (disk full, no permission): going on with other cases is no use."""


@dataclass(frozen=True)
class _Part:
    """What becomes a training or test image of its own: the whole volume or a block of it."""

    name: str  # nnU-Net's identifier
    box: Box  # where in the volume
    foreground: float  # share of foreground voxels
    mask: np.ndarray | None  # the label, where it need not be drawn once more


def convert_case(case: Case, settings: ConvertSettings, folder: Path) -> Record | Refusal:
    """Convert one case into the data set ``folder`` and return its record, which is written last.

    Raises:
        CannotWrite: the output folder takes no more data.
    """
    try:
        if case.problem:
            raise NeurinoError(case.problem)
        return _convert(case, settings, folder)
    except CannotWrite:
        raise
    except NeurinoError as error:
        reason = str(error)
    except MemoryError:
        reason = f"{case.images[0]}: not enough memory; use fewer --workers, or --block"
    except OSError as error:
        reason = f"{error.filename or case.images[0]}: {error.strerror or error}"
    return Refusal.of(case, reason)


def _convert(case: Case, settings: ConvertSettings, folder: Path) -> Record:
    image = read_channels(case, settings)
    shape: tuple[int, ...] = image.voxels.shape[1:]
    depth = shape[0] if settings.block is None or case.test else min(shape[0], settings.block[0])
    if settings.file_format == "tiff" and depth < 2:
        raise NeurinoError(f"{case.images[0]}: one slice only; nnU-Net's TIFF reader needs two: use --format nifti")
    label: Label | None = None
    about: dict[str, Any] = {}
    if case.tracing is not None:
        label, about = traced_label(case.tracing, image.voxels, image.spacing, settings)
    elif case.mask is not None:
        label, about = mask_label(case.mask, shape, settings)
    picture = CasePicture(image.voxels[0], image.spacing)
    parts, n_dropped = _choose_parts(case, settings, shape, label, picture)
    record = Record(
        folder=folder,
        ending=settings.ending,
        case=case.name,
        set="test" if case.test else "train",
        specimen=case.specimen,
        images=[str(p) for p in case.images],
        inputs=fingerprints(case),
        shape=list(shape),
        channels=len(image.voxels),
        type=str(image.voxels.dtype),
        spacing=list(image.spacing),
        image_findings=image.findings,
        **about,
        written=[part.name for part in parts],
        foreground=None if label is None else [round(part.foreground, 8) for part in parts],
        blocks_dropped=n_dropped or None,
    )
    with _writing(folder):
        for part in parts:
            _write_part(part, record, image, label)
        picture.save(record.picture)
        record.write()
    return record


def _choose_parts(
    case: Case, settings: ConvertSettings, shape: Sequence[int], label: Label | None, picture: CasePicture
) -> tuple[list[_Part], int]:
    """The whole volume, or the blocks with enough foreground and the number of the others.

    The picture gets the label of all of them.
    """
    if label is None:
        return [_Part(case.name, next(block_boxes(shape, shape)), 0.0, None)], 0
    block = None if case.test else settings.block  # test cases are predicted whole
    boxes = list(block_boxes(shape, block or shape, settings.overlap if block else (0, 0, 0)))
    parts, drawn = [], 0
    for box in boxes:
        mask = label(box)
        share = float(mask.mean())
        picture.add(mask, box)
        drawn += int(mask.sum())
        if block and (share < settings.min_foreground or (share == 0 and not settings.allow_empty)):
            continue
        name = case.name + ("_z{}y{}x{}".format(*(s.start for s in box)) if block else "")
        parts.append(_Part(name, box, share, mask if len(boxes) == 1 else None))
    if drawn < _LEAST_DRAWN and not settings.allow_empty:
        size = f"has {drawn} voxels only" if drawn else "is empty, no voxel of the image is foreground"
        raise NeurinoError(
            f"{case.tracing or case.mask}: the label {size}; check that it "
            "belongs to the image (--allow-empty keeps such cases)"
        )
    if not parts:
        raise NeurinoError(
            f"{case.images[0]}: none of its {len(boxes)} blocks holds the least share of foreground "
            f"({settings.min_foreground:g}); lower --min-foreground"
        )
    return parts, len(boxes) - len(parts)


def _write_part(part: _Part, record: Record, image: Channels, label: Label | None) -> None:
    """Write image, label and spacing of a part. The labels of test cases are put where nnU-Net does not look."""
    write = write_tiff if record.ending == ".tif" else write_nifti
    for path, channel in zip(record.image_files(part.name), image.voxels, strict=True):
        write(path, channel[part.box], image.spacing)
    if label is not None:
        mask = label(part.box) if part.mask is None else part.mask
        write(record.label_file(part.name), mask.view(np.uint8), image.spacing)
    if record.ending == ".tif":
        for kind in record.kinds:
            write_json(record.spacing_file(part.name, kind), {"spacing": list(image.spacing)})


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn any failure to write into :class:`CannotWrite`."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"{folder}: cannot write ({error.strerror or error}); what is there is whole: make room or give write "
            "permission, then run the same command again and it goes on"
        ) from None
