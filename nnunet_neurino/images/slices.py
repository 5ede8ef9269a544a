"""A folder of two-dimensional slices as one stack, in the order of the numbers in their names."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.images.stack import Raw, check_size, first_bytes
from nnunet_neurino.images.tiff import read_tiff

SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")


def is_slice_folder(folder: Path) -> bool:
    """Tell whether ``folder`` holds at least two flat images whose names differ in numbers only."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if len(paths) < 2 or len({re.sub(r"\d+", "#", p.name) for p in paths}) > 1:
        return False
    try:  # "cell1.tif", "cell2.tif" may as well be stacks of their own
        _read_slice(paths[0])
    except NeurinoError:
        return False
    return True


def read_slices(folder: Path, max_bytes: int | None = None, number: int | None = None) -> Raw:
    """Read all image files of ``folder`` as one stack, sorted by number ("slice2" before "slice10").

    Args:
        folder: with one file a slice.
        max_bytes: see :func:`~nnunet_neurino.images.read_stack`.
        number: where the names differ in several numbers, which of these counts the slices, from 1.
    """
    inside = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    paths = [p for p in inside if p.suffix.lower() in SUFFIXES]
    if not paths:
        raise NeurinoError(f"{folder}: the folder holds no slices ({', '.join(SUFFIXES)})")
    findings = []
    if others := len(inside) - len(paths):
        findings.append(Finding(0, f"{others} files that are no images", "ignored"))
    kinds = Counter(p.suffix.lower() for p in paths)
    if len(kinds) > 1:
        raise NeurinoError(f"{folder}: slices of different kinds ({', '.join(sorted(kinds))}); leave one kind there")
    paths, more = _in_order(folder, paths, number)
    findings += more

    first = _read_slice(paths[0])
    check_size(folder, (len(paths), *first.shape), first.dtype.itemsize, max_bytes)
    voxels = np.empty((len(paths), *first.shape), dtype=first.dtype)
    for i, path in enumerate(paths):
        slice_ = first if i == 0 else _read_slice(path)
        if slice_.shape != first.shape or slice_.dtype != first.dtype:
            raise NeurinoError(
                f"{path}: {slice_.dtype} {'x'.join(map(str, slice_.shape))}, but {paths[0].name} is {first.dtype} "
                f"{'x'.join(map(str, first.shape))}; all slices must be alike"
            )
        voxels[i] = slice_
    return Raw(voxels, "ZYXS"[: voxels.ndim], None, tuple(findings))


def _in_order(folder: Path, paths: list[Path], number: int | None) -> tuple[list[Path], list[Finding]]:
    """Sort by the one number in which the names differ, or the one of them that is meant; refuse repeats and gaps."""
    if len(paths) == 1:
        raise NeurinoError(f"{folder}: one slice only ({paths[0].name}), a stack was expected; give the file itself")
    pieces = [re.split(r"(\d+)", p.stem) for p in paths]
    words = {tuple(p[::2]) for p in pieces}
    if len(words) > 1:
        names = ", ".join("#".join(w) for w in sorted(words)[:3])
        raise NeurinoError(f"{folder}: slices of different series ({names}); give each series a folder of its own")
    numbers = np.array([[int(n) for n in p[1::2]] for p in pieces], dtype=object)
    varying = [i for i in range(numbers.shape[1]) if len(set(numbers[:, i])) > 1]
    orders = [sorted(range(len(paths)), key=lambda i: numbers[i, at]) for at in varying]
    chosen = 1 if len(orders) == 1 else number
    if chosen is None or not 1 <= chosen <= len(orders):
        ways = [f"by number {n} from {paths[o[0]].name} to {paths[o[-1]].name}" for n, o in enumerate(orders, 1)]
        raise NeurinoError(
            f"{folder}: the names of the slices differ in {len(orders) or 'no'} numbers ("
            f"{', '.join(ways) or paths[0].name}), one was expected; give each series a folder of its own, or "
            "say which number counts the slices: neurino convert --slice-number N"
        )
    order = orders[chosen - 1]
    sequence = [int(numbers[i, varying[chosen - 1]]) for i in order]
    steps = [b - a for a, b in itertools.pairwise(sequence)]
    usual = Counter(steps).most_common(1)[0][0]
    at = steps.index(0) if 0 in steps else next((i for i, step in enumerate(steps) if step != usual), None)
    if at is not None:
        problem = "two slices have the same number" if steps[at] == 0 else "slices are missing between them"
        raise NeurinoError(
            f"{folder}: {paths[order[at]].name} is followed by {paths[order[at + 1]].name}: {problem}; the stack "
            "would be distorted, complete it or renumber the files"
        )
    findings = []
    if sequence[0] > 1:
        what = f"the slices are numbered from {sequence[0]}: if the first ones are missing, a tracing is shifted in z"
        findings.append(Finding(0, what))
    return [paths[i] for i in order], findings


def _read_slice(path: Path) -> np.ndarray:
    """Read one slice as (y, x) or (y, x, colours)."""
    first_bytes(path)
    if path.suffix.lower() in (".tif", ".tiff"):
        raw = read_tiff(path)
        voxels, axes = raw.voxels, raw.axes
        keep = [i for i, name in enumerate(axes) if name in "YX" or voxels.shape[i] > 1]
        axes, voxels = "".join(axes[i] for i in keep), voxels.reshape([voxels.shape[i] for i in keep])
        if not set(axes) <= set("YXS") or not set("YX") <= set(axes):
            raise NeurinoError(f"{path}: a stack ({raw.axes}) among slices; give the file itself, not the folder")
        return voxels.transpose([axes.index(n) for n in "YXS" if n in axes])
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode in ("P", "1"):
                return np.array(image, dtype=np.uint8)
            return np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NeurinoError(f"{path}: cannot be read ({str(error)[:120]}); save it again") from None
