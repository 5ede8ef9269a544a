"""The published TASL: node, edge and path differences of two tubed skeletons, as numbers. Exact, without a graph."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from nnunet_neurino.skeleton.adjacency import HALF_NEIGHBOURHOOD
from nnunet_neurino.skeleton.components import label_components

_EPS = 1e-6
_CROSS = ndimage.generate_binary_structure(3, 1)
_TWO_AWAY = np.array([(2, 0, 0), (0, 2, 0), (0, 0, 2)])
_TREE_AT_MOST = 20_000
"""Nearest distances: a k-d tree up to so many voxels, a distance transform beyond."""


def published_terms(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], canonical: bool = False
) -> tuple[float, float, float]:
    """Node, edge and path differences of one pair of masks (z, y, x).

    Both masks are thinned (Lee), dilated by one voxel along the axes and cut back to the mask. With V the voxels of
    such a tube, E its pairs of voxels at distance 2 or less and l its mean voxels for each piece that these pairs
    connect: node is the symmetric mean distance to the nearest voxel of the other tube (0 if one is empty), edge the
    relative difference in E (0 if one has none), path the relative difference in l (1 if one has fewer than 2 voxels).

    Args:
        predicted: voxels with a foreground probability above 0.5.
        truth: voxels of the class.
        canonical: thin both in an orientation that depends on their content only, which makes the terms invariant to
            flips and axis permutations; as published, Lee's thinning is not.
    """
    if canonical:
        predicted, truth = _canonical_orientation(predicted, truth)
    tube_p, tube_t = _tube(predicted), _tube(truth)
    (n_p, edges_p, length_p), (n_t, edges_t, length_t) = _measure(tube_p), _measure(tube_t)
    node = edge = 0.0
    if n_p and n_t:
        node = (_mean_distance(tube_p, tube_t) + _mean_distance(tube_t, tube_p)) / 2
    if edges_p and edges_t:
        edge = abs(edges_p - edges_t) / (edges_t + _EPS)
    path = 1.0 if min(n_p, n_t) < 2 else abs(length_p - length_t) / (length_t + _EPS)
    return node, edge, path


def _tube(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    tube = np.zeros(mask.shape, bool)
    if mask.any():
        box = ndimage.find_objects(mask.view(np.uint8), 1)[0]
        inside = np.ascontiguousarray(mask[box])
        tube[box] = ndimage.binary_dilation(skeletonize(inside, method="lee") > 0, _CROSS) & inside
    return tube


def _measure(tube: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Voxels, pairs at distance <= 2, mean voxels of a piece."""
    n = int(np.count_nonzero(tube))
    if n == 0:
        return 0, 0, 0.0
    box = ndimage.find_objects(tube.view(np.uint8), 1)[0]
    tube = np.ascontiguousarray(tube[box])
    n_edges = sum(int(np.count_nonzero(a & b)) for a, b in (_shifted(tube, s) for s in HALF_NEIGHBOURHOOD))
    labels, n_pieces = label_components(tube)
    bridges = []
    for step in _TWO_AWAY:
        a, b = _shifted(labels, step)
        both = (a > 0) & (b > 0)
        n_edges += int(np.count_nonzero(both))
        both &= a != b
        bridges.append(np.stack([a[both], b[both]], 1).astype(np.int64))
    joined = np.concatenate(bridges)
    if len(joined):
        links = sparse.coo_matrix(
            (np.ones(len(joined)), (joined[:, 0] - 1, joined[:, 1] - 1)), shape=(n_pieces, n_pieces)
        )
        n_pieces = csgraph.connected_components(links, directed=False)[0]
    return n, n_edges, n / n_pieces


def _shifted(volume: NDArray, step: NDArray) -> tuple[NDArray, NDArray]:
    """Two views of a volume that pair each voxel with the one a step (z, y, x) away."""
    here = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in zip(step, volume.shape, strict=True))
    there = tuple(slice(max(s, 0), n - max(-s, 0)) for s, n in zip(step, volume.shape, strict=True))
    return volume[here], volume[there]


def _mean_distance(of: NDArray[np.bool_], to: NDArray[np.bool_]) -> float:
    """Mean distance in voxels from the voxels of one mask to the nearest of another; none may be empty."""
    n = int(np.count_nonzero(of))
    apart = of & ~to  # all others are at distance 0
    n_apart = int(np.count_nonzero(apart))
    if n_apart == 0:
        return 0.0
    if n_apart + int(np.count_nonzero(to)) > _TREE_AT_MOST:
        return float(ndimage.distance_transform_edt(~to)[apart].sum()) / n
    return float(cKDTree(np.argwhere(to)).query(np.argwhere(apart))[0].sum()) / n


def _canonical_orientation(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The pair in the one of its 48 orientations that comes last in dictionary order (shape, profiles, voxels)."""
    both = np.stack([predicted, truth])
    flips = []
    for axis in (1, 2, 3):
        profile = both.sum(axis=tuple(a for a in (1, 2, 3) if a != axis))  # (2, length)
        forward, backward = profile.ravel().tolist(), profile[:, ::-1].ravel().tolist()
        flips.append([s for s, p in ((1, forward), (-1, backward)) if p == max(forward, backward)])
    best: tuple = ()
    chosen = both
    # Flips whose profiles differ are settled; the rest, and the order of the axes, by comparing what comes out.
    for order in itertools.permutations(range(3)):
        for signs in itertools.product(*(flips[a] for a in order)):
            view = both.transpose(0, *(a + 1 for a in order))[(slice(None), *(slice(None, None, s) for s in signs))]
            profiles = tuple(tuple(view.sum(axis=tuple(b for b in (1, 2, 3) if b != a)).ravel()) for a in (1, 2, 3))
            key = (view.shape, profiles)
            if not best or key > best[:2] or (key == best[:2] and view.tobytes() > best[2]):
                best, chosen = (*key, view.tobytes()), view
    return np.ascontiguousarray(chosen[0]), np.ascontiguousarray(chosen[1])
