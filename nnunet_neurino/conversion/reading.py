"""The images of a case as one array of channels, with values that nnU-Net can work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_neurino.conversion.settings import Case, ConvertSettings
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import read_stack
from nnunet_neurino.images.stack import Spacing

# float32, in which nnU-Net works, counts without gaps up to here.
_EXACT = 2**24
_KEPT_TYPES = ("uint8", "uint16", "int16", "float32")


@dataclass(frozen=True)
class Channels:
    """The image of a case."""

    voxels: np.ndarray  # (c, z, y, x), of a type that is written as it is
    spacing: Spacing  # voxel size (z, y, x) in micrometres
    findings: list[str]  # what was odd in the files


def read_channels(case: Case, settings: ConvertSettings) -> Channels:
    """Read all images of ``case``; refuse files that do not belong together and values that are of no use."""
    parts: list[np.ndarray] = []
    findings: list[str] = []
    spacing = settings.spacing
    for path in case.images:
        stack = read_stack(
            path, settings.axes, settings.channel, settings.spacing, time=settings.time, **settings.reading
        )
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
    voxels = parts[0] if len(parts) == 1 else np.concatenate(parts)
    for i, channel in enumerate(voxels):
        check_values(channel, case.images[min(i, len(case.images) - 1)])
    voxels, more = _kept_type(voxels, case.images[0])
    return Channels(voxels, spacing, list(dict.fromkeys(findings + more)))


def _kept_type(voxels: np.ndarray, path: Path) -> tuple[np.ndarray, list[str]]:
    """The voxels in a type that nnU-Net's readers know, and a line where that costs precision."""
    if voxels.dtype.name in _KEPT_TYPES:
        return voxels, []
    largest = max(abs(float(voxels.min())), abs(float(voxels.max())))
    if largest > float(np.finfo(np.float32).max):
        raise NeurinoError(f"{path}: values up to {largest:g} are beyond float32; divide them")
    rounded = voxels.dtype.kind in "ui" and largest > _EXACT
    findings = [f"{voxels.dtype} values above {_EXACT:,} -> rounded to float32"] if rounded else []
    return voxels.astype({"bool": np.uint8, "int8": np.int16}.get(voxels.dtype.name, np.float32)), findings


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
