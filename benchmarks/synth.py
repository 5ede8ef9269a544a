"""Seconds to generate a volume with `neurino synth`'s code, on one core, for every preset.

CPU seconds of this process (growing, drawing the mask, taking the picture; writing files not included), so that a busy
machine does not count; wall seconds beside them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy

from nnunet_neurino.synth import PRESETS, generate, preset  # noqa: E402


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs=3, type=int, default=(128, 128, 128), metavar=("Z", "Y", "X"), help="voxels")
    parser.add_argument("--seeds", type=int, default=5, help="volumes for each preset (default: 5)")
    args = parser.parse_args()
    shape = tuple(args.shape)
    print(f"{' x '.join(map(str, shape))} voxels, one core of {platform.processor() or platform.machine()}, "
          f"{args.seeds} seeds")  # fmt: skip
    print(f"{'preset':<12} {'median CPU s':>12} {'slowest CPU s':>13} {'median wall s':>13} {'nodes':>7}")
    generate(preset("demo", shape=(16, 32, 32)))  # imports and the like
    for name in PRESETS:
        cpu, wall, nodes = [], [], []
        for seed in range(args.seeds):
            begin, begin_wall = time.process_time(), time.perf_counter()
            volume = generate(preset(name, shape=shape), seed)
            cpu.append(time.process_time() - begin)
            wall.append(time.perf_counter() - begin_wall)
            nodes.append(sum(len(tree) for tree in volume.trees))
        print(f"{name:<12} {statistics.median(cpu):>12.2f} {max(cpu):>13.2f} {statistics.median(wall):>13.2f} "
              f"{statistics.median(nodes):>7.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
