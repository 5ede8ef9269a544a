"""From files to cases: reads stacks and trees, thresholds probability maps, matches the files of folders by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures.case import CaseView
from nnunet_neurino.images import Stack, read_stack
from nnunet_neurino.images.foreground import foreground
from nnunet_neurino.images.read import SUFFIXES
from nnunet_neurino.images.record import CHANNEL, spacing_beside, stem_of
from nnunet_neurino.swc import Tree, read_swc
from nnunet_neurino.swc.read import SUFFIXES as TREE_SUFFIXES

ROLES = ("image", "truth", "prediction", "tree")

Spacing = tuple[float, float, float]


def load_case(
    name: str, files: Mapping[str, Path], spacing: Spacing | None = None, channel: int = 0, threshold: float = 0.5
) -> CaseView:
    """Read what there is of a case.

    Args:
        name: title of the case.
        files: paths by role: ``image``, ``truth`` (a mask or an SWC file), ``prediction`` (a mask, a probability map
            or an SWC file), ``tree`` (an SWC file).
        spacing: voxel size z, y, x in micrometres; default is what a file, or nnU-Net's file beside it, says.
        channel: which channel of an image with several.
        threshold: what counts as foreground in a probability map (0 to 1, or 0 to 255 in 8 bits).
    """
    stacks: dict[str, Stack] = {}
    trees: dict[str, Tree] = {}
    for role, path in files.items():
        if path.suffix.lower() in TREE_SUFFIXES:
            if role == "image":
                raise NeurinoError(f"{path}: expected an image stack, this is a tree: use --tree or --truth for it")
            trees[role] = read_swc(path, allow_empty=True)
        elif role == "tree":
            raise NeurinoError(f"{path}: expected an SWC file: use --prediction for a mask")
        else:
            stacks[role] = read_stack(path, spacing=spacing)
    if "tree" in trees and "prediction" in trees:
        raise NeurinoError(f"{name}: two predicted trees, {files['prediction']} and {files['tree']}: give one")
    told = {role: step for role in stacks if (step := stacks[role].spacing or spacing_beside(files[role])) is not None}
    if spacing is None and told:
        first, spacing = next(iter(told.items()))
        for role, step in told.items():
            if not np.allclose(step, spacing, rtol=0.01):
                raise NeurinoError(
                    f"{files[role]}: its voxel size is {_text(step)} (z y x, micrometres), that of {files[first]} is "
                    f"{_text(spacing)}: say which is right with --spacing Z Y X"
                )
    masks = {role: _mask(role, files[role], stacks[role], threshold) for role in stacks if role != "image"}
    return CaseView(
        name=name,
        image=_channel(files["image"], stacks["image"], channel) if "image" in stacks else None,
        truth=masks.get("truth"),
        prediction=masks.get("prediction"),
        truth_tree=trees.get("truth"),
        tree=trees.get("tree", trees.get("prediction")),
        spacing=spacing,
    )


def match_cases(sources: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """The files of each case by role; sources are all files (one case) or all folders (cases by name).

    nnU-Net's channel number at the end of an image's name (``case_0000.tif``) is not part of the case's name; four
    digits that number the cases are.
    """
    for path in sources.values():
        if not path.exists():
            raise NeurinoError(f"{path}: no such file or folder")
    folders = [role for role, path in sources.items() if path.is_dir()]
    if not folders:
        first = sources.get("image") or next(iter(sources.values()))
        return {case_name(first): dict(sources)}
    if len(folders) < len(sources):
        single = next(role for role in sources if role not in folders)
        raise NeurinoError(
            f"--{single} is a file and --{folders[0]} a folder ({sources[folders[0]]}): give files only or folders only"
        )
    found: dict[str, dict[str, Path]] = {}
    for role, folder in sources.items():
        paths = [path for path in sorted(folder.iterdir()) if _is_data(path, role)]
        if not paths:
            raise NeurinoError(f"{folder}: expected {'SWC files' if role == 'tree' else 'stacks'}, found none")
        for path in paths:
            found.setdefault(role, {}).setdefault(_stem(path), path)
    cases: dict[str, dict[str, Path]] = {}
    for role, files in found.items():
        others = {stem for other, stems in found.items() if other != role for stem in stems}
        for stem, path in files.items():
            cases.setdefault(_case_of(stem, others, set(files)), {}).setdefault(role, path)
    return {name: cases[name] for name in sorted(cases, key=_natural)}


def case_name(path: Path) -> str:
    """The name of a file without its ending and without nnU-Net's channel number."""
    return CHANNEL.sub("", _stem(path))


def _stem(path: Path) -> str:
    return stem_of(path, (*SUFFIXES, *TREE_SUFFIXES))


def _case_of(stem: str, others: set[str], same: set[str]) -> str:
    """The case of a file: four digits at its end are nnU-Net's channel number, or the case's own.

    They are the channel's where the rest is a file of another role, the case's where the whole name is one. Where
    nothing tells, channels begin with 0 in each case, and a single row of numbers counts cases.
    """
    base = CHANNEL.sub("", stem)
    if base == stem or base in others:
        return base
    if stem in others:
        return stem
    numbered = [other for other in same if CHANNEL.search(other)]
    bases = {CHANNEL.sub("", other) for other in numbered}
    channels = all(f"{one}_0000" in same for one in bases) and (len(bases) > 1 or len(numbered) == 1)
    return base if channels else stem


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _is_data(path: Path, role: str) -> bool:
    endings = {"image": SUFFIXES, "tree": TREE_SUFFIXES}.get(role, (*SUFFIXES, *TREE_SUFFIXES))
    return path.is_file() and not path.name.startswith(".") and path.name.lower().endswith(endings)


def _text(spacing: Spacing) -> str:
    return " ".join(f"{step:g}" for step in spacing)


def _channel(path: Path, stack: Stack, channel: int) -> NDArray:
    count = len(stack.channels)
    if not 0 <= channel < count:
        raise NeurinoError(f"{path}: has {count} channel{'s' * (count > 1)}, --channel {channel} is not among them")
    return stack.channels[channel]


def _mask(role: str, path: Path, stack: Stack, threshold: float) -> NDArray[np.bool_]:
    if len(stack.channels) != 1:
        raise NeurinoError(f"{path}: expected a mask of one channel, this has {len(stack.channels)}")
    voxels = np.asarray(stack.channels[0])
    if role == "prediction" and voxels.dtype == np.uint8:
        return foreground(voxels, threshold, threshold, str(path))[0]
    return np.asarray(voxels > threshold if voxels.dtype.kind == "f" else voxels != 0)
