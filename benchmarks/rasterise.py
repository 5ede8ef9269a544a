"""Time and memory of drawing a neuron as a label, beside other ways of doing it.

A generated neuron (5,000 nodes, about 20,000 voxels long, by default) is drawn into 512 x 512 x 100 voxels by every
mode of ``nnunet_neurino.swc.rasterise``, by one box an edge in a Python loop, and by the libraries that are installed
(swcgeom, navis). Printed: seconds (best of --repeats, CPU and wall), memory beyond the output, voxels set,
26-connected components of the label, and the Dice score with our capsules. All in one process, one after the other.

Example:
  python benchmarks/rasterise.py --repeats 3
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import time
import tracemalloc
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy import ndimage

from nnunet_neurino.swc import MODES, Tree, rasterise

Draw = Callable[[], np.ndarray]


def grown_tree(n: int, shape: tuple[int, int, int], step: float, seed: int) -> Tree:
    """A branching walk of ``n`` nodes ``step`` voxels apart that stays within the image."""
    rng = np.random.default_rng(seed)
    low, high = np.full(3, 4.0), np.array(shape[::-1]) - 5.0
    points, parents, ways = [(low + high) / 2], [-1], [np.array([1.0, 0, 0])]
    for _ in range(1, n):
        parent = len(points) - 1 if rng.random() > 0.03 else int(rng.integers(len(points)))
        way = ways[parent] + rng.normal(size=3) * 0.3
        while True:
            way /= np.linalg.norm(way)
            point = points[parent] + way * step
            if (point >= low).all() and (point <= high).all():
                break
            way = rng.normal(size=3)
        points.append(point)
        parents.append(parent)
        ways.append(way)
    return Tree.build(np.array(points), np.array(parents), radii=rng.uniform(0.8, 3.0, n))


def boxes_in_a_loop(tree: Tree, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """The same tapered tubes, one edge after the other on its bounding box (no centre line)."""
    steps = np.array(spacing)
    nodes, radii = tree.xyz[:, ::-1] * steps, tree.radii * steps[2]
    label = np.zeros(shape, dtype=bool)
    for child, parent in tree.edges():
        reach = max(radii[child], radii[parent])
        ends = nodes[[child, parent]]
        low = np.maximum(np.ceil((ends.min(axis=0) - reach) / steps), 0).astype(int)
        high = np.minimum(np.floor((ends.max(axis=0) + reach) / steps) + 1, shape).astype(int)
        along = nodes[parent] - nodes[child]
        z, y, x = (np.arange(a, b) * s for a, b, s in zip(low, high, steps, strict=True))
        qz, qy, qx = z[:, None, None] - ends[0, 0], y[:, None] - ends[0, 1], x - ends[0, 2]
        t = np.clip((qz * along[0] + qy * along[1] + qx * along[2]) / max(along @ along, 1e-300), 0, 1)
        d2 = (qz - t * along[0]) ** 2 + (qy - t * along[1]) ** 2 + (qx - t * along[2]) ** 2
        label[tuple(map(slice, low, high))] |= d2 <= (radii[child] + t * (radii[parent] - radii[child])) ** 2
    return label


def with_swcgeom(tree: Tree, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """swcgeom's ToImageStack; it samples at voxel centres + 0.5 and gives (z, x, y)."""
    from swcgeom.core import Tree as Other
    from swcgeom.transforms import ToImageStack

    x, y, z = tree.xyz.T * np.array(spacing)[::-1, None] + 0.5 * np.array(spacing)[::-1, None]
    other = Other(
        len(tree),
        id=np.arange(len(tree)),
        type=np.full(len(tree), 3),
        x=x,
        y=y,
        z=z,
        r=tree.radii * spacing[2],
        pid=tree.parents,
    )
    size = np.array(shape[::-1]) * np.array(spacing)[::-1]
    drawn = ToImageStack(resolution=tuple(spacing[::-1])).transform(other, verbose=False, ranges=(np.zeros(3), size))
    drawn = np.stack(list(drawn)).transpose(0, 2, 1) > 0
    label = np.zeros(shape, dtype=bool)
    common = tuple(slice(0, min(a, b)) for a, b in zip(shape, drawn.shape, strict=True))
    label[common] = drawn[common]
    return label


def with_navis(tree: Tree, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """navis: resample to a voxel and set the voxels of the nodes; no radius."""
    import navis
    import pandas

    x, y, z = tree.xyz.T
    table = pandas.DataFrame(
        {
            "node_id": np.arange(len(tree)),
            "label": 3,
            "x": x,
            "y": y,
            "z": z,
            "radius": tree.radii,
            "parent_id": tree.parents,
        }
    )
    neuron = navis.resample_skeleton(navis.TreeNeuron(table), 1)
    bounds = np.array([[0, n] for n in shape[::-1]])
    return np.asarray(navis.voxelize(neuron, pitch=1, bounds=bounds).grid).transpose(2, 1, 0) > 0


def measure(draw: Draw, repeats: int) -> tuple[float, float, float, np.ndarray]:
    """Best wall and CPU seconds, memory beyond the output in MB, and the output."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        drawn = draw()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    tracemalloc.start()
    drawn = draw()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return min(walls), min(cpus), (peak - drawn.nbytes) / 1e6, drawn


def main() -> int:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000, help="nodes of the neuron (default: %(default)s)")
    parser.add_argument("--step", type=float, default=4.0, help="voxels between nodes (default: %(default)s)")
    parser.add_argument("--shape", type=int, nargs=3, default=[100, 512, 512], metavar=("Z", "Y", "X"), help="voxels")
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.0, 1.0, 1.0], metavar=("Z", "Y", "X"))
    parser.add_argument("--repeats", type=int, default=3, help="timings of which the best counts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    shape, spacing = tuple(options.shape), tuple(options.spacing)
    tree = grown_tree(options.nodes, shape, options.step, options.seed)
    ways: dict[str, Draw] = {f"ours, {mode}": partial(rasterise, tree, shape, spacing, mode) for mode in MODES}
    ways["boxes in a Python loop"] = partial(boxes_in_a_loop, tree, shape, spacing)
    for name, draw in (("swcgeom", with_swcgeom), ("navis", with_navis)):
        if importlib.util.find_spec(name):
            ways[name] = partial(draw, tree, shape, spacing)
        else:
            print(f"{name} is not installed and left out")
    print(f"{tree.n_nodes} nodes, {tree.length:.0f} voxels long, into {shape} voxels of {spacing}; CPU only,")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"{'':24}{'wall s':>8}{'CPU s':>8}{'MB more':>9}{'voxels':>9}{'pieces':>8}{'Dice':>8}")
    ours = rasterise(tree, shape, spacing)
    for name, draw in ways.items():
        wall, cpu, memory, drawn = measure(draw, options.repeats)
        label = drawn > 0
        pieces = ndimage.label(label, np.ones((3, 3, 3)))[1]
        dice = 2 * (label & ours).sum() / (label.sum() + ours.sum())
        print(f"{name:24}{wall:8.2f}{cpu:8.2f}{memory:9.1f}{label.sum():9d}{pieces:8d}{dice:8.4f}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
