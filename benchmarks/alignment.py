"""Is the alignment check ever wrong, and how often does it know? Measured on real pairs and on crops of them.

Every pair (FOLDER/*/image.tif + tracing.swc, right as stored) is written down in all ways that the check can undo: in
8 flips, counted from 0 and from 1, in voxels and in micrometres of a made-up, anisotropic voxel size. This is done with

  whole     the pair as it is
  crop      random parts of the image with the nodes in them (at least 20)
  cut out   the same parts of the image with the whole tracing, in the coordinates of the whole image
  half size the whole image with a tracing of an image of half the size: no placement is right
  other     the whole image with the tracing of the next pair: no placement is right

and each answer is one of

  right     the tracing is placed where it belongs, to a voxel
  count     it is placed two or three voxels off, or draws the same picture (a symmetrical tracing)
  unsure    it is left as stored, and not called clear
  WRONG     anything else: a wrong placement named better, or the stored one called clear
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from nnunet_neurino.conversion import check_alignment
from nnunet_neurino.conversion.placement import FLIPS, Placement
from nnunet_neurino.images import read_stack
from nnunet_neurino.swc import Tree, read_swc

# Made-up voxel sizes (z, y, x): usual ones of confocal stacks.
SPACINGS = ((1.0, 0.4, 0.4), (2.0, 1.0, 1.0), (0.5, 0.2, 0.2))
LEAST_NODES = 20
KINDS = ("whole", "crop", "cut out", "half size", "other")
GRADES = ("right", "count", "unsure", "WRONG")


def main() -> None:
    """Print each wrong answer, a line for each pair, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with one folder a pair")
    parser.add_argument("--crops", type=int, default=5, help="random crops of each pair (default: 5)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="what is tried (default: all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try each Nth way only (default: 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only pairs whose name contains TEXT")
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*/tracing.swc"))
    sums: dict[str, Counter[str]] = {kind: Counter() for kind in args.kinds}
    print(f"{'pair':<24}" + "".join(f"{kind:>19}" for kind in args.kinds) + f"{'s a check':>11}")
    for number, path in enumerate(paths):
        if args.only not in path.parent.name:
            continue
        image, tree = np.asarray(read_stack(path.parent / "image.tif").voxels), read_swc(path)
        other = read_swc(paths[(number + 1) % len(paths)])
        spacing, start, here = SPACINGS[number % len(SPACINGS)], time.perf_counter(), Counter()
        cases = [c for c in parts(image, tree, other, args.crops, number) if c[0] in args.kinds]
        for part, (kind, voxels, stored, true) in enumerate(cases):
            shape = image.shape if kind == "cut out" else voxels.shape
            for truth in ways()[(number + part) % args.every :: args.every]:
                written = written_as(stored, truth, shape, spacing)
                grade, about = judge(voxels, written, true, spacing if truth.micrometre or part % 2 else None)
                here[kind, grade] += 1
                if grade == "WRONG":
                    print(f"  {kind} {part} {voxels.shape}, {len(tree)} nodes, {truth}: {about}")
        seconds = (time.perf_counter() - start) / max(here.total(), 1)
        cells = ("/".join(str(here[kind, grade]) for grade in GRADES) for kind in args.kinds)
        print(f"{path.parent.name:<24}" + "".join(f"{cell:>19}" for cell in cells) + f"{seconds:>11.2f}", flush=True)
        for (kind, grade), n in here.items():
            sums[kind][grade] += n
    for kind, counter in sums.items():
        print(f"{kind:<10}", *(f"{counter[grade]:>6} {grade}" for grade in GRADES))


def ways() -> list[Placement]:
    """The placements that undo what is done to a tracing."""
    return [Placement(*way) for way in itertools.product((False, True), (0, 1), FLIPS)]


def parts(
    image: np.ndarray, tree: Tree, other: Tree, crops: int, seed: int
) -> Iterator[tuple[str, np.ndarray, Tree, np.ndarray | None]]:
    """Each kind, with its image, tracing, and the true nodes (n, 3) x, y, z of that in voxels; None where none are."""
    yield "whole", image, tree, tree.xyz
    for low, size, part in random_crops(image, tree, crops, seed):
        voxels = image[tuple(slice(a, a + n) for a, n in zip(low, size, strict=True))]
        yield "crop", voxels, part, part.xyz
        yield "cut out", voxels, tree, tree.xyz - low[::-1]
    yield "half size", image, replace(tree, xyz=tree.xyz / 2), None
    yield "other", image, other, None


def judge(
    image: np.ndarray, tree: Tree, true: np.ndarray | None, spacing: tuple[float, float, float] | None
) -> tuple[str, str]:
    """The grade of the answer for a tracing as written, and the answer."""
    alignment = check_alignment(image, tree, spacing)
    about = f"{alignment.best} ({alignment.best_contrast:.3f}; clear: {alignment.clear})"
    if true is not None:
        placed = alignment.best.voxels(tree.xyz, image.shape, spacing)
        if np.abs(placed - true).max() < 1:
            return "right", about
        if np.abs(placed - true).max() < 3 or max(_apart(placed, true), _apart(true, placed)) < 3:
            return "count", about
    return ("WRONG" if alignment.differs or alignment.clear else "unsure"), about


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    """Distance from the nodes a to the nearest of b that 95 % do not exceed, voxels."""
    return float(np.percentile(KDTree(b).query(a)[0], 95))


def written_as(tree: Tree, truth: Placement, shape: tuple[int, ...], spacing: tuple[float, float, float]) -> Tree:
    """Return the tree as a file holds it for which ``truth`` is the right placement."""
    xyz = Placement(flips=truth.flips).voxels(tree.xyz, shape, None) + truth.first
    return replace(tree, xyz=xyz * np.array(spacing)[::-1] if truth.micrometre else xyz, unit="unknown")


def random_crops(
    image: np.ndarray, tree: Tree, number: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, Tree]]:
    """Origin and size (z, y, x) of random parts, 30 to 80 % of each side, and the nodes and edges in them."""
    rng = np.random.default_rng(seed)
    shape = np.array(image.shape)
    for _ in range(1000):
        if not number:
            return
        size = np.maximum(8, shape * rng.uniform(0.3, 0.8, 3)).astype(int)
        low = rng.integers(0, np.maximum(1, shape - size + 1))
        position = tree.xyz[:, ::-1] - low
        inside = ((position >= 0) & (position <= size - 1)).all(axis=1)
        if inside.sum() < LEAST_NODES:
            continue
        row = np.where(inside, np.cumsum(inside) - 1, -1)
        parents = np.where(tree.parents >= 0, row[tree.parents], -1)[inside]
        yield low, size, Tree.build(position[inside][:, ::-1], parents, radii=tree.radii[inside])
        number -= 1


if __name__ == "__main__":
    main()
