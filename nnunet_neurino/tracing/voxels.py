"""The foreground as a graph of voxels that touch, each with its depth below the surface."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from nnunet_neurino.skeleton.graph import components
from nnunet_neurino.skeleton.neighbours import HALF_NEIGHBOURHOOD, neighbour_pairs
from nnunet_neurino.tracing.lines import Floats, Ints

_FACES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])


@dataclass(frozen=True)
class VoxelGraph:
    """Foreground voxels and who touches whom.

    Attributes:
        voxels: (n, 3) indices z, y, x.
        links: (m, 2) pairs of touching voxels (26 neighbours), each once.
        lengths: (m,) distances of the pairs.
        depth: (n,) distance of each voxel's middle to that of the nearest background voxel.
        border: (k, 3) background voxels that touch the foreground.
        size: (3,) number of voxels of the mask z, y, x.
        spacing: (3,) size of a voxel z, y, x; all lengths are in its unit.
    """

    voxels: Ints
    links: NDArray[np.int32]
    lengths: NDArray[np.float64]
    depth: Floats
    border: Ints
    size: Ints
    spacing: Floats

    @classmethod
    def of(cls, mask: NDArray[np.bool_], spacing: Floats, least: int = 1) -> VoxelGraph:
        """The graph of a mask (z, y, x) without components of fewer than ``least`` voxels.

        What lies outside the image is unknown and not taken for background; but no voxel is deeper than half the
        smallest extent of the whole foreground.
        """
        box = ndimage.find_objects(mask.view(np.uint8))
        voxels = np.argwhere(mask[box[0]]) + [side.start for side in box[0]] if box else np.empty((0, 3), np.int64)
        links, steps = neighbour_pairs(voxels)
        if least > 1 and len(voxels):
            component = components(len(voxels), links)
            large = (np.bincount(component) >= least)[component]
            number = (np.cumsum(large) - 1).astype(np.int32)
            kept = large[links[:, 0]]
            voxels, links, steps = voxels[large], number[links[kept]], steps[kept]
        lengths = np.linalg.norm(HALF_NEIGHBOURHOOD * spacing, axis=1)[steps]
        border = _border(mask, voxels)
        thinnest = 0.5 * float(((np.ptp(voxels, axis=0) + 2) * spacing).min()) if len(voxels) else 0.0
        depth = np.full(len(voxels), max(thinnest, float(spacing.min())))
        graph = cls(voxels, links, lengths, depth, border, np.array(mask.shape), spacing)
        return replace(graph, depth=graph.depth_at(graph.positions()))

    def components(self) -> Ints:
        """Number of the connected component of each voxel."""
        return components(len(self.voxels), self.links)

    def weighted(self, weights: Floats) -> csr_array:
        """Half of the symmetric adjacency matrix with a weight for each of the links."""
        n = len(self.voxels)
        return csr_array((weights, (self.links[:, 0], self.links[:, 1])), shape=(n, n))

    def positions(self) -> Floats:
        """Positions (n, 3) of the voxels in the unit of ``spacing``."""
        return self.voxels * self.spacing

    def depth_at(self, points: Floats) -> Floats:
        """Depth of any positions (n, 3), in the unit of ``spacing``."""
        most = float(self.depth.max(initial=0.0))
        if not len(self.border):
            return np.full(len(points), most)
        return np.minimum(cKDTree(self.border * self.spacing).query(points)[0], most)


def _border(mask: NDArray[np.bool_], voxels: Ints) -> Ints:
    """Background voxels (k, 3) inside the image that touch one of ``voxels`` by a face."""
    beside = (voxels + _FACES[:, None]).reshape(-1, 3)
    beside = beside[((beside >= 0) & (beside < mask.shape)).all(axis=1)]
    beside = beside[~mask[tuple(beside.T)]]
    flat = np.unique(np.ravel_multi_index(tuple(beside.T), mask.shape))
    return np.stack(np.unravel_index(flat, mask.shape), axis=1)
