"""Thinning of a mask to its centreline, without losing any component."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csgraph

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.skeleton.components import label_components
from nnunet_neurino.skeleton.graph import adjacency
from nnunet_neurino.skeleton.neighbours import HALF_NEIGHBOURHOOD, neighbour_pairs


def skeletonise(mask: NDArray) -> NDArray[np.bool_]:
    """One-voxel-wide centreline of a 3-D mask; every 26-component of the mask keeps a connected skeleton.

    Thinning is Lee's (scikit-image). It deletes some objects of even cross-section entirely (cubes, two-wide bars);
    such a component gets its centreline back as the deepest path between its two geodesically farthest voxels, or
    its deepest voxel where it is no longer than it is thick.

    Args:
        mask: array (z, y, x); non-zero voxels are foreground.

    Returns:
        Boolean array of the same shape, a subset of the mask.

    Example:
        >>> import numpy as np
        >>> bar = np.zeros((8, 8, 30), bool)
        >>> bar[2:6, 2:6, 3:27] = True
        >>> int(skeletonise(bar).sum()) > 15
        True
    """
    from skimage.morphology import skeletonize  # slow to load, and most users of this folder thin nothing

    mask = np.asarray(mask) != 0
    if mask.ndim != 3:
        raise NeurinoError(f"skeletonise: expected a mask of shape (z, y, x), got shape {mask.shape}; pass one volume")
    skeleton = np.zeros(mask.shape, bool)
    box = ndimage.find_objects(mask.view(np.uint8), 1)[0] if mask.any() else None
    if box is None:
        return skeleton
    inside = np.ascontiguousarray(mask[box])
    thin = skeletonize(inside, method="lee") > 0
    _rescue(inside, thin)
    skeleton[box] = thin
    return skeleton


def _rescue(mask: NDArray[np.bool_], skeleton: NDArray[np.bool_]) -> None:
    """Give every component of ``mask`` without a voxel in ``skeleton`` a centreline, in place."""
    labels, count = label_components(mask)
    kept = np.zeros(count + 1, bool)
    kept[labels[skeleton]] = True
    kept[0] = True
    if kept.all():
        return
    boxes = ndimage.find_objects(labels)
    for label in np.flatnonzero(~kept):
        box = boxes[label - 1]
        component = labels[box] == label
        skeleton[box] |= _centreline(component)


def _centreline(component: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Centreline of one 26-component as a path: between its two farthest voxels, through its deepest ones."""
    line = np.zeros(component.shape, bool)
    depth = ndimage.distance_transform_edt(np.pad(component, 1))[1:-1, 1:-1, 1:-1]
    voxels = np.argwhere(component)
    depths = depth[component]
    deepest = int(depths.argmax())
    if max(component.shape) <= 2 * depths[deepest] + 1:
        line[tuple(voxels[deepest])] = True
        return line
    pairs, steps = neighbour_pairs(voxels)
    length = np.linalg.norm(HALF_NEIGHBOURHOOD, axis=1)[steps]
    # A step between two voxels of depth d costs (depth_max / d)^2 times its length: the middle is much cheaper.
    toll = (2 * depths[deepest] / (depths[pairs[:, 0]] + depths[pairs[:, 1]])) ** 2
    plain = adjacency(len(voxels), pairs, length)
    start = int(csgraph.dijkstra(plain, indices=deepest).argmax())
    end = int(csgraph.dijkstra(plain, indices=start).argmax())
    dear = adjacency(len(voxels), pairs, length * toll)
    _, before = csgraph.dijkstra(dear, indices=start, return_predecessors=True)
    step = end
    while step >= 0:
        line[tuple(voxels[step])] = True
        step = int(before[step])
    return line
