"""The published TASL: node, edge and path differences of two tubed skeletons, as numbers. Exact, without a graph."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from nnunet_neurino.skeleton.components import label_components
from nnunet_neurino.skeleton.graph import components
from nnunet_neurino.skeleton.neighbours import HALF_NEIGHBOURHOOD

_EPS = 1e-6
_PAD = 2
"""Empty voxels around a volume, so that steps of two never leave it."""
_CROSS = np.array([(0, 0, 0), *(tuple(s * (a == b) for b in range(3)) for a in range(3) for s in (1, -1))])
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
    n_p, n_t = len(tube_p.voxels), len(tube_t.voxels)
    (edges_p, length_p), (edges_t, length_t) = _measure(tube_p), _measure(tube_t)
    node = edge = 0.0
    if n_p and n_t:
        node = (_mean_distance(tube_p, tube_t) + _mean_distance(tube_t, tube_p)) / 2
    if edges_p and edges_t:
        edge = abs(edges_p - edges_t) / (edges_t + _EPS)
    path = 1.0 if min(n_p, n_t) < 2 else abs(length_p - length_t) / (length_t + _EPS)
    return node, edge, path


@dataclass(frozen=True)
class _Tube:
    member: NDArray[np.bool_]
    """Its voxels in the padded volume."""
    voxels: NDArray[np.int64]
    """The same as numbers (n,) in C order of the padded volume."""


def _tube(mask: NDArray[np.bool_]) -> _Tube:
    member = np.zeros(tuple(s + 2 * _PAD for s in mask.shape), bool)
    box = _bounding_box(mask)
    if box is None:
        return _Tube(member, np.zeros(0, np.int64))
    allowed = np.zeros_like(member)
    allowed[_PAD:-_PAD, _PAD:-_PAD, _PAD:-_PAD] = mask
    thin = np.argwhere(skeletonize(np.ascontiguousarray(mask[box]), method="lee"))
    strides = _strides(member.shape)
    around = ((thin + [b.start + _PAD for b in box]) @ strides)[:, None] + _CROSS @ strides
    member.ravel()[around[allowed.ravel()[around]]] = True
    return _Tube(member, np.flatnonzero(member))


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    box = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if len(used) == 0:
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def _strides(shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.array([shape[1] * shape[2], shape[2], 1])


def _measure(tube: _Tube) -> tuple[int, float]:
    """Pairs of voxels at distance <= 2, and mean voxels of a piece."""
    n = len(tube.voxels)
    if n == 0:
        return 0, 0.0
    strides = _strides(tube.member.shape)
    steps = np.concatenate([HALF_NEIGHBOURHOOD, _TWO_AWAY]) @ strides
    n_edges = sum(int(np.count_nonzero(tube.member.ravel()[tube.voxels + step])) for step in steps)
    labels, n_pieces = label_components(tube.member)
    own = labels.ravel()[tube.voxels]
    across = []
    for step in _TWO_AWAY @ strides:
        other = labels.ravel()[tube.voxels + step]
        apart = (other > 0) & (other != own)
        across.append(np.stack([own[apart], other[apart]], 1).astype(np.int64) - 1)
    return n_edges, n / (int(components(n_pieces, np.concatenate(across)).max()) + 1)


def _mean_distance(of: _Tube, to: _Tube) -> float:
    """Mean distance in voxels from the voxels of one tube to the nearest of another; none may be empty."""
    apart = of.voxels[~to.member.ravel()[of.voxels]]  # all others are at distance 0
    if len(apart) == 0:
        return 0.0
    if len(apart) + len(to.voxels) > _TREE_AT_MOST:
        total = ndimage.distance_transform_edt(~to.member).ravel()[apart].sum()
    else:
        targets, points = (np.stack(np.unravel_index(v, to.member.shape), 1) for v in (to.voxels, apart))
        total = cKDTree(targets).query(points)[0].sum()
    return float(total) / len(of.voxels)


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
