"""Centre lines by wave fronts: a wave runs from the thickest place of each component through the foreground.

The voxels that the wave reaches at about the same time form fronts; the connected pieces of each front are the points
of the centre line, at their centroids, and points whose fronts touch are joined. Of narrow loops the joins with the
least contact are left out; wide loops stay. Unlike thinning this never loses an object, and there are few spurs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from nnunet_neurino.skeleton.graph import components
from nnunet_neurino.skeleton.neighbours import HALF_NEIGHBOURHOOD, neighbour_pairs
from nnunet_neurino.tracing.lines import Floats, Ints, Lines, cheapest_forest, with_wide_loops


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
        return components(len(self.voxels), self.links)

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
    box = ndimage.find_objects(mask.view(np.uint8))
    if not box:
        none = np.empty((0, 3), dtype=np.int64)
        return VoxelGraph(none, np.empty((0, 2), np.int32), np.empty(0, np.float32), none, spacing)
    low = np.array([max(side.start - 1, 0) for side in box[0]])
    inside = mask[tuple(slice(start, side.stop + 1) for start, side in zip(low, box[0], strict=True))]
    voxels = np.argwhere(inside)
    links, steps = neighbour_pairs(voxels)
    lengths = np.linalg.norm(HALF_NEIGHBOURHOOD * spacing, axis=1).astype(np.float32)[steps]
    border = np.argwhere(ndimage.binary_dilation(inside) & ~inside)
    return VoxelGraph(voxels + low, links, lengths, border + low, spacing)


def select(graph: VoxelGraph, wanted: NDArray[np.bool_]) -> VoxelGraph:
    """The voxel graph of the wanted voxels (whole components)."""
    if wanted.all():
        return graph
    number = (np.cumsum(wanted) - 1).astype(np.int32)
    kept = wanted[graph.links[:, 0]]
    return VoxelGraph(graph.voxels[wanted], number[graph.links[kept]], graph.lengths[kept], graph.border, graph.spacing)


def wave_lines(graph: VoxelGraph, seeds: Ints, thickness: float) -> Lines:
    """Trace a voxel graph by wave fronts of that ``thickness`` which start at voxels ``seeds``, one a component."""
    n = len(graph.voxels)
    weights = csr_array((graph.lengths, (graph.links[:, 0], graph.links[:, 1])), shape=(n, n))
    arrival = dijkstra(weights, directed=False, indices=seeds, min_only=True)
    front = (arrival / thickness).astype(np.int64)

    same = front[graph.links[:, 0]] == front[graph.links[:, 1]]
    within = graph.links[same]
    point = components(n, within)
    size = np.bincount(point)
    n_points = len(size)
    centre = np.stack([np.bincount(point, graph.voxels[:, axis]) / size for axis in range(3)], axis=1)
    centre = _onto_foreground(centre, graph, point)

    pairs = np.sort(point[graph.links[~same]], axis=1)
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
