"""A small neuron, the picture a microscope would make of it, and the command that converts such pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import ndimage

from nnunet_neurino.cli.main import main
from nnunet_neurino.swc import Tree, rasterise

SHAPE = (24, 60, 70)
Make = Callable[..., Path]
OPTIONS = ("--dataset-id", 7, "--name", "T", "--spacing", 1, 0.5, 0.5, "--workers", 1)


def neuron(seed: int, shape: tuple[int, int, int] = SHAPE) -> Tree:
    """A random walk with two branches, in voxels, away from the border and in no way symmetrical."""
    rng = np.random.default_rng(seed)
    size = np.array(shape[::-1], dtype=float)
    xyz, parents = [size * rng.uniform(0.15, 0.35, 3)], [-1]
    for branch in range(3):
        heading, start = rng.normal(size=3) * (1, 1, 0.4), 0 if branch == 0 else int(rng.integers(len(xyz)))
        last = start
        for _ in range(25):
            heading = heading / np.linalg.norm(heading) + rng.normal(size=3) * (0.3, 0.3, 0.15)
            step = xyz[last] + 2.0 * heading / np.linalg.norm(heading)
            heading = np.where((step < 3) | (step > size - 4), -heading, heading)
            xyz.append(np.clip(step, 3, size - 4))
            parents.append(last)
            last = len(xyz) - 1
    return Tree.build(np.array(xyz), np.array(parents), radii=1.5)


def picture_of(tree: Tree, seed: int = 0, shape: tuple[int, int, int] = SHAPE, noise: float = 8.0) -> np.ndarray:
    """What a microscope would show: a blurred bright label on noise."""
    rng = np.random.default_rng(seed)
    clean = ndimage.gaussian_filter(rasterise(tree, shape).astype(np.float32), (0.6, 0.9, 0.9))
    return np.clip(clean * 150 + 20 + rng.normal(0, noise, shape), 0, 255).astype(np.uint8)


def convert(data: Path, output: Path, *options: object) -> int:
    arguments = ["convert", "--images", data, "--tracings", data, *OPTIONS, "--output", output, *options]
    return main([str(a) for a in arguments])


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def report_of(output: Path) -> dict:
    return json.loads((output / "Dataset007_T" / "conversion_report.json").read_text())
