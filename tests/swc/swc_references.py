"""Slow and plain references for the package's swc folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_neurino.swc import Tree


def random_tree(
    rng: np.random.Generator, shape: Sequence[int], n: int, radii: tuple[float, float] = (0.15, 3.5)
) -> Tree:
    """A connected tree of long, crossing edges with radii that jump, all within the image."""
    xyz = rng.uniform(0, 1, (n, 3)) * (np.array(shape[::-1]) - 1)
    if rng.random() < 0.2:
        xyz = np.round(xyz)  # on voxel centres: the distances that are ties
    parents = [-1] + [int(rng.integers(i)) for i in range(1, n)]
    return Tree.build(xyz, parents, radii=np.exp(rng.uniform(*np.log(radii), n)))


def distances(
    tree: Tree, shape: Sequence[int], spacing: Sequence[float], floor: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Voxel by voxel, edge by edge: whether within the radius (at least ``floor``), and the smallest distance."""
    steps = np.array(spacing, dtype=float)
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, steps, strict=True)), indexing="ij"), axis=-1)
    nodes, radii = tree.xyz[:, ::-1] * steps, tree.radii * steps[2]
    within = np.zeros(tuple(shape), dtype=bool)
    distance = np.full(tuple(shape), np.inf)
    edges = tree.edges().tolist() or [[0, 0]]
    for child, parent in edges:
        along = nodes[parent] - nodes[child]
        offset = grid - nodes[child]
        t = np.clip(offset @ along / max(along @ along, 1e-300), 0, 1)
        d = np.linalg.norm(offset - t[..., None] * along, axis=-1)
        radius = np.maximum(radii[child] + t * (radii[parent] - radii[child]), floor)
        within |= d <= radius
        distance = np.minimum(distance, d)
    return within, distance
