"""Small scenes for the tracing tests: fibres, forks, gaps, and what a tracing of them should look like."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from nnunet_neurino.swc import Tree, rasterise


def polyline(corners: list[tuple[float, float, float]], radius: float = 1.5) -> Tree:
    """A neurite through corners x, y, z."""
    return Tree.build(np.array(corners, dtype=float), np.arange(len(corners)) - 1, radii=radius)


def forked(radius: float = 1.5) -> Tree:
    """A trunk along x with a branch to each side."""
    xyz = np.array([[5, 30, 12], [25, 30, 12], [45, 30, 12], [65, 30, 12], [37, 48, 12], [58, 14, 14]], float)
    return Tree.build(xyz, np.array([-1, 0, 1, 2, 1, 2]), radii=radius)


def wavy(seed: int, radius: float, shape: tuple[int, int, int]) -> Tree:
    """A winding neurite through the middle of a volume, along x."""
    rng = np.random.default_rng(seed)
    x = np.linspace(8, shape[2] - 8, 40)
    swing = np.cumsum(rng.normal(0, 0.8, (40, 2)), axis=0)
    swing -= swing.mean(axis=0)
    middle = np.array([shape[1], shape[0]]) / 2
    return Tree.build(np.column_stack([x, swing + middle]), np.arange(40) - 1, radii=radius)


def mask_of(
    trees: list[Tree], shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1, 1, 1)
) -> np.ndarray:
    """Union of the trees' masks."""
    return np.any([rasterise(tree, shape, spacing=spacing) > 0 for tree in trees], axis=0)


def cut_gap(mask: np.ndarray, at: tuple[float, float, float], along: tuple[float, float, float], width: float) -> None:
    """Take a slab of ``width`` out of the neurite at x, y, z, across the direction ``along``."""
    low = np.maximum(np.floor(at).astype(int) - 7, 0)[::-1]
    box = mask[tuple(slice(start, start + 16) for start in low)]
    away = np.moveaxis(np.indices(box.shape), 0, -1)[..., ::-1] + low[::-1] - np.array(at)
    direction = np.array(along, float) / np.linalg.norm(along)
    box[(np.abs(away @ direction) <= width / 2) & (np.linalg.norm(away, axis=-1) <= 6)] = False


def piece_at(tree: Tree, at: tuple[float, float, float]) -> int:
    """Number of the connected piece nearest to x, y, z."""
    return int(tree.piece_labels()[cKDTree(tree.xyz).query(at)[1]])


def background_share(tree: Tree, mask: np.ndarray) -> float:
    """Share of the cable that runs over background."""
    edges = tree.edges()
    steps = np.linspace(0, 1, 11)
    places = tree.xyz[edges[:, :1]] + steps[:, None] * (tree.xyz[edges[:, 1:]] - tree.xyz[edges[:, :1]])
    voxel = np.clip(np.rint(places[..., ::-1]).astype(int), 0, np.array(mask.shape) - 1)
    on = mask[voxel[..., 0], voxel[..., 1], voxel[..., 2]].mean(axis=1)
    return float(((1 - on) * tree.edge_lengths()).sum() / tree.length)
