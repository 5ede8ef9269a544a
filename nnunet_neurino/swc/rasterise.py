"""From a tree to a label or a target on the image grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc.bridges import Tapered, bridge
from nnunet_neurino.swc.edges import Candidates, GridEdges, centre_line, check_grid, grid_edges, near_voxels
from nnunet_neurino.swc.tree import Tree

Mode = Literal["capsule", "skeleton", "distance", "distance_binary"]
MODES: tuple[Mode, ...] = ("capsule", "skeleton", "distance", "distance_binary")


def rasterise(
    tree: Tree,
    shape: Sequence[int],
    spacing: Sequence[float] = (1, 1, 1),
    mode: Mode = "capsule",
    *,
    tube_radius: float = 1.0,
    d_max: float = 4.0,
    a: float = 6.0,
    minimum_radius: float = 1.5,
) -> np.ndarray:
    """Draw a tree on an image grid.

    Positions are voxels (whole numbers are voxel centres) unless ``tree.unit`` is "micrometre", in which case they
    are divided by ``spacing``. Distances are measured in physical units. A radius in voxels counts voxels of the x
    axis: physical radius = radius x spacing of x; in micrometres it is taken as it is. The options in voxels below
    count voxels of the x axis, too, whatever the unit of the tree.

    Args:
        tree: the neuron, x, y, z.
        shape: image shape z, y, x.
        spacing: size of a voxel z, y, x.
        mode:
            - ``"capsule"``: True where, for some edge, the distance to the edge's closest point is at most the radius
              there (linear between the two nodes), united with the drawn centre line, so that a connected tree
              within the image is one 26-connected component at any radius and spacing;
            - ``"skeleton"``: the same with ``tube_radius`` everywhere (0: the drawn centre line alone);
            - ``"distance"``: exp(a (1 - d / d_max)) - 1 for distances d < d_max to the centre line, divided by its
              maximum exp(a) - 1; 0 elsewhere;
            - ``"distance_binary"``: like ``"capsule"``, with radii of at least ``minimum_radius``.
        tube_radius: for "skeleton", in voxels of x.
        d_max: for "distance", where the target reaches 0, in voxels of x.
        a: for "distance", its steepness.
        minimum_radius: for "distance_binary", in voxels of x.

    Returns:
        (z, y, x) bool; float32 from 0 to 1 for "distance".

    Examples:
        >>> tree = Tree.build([[2, 2, 2], [6, 2, 2]], [-1, 0], radii=1)
        >>> rasterise(tree, (5, 5, 9)).sum(axis=(0, 1))
        array([0, 1, 5, 5, 5, 5, 5, 1, 0])
    """
    sizes, steps = check_grid(shape, spacing)
    if mode not in MODES:
        raise NeurinoError(f"rasterise: expected a mode among {', '.join(MODES)}, got {mode!r}")
    for name, value in (("tube_radius", tube_radius), ("minimum_radius", minimum_radius)):
        if not (math.isfinite(value) and value >= 0):
            raise NeurinoError(f"rasterise: {name} must be a number of voxels from 0, got {value!r}")
    if mode == "distance":
        if not (math.isfinite(d_max) and d_max > 0 and math.isfinite(a) and 0 < a <= 500):
            raise NeurinoError(f"rasterise: expected d_max > 0 voxels and 0 < a <= 500, got {d_max!r} and {a!r}")
        d, _ = distance_band(tree, sizes, steps, d_max)
        return _target(d, a, d_max * steps[2])
    if mode == "skeleton":
        edges = grid_edges(tree, sizes, steps, np.full(len(tree), tube_radius * steps[2]))
        return _tubes(edges, floor=0.0) if tube_radius > 0 else _tubes(edges, floor=None)
    return _tubes(grid_edges(tree, sizes, steps), floor=0.0 if mode == "capsule" else minimum_radius * steps[2])


def centre_voxels(tree: Tree, shape: Sequence[int], spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """Voxels (n, 3; z, y, x) of the drawn centre line in an image of ``shape``, each once; no volume is made."""
    sizes, steps = check_grid(shape, spacing)
    line = np.unique(centre_line(grid_edges(tree, sizes, steps)))
    return np.stack(np.unravel_index(line, sizes), axis=1)


def distance_band(
    tree: Tree, shape: Sequence[int], spacing: Sequence[float] | np.ndarray, band: float
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest distance to the edges, and the radius there, for the voxels near the tree.

    Args:
        band: how far to look, in voxels of the x axis.

    Returns:
        Two (z, y, x) float32 volumes in the unit of ``spacing``: the distance (infinite where it is ``band`` or
        more) and the radius at the closest point (0 there).
    """
    sizes, steps = check_grid(shape, spacing)
    edges = grid_edges(tree, sizes, steps)
    reach = np.full(len(edges.start), band * steps[2])
    distance = np.full(math.prod(sizes), np.inf, dtype=np.float32)
    radius = np.zeros(math.prod(sizes), dtype=np.float32)
    for near in near_voxels(edges, reach):
        d = np.sqrt(near.d2)
        closer = np.flatnonzero((d < band * steps[2]) & (d.astype(np.float32) < distance[near.flat]))
        closer = closer[np.argsort(-d[closer], kind="stable")]  # of equal voxels the last, the closest, stays
        flat = near.flat[closer]
        distance[flat] = d[closer]
        radius[flat] = _radius_at(edges, near, closer)
    return distance.reshape(sizes), radius.reshape(sizes)


def _target(distance: np.ndarray, a: float, d_max: float) -> np.ndarray:
    """exp(a (1 - d / d_max)) - 1 over its maximum, in place."""
    near = np.flatnonzero(np.isfinite(distance.ravel()))
    values = distance.ravel()[near].astype(np.float64)
    distance.fill(0)
    distance.ravel()[near] = np.expm1(a * (1 - values / d_max)) / np.expm1(a)
    return distance


def _radius_at(edges: GridEdges, near: Candidates, which: np.ndarray | slice) -> np.ndarray:
    edge = near.edge[which]
    return edges.r_start[edge] + near.t[which] * edges.r_change[edge]


def _tubes(edges: GridEdges, floor: float | None) -> np.ndarray:
    """Union of the tubes (radii of at least ``floor``; None: no tubes) and the centre line."""
    label = np.zeros(edges.shape, dtype=bool)
    flat_label = label.reshape(-1)
    line = centre_line(edges)
    flat_label[line] = True
    if floor is None:
        return label
    tapered = Tapered(edges, floor)
    for near in near_voxels(edges, np.maximum(edges.max_radii(), floor)):
        radius = np.maximum(_radius_at(edges, near, slice(None)), floor)
        inside = np.flatnonzero(near.d2 <= radius * radius)
        flat_label[near.flat[inside]] = True
        tapered.note(near, inside)
    bridge(label, line, tapered)
    return label
