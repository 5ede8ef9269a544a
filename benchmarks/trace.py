"""Tracing: our tracer beside plain skeletonise-to-graph and, where it is on PATH, kimimaro as a program of its own.

Generates trees, rasterises them exactly and traces the masks; the same again with 3-voxel gaps cut. Prints for each
method the length F1 at 2 voxels, ESA, tips, and CPU and wall seconds (mean over the volumes; everything in one run, on
CPU). The time of kimimaro includes starting the program. "smooth" grows long even branches,
"dense" winding ones with many forks.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from skimage.morphology import skeletonize

from nnunet_neurino.metrics import length_scores, neuron_distance, tree_counts
from nnunet_neurino.swc import Tree
from nnunet_neurino.synth import GrowthSettings, SynthSettings, generate
from nnunet_neurino.tracing import find_external_tracers, trace, trace_with

_ONE = {"neurons": (1, 1), "crossings": (0, 0), "touches": (0, 0)}
KINDS = {
    "smooth": GrowthSettings(
        **_ONE,
        soma_probability=1.0,
        stems=(4, 6),
        reach=(0.8, 1.2),
        branch_distance=120.0,
        wander=0.35,
        wiggle=0.05,
        radius=(1.6, 2.6),
        min_radius=1.0,
        clearance=3.0,
    ),
    "dense": GrowthSettings(**_ONE, clearance=2.5),
}


def plain_skeleton(mask: np.ndarray) -> Tree:
    """Lee's skeleton, its voxel graph, a minimum spanning tree: what is usually done, without anything else."""
    voxels = np.argwhere(skeletonize(mask))
    n = len(voxels)
    index = np.full(np.array(mask.shape) + 2, -1)
    index[tuple((voxels + 1).T)] = np.arange(n)
    pairs = []
    for offset in np.ndindex(3, 3, 3):
        if offset <= (1, 1, 1):
            continue
        other = index[tuple((voxels + offset).T)]
        has = np.flatnonzero(other >= 0)
        pairs.append(np.stack([has, other[has]], axis=1))
    edges = np.concatenate(pairs)
    lengths = np.linalg.norm(voxels[edges[:, 0]] - voxels[edges[:, 1]], axis=1)
    graph = minimum_spanning_tree(coo_array((lengths, tuple(edges.T)), shape=(n, n)).tocsr())
    _, component = connected_components(graph, directed=False)
    parents = np.full(n, -1)
    for root in np.unique(component, return_index=True)[1]:
        order, above = breadth_first_order(graph, root, directed=False)
        parents[order[1:]] = above[order[1:]]
    return Tree.build(voxels[:, ::-1].astype(float), parents)


@dataclass
class Result:
    """What a method reached on the volumes so far."""

    f1: list[float] = field(default_factory=list)
    esa: list[float] = field(default_factory=list)
    tips: list[int] = field(default_factory=list)
    trees: list[int] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)


def cut_gaps(mask: np.ndarray, tree: Tree, count: int, seed: int) -> np.ndarray:
    """Take slabs of 3 voxels out of the neurites at ``count`` random edges."""
    cut = mask.copy()
    edges = tree.edges()
    thin = edges[(tree.radii[edges] < 4).all(axis=1) & (tree.edge_lengths() > 0)]
    for child, parent in np.random.default_rng(seed).permutation(thin)[:count]:
        middle = 0.5 * (tree.xyz[child] + tree.xyz[parent])
        along = (tree.xyz[child] - tree.xyz[parent]) / np.linalg.norm(tree.xyz[child] - tree.xyz[parent])
        reach = tree.radii[child] + 2
        low = np.maximum(np.floor(middle - reach - 2).astype(int), 0)
        box = tuple(
            slice(a, b) for a, b in zip(low[::-1], (np.ceil(middle + reach + 3).astype(int))[::-1], strict=True)
        )
        z, y, x = np.indices(cut[box].shape)
        away = np.stack([x, y, z], axis=-1) + low - middle
        axial = away @ along
        radial = np.linalg.norm(away - axial[..., None] * along, axis=-1)
        cut[box] &= ~((np.abs(axial) <= 1.5) & (radial <= reach))
    return cut


def _seconds() -> tuple[float, float]:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both), time.perf_counter()


def measure(method: Callable[[np.ndarray], Tree], mask: np.ndarray, truth: Tree, result: Result) -> None:
    """Trace once and note scores and seconds."""
    before = _seconds()
    tree = method(mask)
    after = _seconds()
    result.cpu.append(after[0] - before[0])
    result.wall.append(after[1] - before[1])
    result.f1.append(length_scores(tree, truth).length_f1 or 0.0)
    result.esa.append(neuron_distance(tree, truth).esa or np.nan)
    counts = tree_counts(tree)
    result.tips.append(counts.tips)
    result.trees.append(counts.trees)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--side", metavar="N", type=int, default=256, help="side of the volumes in voxels (default: 256)"
    )
    parser.add_argument("--volumes", metavar="N", type=int, default=3, help="volumes of each kind (default: 3)")
    parser.add_argument("--gaps", metavar="N", type=int, default=20, help="gaps cut in the second round (default: 20)")
    args = parser.parse_args()
    methods: dict[str, Callable[[np.ndarray], Tree]] = {"neurino": trace, "skeleton": plain_skeleton}
    if find_external_tracers()["kimimaro"]:
        methods["kimimaro"] = lambda mask: trace_with("kimimaro", mask)
    else:
        print("kimimaro: not on PATH, left out")
    trace(np.pad(np.ones((3, 3, 20), bool), 4))  # load what is loaded lazily
    print(f"CPU, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {args.volumes} volumes of {args.side}^3 each")
    print(f"{'volumes':<17}{'method':<12}{'length F1':>10}{'ESA':>8}{'tips':>8}{'trees':>7}{'CPU s':>8}{'wall s':>8}")
    for kind, growth in KINDS.items():
        for gaps in (0, args.gaps):
            results = {name: Result() for name in methods}
            truth_tips = []
            for seed in range(args.volumes):
                volume = generate(SynthSettings(shape=(args.side,) * 3, growth=growth), seed)
                mask = volume.mask > 0
                truth_tips.append(tree_counts(volume.tree).tips)
                if gaps:
                    mask = cut_gaps(mask, volume.tree, gaps, seed)
                for name, method in methods.items():
                    measure(method, mask, volume.tree, results[name])
            label = f"{kind}{f', {gaps} gaps' if gaps else ''}"
            for name, r in results.items():
                print(
                    f"{label:<17}{name:<12}{np.mean(r.f1):>10.4f}{np.mean(r.esa):>8.3f}{np.mean(r.tips):>8.1f}"
                    f"{np.mean(r.trees):>7.1f}{np.mean(r.cpu):>8.2f}{np.mean(r.wall):>8.2f}",
                    flush=True,
                )
            print(f"{label:<17}{'(truth)':<12}{'':>18}{np.mean(truth_tips):>8.1f}{1.0:>7.1f}")


if __name__ == "__main__":
    main()
