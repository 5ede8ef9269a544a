"""How often the alignment check finds the right flip and count on real pairs.

Every pair (FOLDER/*/image.tif + tracing.swc, right as stored) is disturbed in 16 ways: 8 flips, counted from 0 and
from 1. Prints for each pair the contrast, the wrong answers and the time of one check.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

from nnunet_neurino.conversion import check_alignment
from nnunet_neurino.images import read_stack
from nnunet_neurino.swc import read_swc

FLIPS = ("", "x", "y", "z", "xy", "xz", "yz", "xyz")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with one folder a pair")
    args = parser.parse_args()
    print(f"{'pair':<28} {'contrast':>8} {'s a check':>9}  wrong flips / wrong counts of 16")
    total = wrong_flips = wrong_counts = 0
    for folder in sorted(p.parent for p in args.folder.glob("*/tracing.swc")):
        image, tree = read_stack(folder / "image.tif").voxels, read_swc(folder / "tracing.swc")
        flips_missed, counts_missed, seconds = [], [], 0.0
        for first, flips in itertools.product((0, 1), FLIPS):
            xyz = tree.xyz.copy()
            for axis, name in enumerate("xyz"):
                if name in flips:
                    xyz[:, axis] = image.shape[2 - axis] - 1 - xyz[:, axis]
            start = time.perf_counter()
            answer = check_alignment(image, replace(tree, xyz=xyz + first))
            seconds += time.perf_counter() - start
            contrast = answer.best_contrast
            if answer.best.flips != flips:
                flips_missed.append((flips, first))
            elif answer.best.first != first:
                counts_missed.append((flips, first))
        total += 16
        wrong_flips += len(flips_missed)
        wrong_counts += len(counts_missed)
        print(
            f"{folder.name:<28} {contrast:>8.3f} {seconds / 16:>9.2f}  {flips_missed or '-'} / {counts_missed or '-'}"
        )
    print(f"{total} cases: {wrong_flips} wrong flips, {wrong_counts} wrong counts (CPU)")


if __name__ == "__main__":
    main()
