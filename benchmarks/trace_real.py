"""Tracing on real neurons: our tracer beside plain thinning, kimimaro and swclib on masks drawn from real tracings.

Takes a folder of pairs (a folder each, with image.tif and tracing.swc in voxels). Each tracing is drawn as a mask with
its own radii, as `neurino convert` draws a label, so that only the tracers differ; with --ridge also masks of a plain
ridge filter of the images, whose errors are those of a segmentation. Prints for each method the length F1 at 2 voxels,
ESA, trees, tips, normalised expected run length and CPU seconds, the mean over the pairs and, with --pairs, each pair.
kimimaro and swclib are separate programs or environments: kimimaro is run where its command is on PATH, swclib where
--swclib names a Python that has it. --ablation switches our rules off one by one instead.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import tifffile
from skimage.filters import apply_hysteresis_threshold, sato

sys.path.insert(0, str(Path(__file__).resolve().parent))

from trace import plain_skeleton

from nnunet_neurino.images import read_stack
from nnunet_neurino.metrics import length_scores, neuron_distance, tree_connectivity_scores, tree_counts
from nnunet_neurino.swc import Tree, merge_touching, rasterise, read_swc
from nnunet_neurino.tracing import TraceSettings, centre_lines, find_external_tracers, trace, trace_with

Method = Callable[[np.ndarray], Tree]
_SWCLIB = """
import sys, numpy, tifffile
from swclib.image.mask2swc import Mask2Swc
Mask2Swc().run((tifffile.imread(sys.argv[1]) > 0).astype(numpy.uint8) * 255, sys.argv[2])
"""


@dataclass(frozen=True)
class Row:
    """What a method reached on one pair."""

    f1: float
    precision: float
    recall: float
    esa: float
    nerl: float
    trees: int
    tips: int
    seconds: float


def pairs(folder: Path) -> Iterator[tuple[str, Tree, np.ndarray]]:
    """Name, tracing and image of each pair."""
    for path in sorted(folder.iterdir()):
        if (path / "tracing.swc").is_file() and (path / "image.tif").is_file():
            yield path.name, merge_touching(read_swc(path / "tracing.swc")), read_stack(path / "image.tif").voxels


def ridge_mask(image: np.ndarray) -> np.ndarray:
    """The brightest tenth of a percent of a ridge filter, and what is connected to it down to the brightest percent."""
    ridges = sato(image.astype(np.float32), sigmas=(1.0, 2.0, 3.0), black_ridges=False)
    return apply_hysteresis_threshold(ridges, *np.quantile(ridges, (0.99, 0.999)))


def with_swclib(python: str) -> Method:
    """swclib's tracer, run by a Python that has it."""

    def method(mask: np.ndarray) -> Tree:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "mask.tif", Path(folder) / "tree.swc"
            tifffile.imwrite(source, mask.astype(np.uint8))
            subprocess.run([python, "-c", _SWCLIB, source, target], check=True, capture_output=True)
            return read_swc(target)

    return method


def ablations() -> dict[str, Method]:
    """Our tracer with one rule after the other switched off."""

    def without(**changes: object) -> Method:
        return lambda mask: trace(mask, settings=TraceSettings(**changes))  # type: ignore[arg-type]

    def patched(name: str, replacement: object) -> Method:
        def method(mask: np.ndarray) -> Tree:
            with patch.object(centre_lines._Paths, name, replacement):
                return trace(mask)

        return method

    return {
        "all rules": trace,
        "no spurs cut": without(prune=0.0),
        "no smoothing, not recentred": without(smooth=0),
        "no bridges": without(bridge_length=0.0),
        "no crossings parted": without(split_crossings=False),
        "no loops closed": patched("close_loops", lambda self: None),
        "paths run side by side": patched("_alongside_left_out", lambda self, path: path),
    }


def measure(method: Method, mask: np.ndarray, truth: Tree) -> Row:
    """Trace once."""
    before = _cpu()
    tree = method(mask)
    seconds = _cpu() - before
    length = length_scores(tree, truth)
    counts = tree_counts(tree)
    return Row(
        length.length_f1 or 0.0,
        length.length_precision or 0.0,
        length.length_recall or 0.0,
        neuron_distance(tree, truth).esa or np.nan,
        tree_connectivity_scores(tree, truth).nerl or 0.0,
        counts.trees,
        counts.tips,
        seconds,
    )


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def _line(name: str, rows: list[Row]) -> str:
    values = np.array([list(vars(row).values()) for row in rows])
    return f"{name:<30}" + "".join(
        f"{value:>{width}.{digits}f}"
        for value, (width, digits) in zip(np.nanmean(values, axis=0), _COLUMNS, strict=True)
    )


_COLUMNS = ((8, 3), (10, 3), (8, 3), (7, 3), (7, 3), (7, 1), (7, 1), (8, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="PAIRS", type=Path, help="folder with a folder for each pair")
    parser.add_argument("--ridge", action="store_true", help="also masks of a ridge filter (default: drawn ones only)")
    parser.add_argument("--pairs", action="store_true", help="also print each pair (default: means)")
    parser.add_argument("--ablation", action="store_true", help="our rules switched off one by one (default: no)")
    parser.add_argument("--swclib", metavar="PYTHON", help="a Python that has swclib (default: left out)")
    args = parser.parse_args()
    cases = list(pairs(args.folder)) if args.folder.is_dir() else []
    if not cases:
        sys.exit(f"{args.folder}: no pairs (folders with image.tif and tracing.swc); nothing to measure")
    methods: dict[str, Method] = {"neurino": trace, "thinning + spanning tree": plain_skeleton}
    if args.ablation:
        methods = ablations()
    elif find_external_tracers()["kimimaro"]:
        methods["kimimaro"] = lambda mask: trace_with("kimimaro", mask)
    if args.swclib and not args.ablation:
        methods["swclib"] = with_swclib(args.swclib)
    trace(np.pad(np.ones((3, 3, 20), bool), 4))  # load what is loaded lazily
    print(f"{len(cases)} pairs; CPU, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for kind in ("drawn", "ridge") if args.ridge else ("drawn",):
        print(f"{kind + ' masks':<30}      F1 precision  recall    ESA   nerl  trees   tips   CPU s")
        for name, method in methods.items():
            rows = []
            for pair, truth, image in cases:
                mask = rasterise(truth, image.shape) if kind == "drawn" else ridge_mask(image)
                rows.append(measure(method, mask, truth))
                if args.pairs:
                    print(_line(f"  {pair}", rows[-1:]), flush=True)
            print(_line(name, rows), flush=True)


if __name__ == "__main__":
    main()
