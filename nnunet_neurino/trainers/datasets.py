"""nnU-Net's folders and data sets, with one clear line where something is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nnunet_neurino.errors import NeurinoError


def nnunet_folder(variable: str) -> Path:
    """The folder that ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results`` names."""
    value = os.environ.get(variable, "")
    if not value:
        raise NeurinoError(f"{variable} is not set; point it to a folder: export {variable}=/path/to/{variable}")
    return Path(value)


def dataset_name(name_or_id: str) -> str:
    """``Dataset007_Mouse`` for ``7``, ``"007"`` or its own name."""
    if name_or_id.startswith("Dataset"):
        number = name_or_id.removeprefix("Dataset")[:3]
    else:
        number = name_or_id
    if not number.isdigit():
        raise NeurinoError(f"data set {name_or_id!r}: give its number (7) or its name (Dataset007_Mouse)")
    folders = [nnunet_folder("nnUNet_raw"), nnunet_folder("nnUNet_preprocessed")]
    names = {path.name for folder in folders for path in folder.glob(f"Dataset{int(number):03d}_*") if path.is_dir()}
    if name_or_id.startswith("Dataset"):
        names &= {name_or_id}
    if len(names) != 1:
        places = " or ".join(map(str, folders))
        found = f"there are {', '.join(sorted(names))}" if names else "there is none"
        raise NeurinoError(f"data set {name_or_id}: {found} in {places}; make one with `neurino convert`")
    return names.pop()


def load_plans(name: str, plans_name: str) -> dict[str, Any]:
    """Contents of a plans file of a preprocessed data set."""
    path = nnunet_folder("nnUNet_preprocessed") / name / f"{plans_name}.json"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*lans*.json"))
        there = f"there are {', '.join(known)} (-p)" if known else "the data set has not been planned"
        number = int(name.removeprefix("Dataset")[:3])
        raise NeurinoError(f"{path} does not exist; {there}; plan and preprocess with: neurino plan -d {number}")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def load_dataset_json(name: str) -> dict[str, Any]:
    """Contents of ``dataset.json`` of a preprocessed data set."""
    path = nnunet_folder("nnUNet_preprocessed") / name / "dataset.json"
    if not path.is_file():
        raise NeurinoError(f"{path} does not exist; plan the data set first: neurino plan -d {name[7:10]}")
    return dict(json.loads(path.read_text(encoding="utf-8")))
