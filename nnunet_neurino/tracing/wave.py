"""Centre lines by wave fronts: a wave runs from the thickest place of each component through the foreground.

The voxels that the wave reaches at about the same time form fronts; the connected pieces of each front are the points
of the centre line, at their centroids, and points whose fronts touch are joined. Of narrow loops the joins with the
least contact are left out; wide loops stay. Unlike thinning this never loses an object, and there are few spurs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from nnunet_neurino.tracing.lines import Floats, Ints, Lines, cheapest_forest, with_wide_loops

_OFFSETS = np.array([(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1)][:13])
_FACES = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)])


@dataclass(frozen=True)
class VoxelGraph:
    """Foreground voxels and who touches whom.

    Attributes:
        voxels: (n, 3) indices z, y, x.
        links: (m, 2) pairs of touching voxels (26 neighbours), each once.
        lengths: (m,) distances of the pairs.
        border: (k, 3) background voxels that touch the foreground by a face.
        spacing: (3,) size of a voxel z, y, x; all lengths are in its unit.
    """

    voxels: Ints
    links: NDArray[np.int32]
    lengths: NDArray[np.float32]
    border: Ints
    spacing: Floats

    def components(self) -> Ints:
        """Number of the connected component of each voxel."""
        n = len(self.voxels)
        links = coo_array((np.ones(len(self.links), np.int8), tuple(self.links.T)), shape=(n, n))
        return connected_components(links, directed=False)[1].astype(np.int64)

    def depth(self, positions: Floats) -> Floats:
        """Distance of positions (n, 3), in voxel indices, to the middle of the nearest background voxel.

        What lies outside the image is unknown and not taken for background.
        """
        if not len(self.border):
            return np.full(len(positions), 0.5 * float((np.ptp(self.voxels, axis=0) + 1).min()))
        tree = cKDTree(self.border * self.spacing)
        return tree.query(positions * self.spacing, workers=-1)[0]


def voxel_graph(mask: NDArray[np.bool_], spacing: Floats) -> VoxelGraph:
    """The voxel graph of a bool array (z, y, x) with voxels of ``spacing``."""
    used = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not len(used[0]):
        none = np.empty((0, 3), dtype=np.int64)
        return VoxelGraph(none, np.empty((0, 2), np.int32), np.empty(0, np.float32), none, spacing)
    low = np.array([max(u[0] - 1, 0) for u in used])
    high = np.array([min(u[-1] + 2, size) for u, size in zip(used, mask.shape, strict=True)])
    inside = mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    # -2 outside the image or the box, -1 background, else the number of the voxel
    index = np.full(np.array(inside.shape) + 2, -2, dtype=np.int32)
    core = index[1:-1, 1:-1, 1:-1]
    core[...] = -1
    flat = np.flatnonzero(np.pad(inside, 1))
    index.ravel()[flat] = np.arange(len(flat), dtype=np.int32)
    steps = np.array([index.shape[1] * index.shape[2], index.shape[2], 1])

    links, lengths = [], []
    for offset in _OFFSETS:
        other = index.ravel()[flat + int(offset @ steps)]
        has = np.flatnonzero(other >= 0).astype(np.int32)
        links.append(np.stack([has, other[has]], axis=1))
        lengths.append(np.full(len(has), np.linalg.norm(offset * spacing), dtype=np.float32))
    beside = [flat + int(offset @ steps) for offset in _FACES]
    border = np.unique(np.concatenate([near[index.ravel()[near] == -1] for near in beside]))
    origin = low - 1
    return VoxelGraph(
        np.stack(np.unravel_index(flat, index.shape), axis=1) + origin,
        np.concatenate(links),
        np.concatenate(lengths),
        np.stack(np.unravel_index(border, index.shape), axis=1) + origin,
        spacing,
    )


def select(graph: VoxelGraph, wanted: NDArray[np.bool_]) -> VoxelGraph:
    """The voxel graph of the wanted voxels (whole components)."""
    if wanted.all():
        return graph
    number = (np.cumsum(wanted) - 1).astype(np.int32)
    kept = wanted[graph.links[:, 0]]
    return VoxelGraph(graph.voxels[wanted], number[graph.links[kept]], graph.lengths[kept], graph.border, graph.spacing)


def wave_lines(graph: VoxelGraph, seeds: Ints, step: float) -> Lines:
    """Trace a voxel graph by wave fronts of thickness ``step`` that start at voxels ``seeds``, one a component."""
    n = len(graph.voxels)
    weights = csr_array((graph.lengths, (graph.links[:, 0], graph.links[:, 1])), shape=(n, n))
    arrival = dijkstra(weights, directed=False, indices=seeds, min_only=True)
    front = (arrival / step).astype(np.int64)

    same = front[graph.links[:, 0]] == front[graph.links[:, 1]]
    within = graph.links[same]
    inner = coo_array((np.ones(len(within), np.int8), (within[:, 0], within[:, 1])), shape=(n, n))
    n_points, point = connected_components(inner, directed=False)
    size = np.bincount(point)
    centre = np.stack([np.bincount(point, graph.voxels[:, axis]) / size for axis in range(3)], axis=1)
    centre = _onto_foreground(centre, graph, point)

    pairs = np.sort(point[graph.links[~same]].astype(np.int64), axis=1)
    keys, contact = np.unique(pairs[:, 0] * n_points + pairs[:, 1], return_counts=True)
    pairs = np.stack([keys // n_points, keys % n_points], axis=1)
    joined = cheapest_forest(pairs, 1.0 / contact + np.arange(len(pairs)) * 1e-12, n_points)
    points = centre * graph.spacing
    closers = pairs[~joined][np.argsort(-contact[~joined], kind="stable")]
    radii = _radius(graph, centre)
    return Lines(points, radii, with_wide_loops(points, radii, pairs[joined], closers))


def _onto_foreground(centre: Floats, graph: VoxelGraph, point: NDArray) -> Floats:
    """Move centroids that lie on background to the nearest voxel of their own front."""
    offset = (graph.voxels - centre[point]) * graph.spacing
    squared = np.einsum("ij,ij->i", offset, offset)
    order = np.lexsort((squared, point))
    nearest = order[np.searchsorted(point[order], np.arange(len(centre)))]
    outside = np.any(np.abs(graph.voxels[nearest] - centre) > 0.5 + 1e-9, axis=1)
    return np.where(outside[:, None], graph.voxels[nearest], centre)


def _radius(graph: VoxelGraph, centre: Floats) -> Floats:
    """Radius of the tube at positions in voxel indices: distance to the background less half a voxel."""
    # Between two thick slices the steps of the surface come near; the voxel's own middle does not see them.
    depth = np.maximum(graph.depth(centre), graph.depth(np.rint(centre)))
    return np.maximum(depth - 0.5, 0.5)


def measured(lines: Lines, graph: VoxelGraph) -> Lines:
    """The lines with the radii of where their points are now; nearer to the middle they can only be larger.

    Tips keep theirs, and so do bridges, which lie on background.
    """
    inner = lines.degree() >= 2
    if not inner.any():
        return lines
    radii = lines.radii.copy()
    radii[inner] = np.maximum(radii[inner], _radius(graph, lines.points[inner] / graph.spacing))
    return replace(lines, radii=radii)


def thickest(graph: VoxelGraph, component: Ints) -> Ints:
    """The deepest voxel of each component."""
    touching = np.bincount(graph.links.ravel(), minlength=len(graph.voxels))
    depth = np.zeros(len(graph.voxels))
    thick = touching == 26
    depth[thick] = graph.depth(graph.voxels[thick].astype(np.float64))
    thin = ~thick
    depth[thin] = touching[thin] / 27.0  # in components without any inner voxel the best-surrounded one
    order = np.lexsort((-depth, component))
    return order[np.searchsorted(component[order], np.arange(component.max() + 1))].astype(np.int64)
