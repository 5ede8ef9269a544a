"""Converting one case: image, label, side-cars, picture and record, each written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_neurino.conversion.blocks import Box, block_boxes
from nnunet_neurino.conversion.label import mask_label, traced_label
from nnunet_neurino.conversion.picture import CasePicture
from nnunet_neurino.conversion.settings import Case, ConvertSettings
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import atomic_path, write_json
from nnunet_neurino.images import read_stack, write_tiff
from nnunet_neurino.images.stack import Spacing

#: Sub-folder of the data set with a record and a picture for each case.
RECORDS = "conversion"
# float32, in which nnU-Net works, counts without gaps up to here.
_EXACT = 2**24
# A label of fewer voxels is no neuron's.
_LEAST_DRAWN = 20
_KEPT_TYPES = ("uint8", "uint16", "int16", "float32")


class CannotWrite(NeurinoError):
    """The output cannot be written (disk full, no permission): going on with other cases is no use."""


@dataclass(frozen=True)
class _Image:
    channels: np.ndarray
    spacing: Spacing
    findings: list[str]


def convert_case(case: Case, settings: ConvertSettings, folder: Path) -> dict[str, Any]:
    """Convert one case into the data set ``folder`` and return its record, which is written last.

    A case that cannot be converted gives a record with ``"refused"``, the reason in one line.

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
    return refusal(case, reason)


def refusal(case: Case, reason: str) -> dict[str, Any]:
    """The record of a case that was not converted."""
    return {"case": case.name, "images": [str(p) for p in case.images], "refused": " ".join(reason.split())}


def _convert(case: Case, settings: ConvertSettings, folder: Path) -> dict[str, Any]:
    image = _read_images(case, settings)
    shape: tuple[int, ...] = image.channels.shape[1:]
    depth = min(shape[0], settings.block[0]) if settings.block is not None and not case.test else shape[0]
    if settings.file_format == "tiff" and depth < 2:
        raise NeurinoError(f"{case.images[0]}: one slice only; nnU-Net's TIFF reader needs two: use --format nifti")
    record: dict[str, Any] = {
        "case": case.name,
        "set": "test" if case.test else "train",
        "specimen": case.specimen,
        "images": [str(p) for p in case.images],
        "inputs": [_fingerprint(p) for p in (*case.images, case.tracing, case.mask) if p is not None],
        "shape": list(shape),
        "channels": len(image.channels),
        "type": str(image.channels.dtype),
        "spacing": list(image.spacing),
        "image_findings": image.findings,
    }
    label: Callable[[Box], np.ndarray] | None = None
    if case.tracing is not None:
        label, about = traced_label(case.tracing, image.channels, image.spacing, settings)
        record |= about
    elif case.mask is not None:
        label, about = mask_label(case.mask, shape, settings.axes)
        record |= about

    picture = CasePicture(image.channels[0], image.spacing)
    boxes = [_whole(shape)]
    if settings.block is not None and not case.test:
        boxes = list(block_boxes(shape, settings.block, settings.overlap))
    record |= _write_parts(case, settings, folder, image, label, boxes, picture)
    with _writing(folder):
        picture.save(folder / RECORDS / f"{case.name}.png")
        write_json(folder / RECORDS / f"{case.name}.json", record)
    return record


def _write_parts(
    case: Case,
    settings: ConvertSettings,
    folder: Path,
    image: _Image,
    label: Callable[[Box], np.ndarray] | None,
    boxes: list[Box],
    picture: CasePicture,
) -> dict[str, Any]:
    """Write the volume, or its blocks, with their labels; say what was written."""
    written, foreground, drawn, dropped = [], [], 0, 0
    where = "Ts" if case.test else "Tr"
    is_block = settings.block is not None and not case.test
    pending = []
    for box in boxes:
        mask = label(box) if label is not None else None
        share = float(mask.mean()) if mask is not None else 0.0
        if mask is not None:
            picture.add(mask, box)
            drawn += int(mask.sum())
            if is_block and (share < settings.min_foreground or (share == 0 and not settings.allow_empty)):
                dropped += 1
                continue
        name = case.name if not is_block else case.name + "_z{}y{}x{}".format(*(s.start for s in box))
        pending.append((name, box, mask if len(boxes) == 1 else None))
        foreground.append(share)
    if label is not None and drawn < _LEAST_DRAWN and not settings.allow_empty:
        size = f"has {drawn} voxels only" if drawn else "is empty, no voxel of the image is foreground"
        raise NeurinoError(
            f"{case.tracing or case.mask}: the label {size}; check that it "
            "belongs to the image (--allow-empty keeps such cases)"
        )
    if not pending:
        raise NeurinoError(
            f"{case.images[0]}: none of its {len(boxes)} blocks holds the least share of foreground "
            f"({settings.min_foreground:g}); lower --min-foreground"
        )
    for name, box, mask in pending:
        if label is not None and mask is None:
            mask = label(box)
        with _writing(folder):
            for c, channel in enumerate(image.channels):
                _save(folder / f"images{where}" / f"{name}_{c:04d}{settings.ending}", channel[box], image.spacing)
            if mask is not None:
                # Labels of test cases, where they are known, lie where nnU-Net looks for none.
                _save(folder / f"labels{where}" / f"{name}{settings.ending}", mask.view(np.uint8), image.spacing)
            if settings.file_format == "tiff":
                for kind in ("images", "labels") if mask is not None else ("images",):
                    write_json(folder / f"{kind}{where}" / f"{name}.json", {"spacing": list(image.spacing)})
        written.append(name)
    about: dict[str, Any] = {"written": written}
    if label is not None:
        about["foreground"] = [round(share, 8) for share in foreground]
    if dropped:
        about["blocks_dropped"] = dropped
    return about


def _read_images(case: Case, settings: ConvertSettings) -> _Image:
    parts: list[np.ndarray] = []
    findings: list[str] = []
    spacing = settings.spacing
    for path in case.images:
        stack = read_stack(path, settings.axes, settings.channel, settings.spacing, time=settings.time)
        findings += [str(f) for f in stack.findings]
        if stack.spacing is None:
            raise NeurinoError(
                f"{path}: the file does not say its voxel size; give it with --spacing Z Y X (micrometres; 1 1 1 if "
                "nobody knows)"
            )
        if spacing is None:
            spacing = stack.spacing
        elif spacing != stack.spacing:
            raise NeurinoError(f"{path}: voxel size {stack.spacing}, but {case.images[0].name} has {spacing}")
        if parts and stack.shape != parts[0].shape[1:]:
            raise NeurinoError(f"{path}: {stack.shape} voxels (z y x), but {case.images[0].name} has another shape")
        parts.append(stack.channels)
    if spacing is None:
        raise NeurinoError(f"case {case.name}: no image")
    channels = parts[0] if len(parts) == 1 else np.concatenate(parts)
    for i, channel in enumerate(channels):
        check_values(channel, case.images[min(i, len(case.images) - 1)])
    if channels.dtype.name not in _KEPT_TYPES:
        target = {"bool": np.uint8, "int8": np.int16}.get(channels.dtype.name, np.float32)
        largest = max(abs(float(channels.min())), abs(float(channels.max())))
        if channels.dtype.kind in "ui" and largest > _EXACT:
            findings.append(f"{channels.dtype} values above {_EXACT:,} -> rounded to float32")
        if largest > float(np.finfo(np.float32).max):
            raise NeurinoError(f"{case.images[0]}: values up to {largest:g} are beyond float32; divide them")
        channels = channels.astype(target)
    return _Image(channels, spacing, list(dict.fromkeys(findings)))


def check_values(channel: np.ndarray, path: Path) -> None:
    """Refuse NaN, infinity and images of one value, slice by slice."""
    low, high = np.inf, -np.inf
    for z, plane in enumerate(channel):
        if plane.dtype.kind == "f" and not np.isfinite(plane).all():
            y, x = np.argwhere(~np.isfinite(plane))[0]
            raise NeurinoError(f"{path}: voxel z {z}, y {y}, x {x} is {plane[y, x]}; replace NaN and infinity")
        low, high = min(low, plane.min()), max(high, plane.max())
    if low == high:
        raise NeurinoError(f"{path}: every voxel is {low}: an empty image; save or download it again")


def _save(path: Path, array: np.ndarray, spacing: Spacing) -> None:
    if path.name.endswith(".tif"):
        write_tiff(path, array, spacing)
        return
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
    image.SetSpacing(spacing[::-1])
    with atomic_path(path) as unfinished:
        try:
            SimpleITK.WriteImage(image, str(unfinished), useCompression=True)
        except RuntimeError as error:
            raise OSError(None, str(error).strip().splitlines()[-1], str(path)) from None


class _writing:
    """Turn any failure to write into :class:`CannotWrite`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise CannotWrite(
                f"{self.folder}: cannot write ({reason}); what is there is whole: make room or give write "
                "permission, then run the same command again and it goes on"
            ) from None


def _fingerprint(path: Path) -> dict[str, Any]:
    """What tells whether an input has changed since."""
    stat = os.stat(path)
    return {"path": str(path), "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def _whole(shape: tuple[int, ...]) -> Box:
    return tuple(slice(0, n) for n in shape)  # type: ignore[return-value]


def is_done(case: Case, settings: ConvertSettings, folder: Path) -> dict[str, Any] | None:
    """The record of an earlier run, when its inputs are unchanged and all it wrote is there."""
    import json

    try:
        record: dict[str, Any] = json.loads((folder / RECORDS / f"{case.name}.json").read_text(encoding="utf-8"))
        sources = [p for p in (*case.images, case.tracing, case.mask) if p is not None]
        if record["inputs"] != [_fingerprint(p) for p in sources] or record["specimen"] != case.specimen:
            return None
        where = "Ts" if record["set"] == "test" else "Tr"
        if (record["set"] == "test") != case.test:
            return None
        files = [folder / RECORDS / f"{case.name}.png"]
        for name in record["written"]:
            files += [folder / f"images{where}" / f"{name}_{c:04d}{settings.ending}" for c in range(record["channels"])]
            kinds = ("images", "labels") if "foreground" in record else ("images",)
            files += [folder / f"labels{where}" / f"{name}{settings.ending}" for _ in kinds[1:]]
            if settings.file_format == "tiff":
                files += [folder / f"{kind}{where}" / f"{name}.json" for kind in kinds]
        return record if all(f.is_file() for f in files) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
