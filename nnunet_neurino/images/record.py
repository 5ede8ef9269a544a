"""The voxel size in the JSON file that nnU-Net keeps beside each TIFF stack, of images, labels and predictions."""

from __future__ import annotations

import json
import re
from pathlib import Path

from nnunet_neurino.images.read import SUFFIXES
from nnunet_neurino.images.stack import Spacing, is_size

CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's channel number at the end of an image's name


def stem_of(path: Path, endings: tuple[str, ...] = SUFFIXES) -> str:
    """The name of a file without its (longest) ending, such as ``.nii.gz``."""
    ending = max((e for e in endings if path.name.lower().endswith(e)), key=len, default="")
    return path.name[: len(path.name) - len(ending)]


def spacing_beside(path: Path) -> Spacing | None:
    """Voxel size (z, y, x) that ``case.json`` beside ``case.tif`` or ``case_0000.tif`` gives, or ``None``."""
    stem = stem_of(path)
    for name in dict.fromkeys((stem, CHANNEL.sub("", stem))):
        try:
            z, y, x = (float(v) for v in json.loads(path.with_name(f"{name}.json").read_text("utf-8"))["spacing"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if is_size((z, y, x)):
            return z, y, x
    return None
