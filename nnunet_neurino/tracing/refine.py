"""Make centre lines smooth and evenly sampled without leaving the foreground."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_neurino.tracing.lines import Floats, Ints, Lines, lengths_along

Mask = NDArray[np.bool_]

_FURTHEST = 1.0  # that recentring moves a point, in voxels of the finest axis


def inside(points: Floats, mask: Mask, scale: Floats) -> NDArray[np.bool_]:
    """Whether points (..., 3) lie on a foreground voxel; ``scale`` is the size of a voxel in the points' unit."""
    voxel = np.rint(points / scale).astype(np.int64)
    within = ((voxel >= 0) & (voxel < mask.shape)).all(axis=-1)
    voxel = np.clip(voxel, 0, np.array(mask.shape) - 1)
    return within & mask[voxel[..., 0], voxel[..., 1], voxel[..., 2]]


def outside_share(starts: Floats, ends: Floats, mask: Mask, scale: Floats) -> Floats:
    """Share (m,) of each straight edge (m, 3) to (m, 3) that lies on background."""
    a, b = starts / scale, ends / scale
    low = np.minimum(a, b)
    # An edge enters another voxel where a coordinate is a half.
    most = int(np.ceil(np.abs(b - a)).max(initial=0.0)) + 1
    halves = np.floor(low + 0.5)[..., None] + 0.5 + np.arange(most)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (halves - a[..., None]) / (b - a)[..., None]
    shares = np.where((shares > 0) & (shares < 1), shares, 1.0).reshape(len(a), 3 * most)
    shares = np.sort(np.concatenate([np.zeros((len(a), 1)), shares, np.ones((len(a), 1))], axis=1), axis=1)
    middles = 0.5 * (shares[:, 1:] + shares[:, :-1])
    lengths = np.diff(shares, axis=1)
    places = starts[:, None] + middles[..., None] * (ends - starts)[:, None]
    return (lengths * ~inside(places, mask, scale)).sum(axis=1)


def recentre(lines: Lines, voxels: Floats, mask: Mask, scale: Floats) -> Lines:
    """Move every point, but by a voxel at most, to the mean of the foreground voxels that it is the nearest point of.

    Tips stay.

    Args:
        lines: centre lines.
        voxels: (n, 3) positions of the foreground voxels in the unit of the lines.
        mask: (z, y, x) the foreground.
        scale: (3,) size of a voxel in the unit of the lines.
    """
    distance, nearest = cKDTree(lines.points).query(voxels)
    own = distance <= 2.0 * lines.radii[nearest] + 2.0
    nearest, voxels = nearest[own], voxels[own]
    size = np.bincount(nearest, minlength=len(lines.points))
    sums = np.stack([np.bincount(nearest, voxels[:, a], minlength=len(lines.points)) for a in range(3)], axis=1)
    shift = sums / np.maximum(size, 1)[:, None] - lines.points
    shift *= np.minimum(1.0, _FURTHEST / np.maximum(np.linalg.norm(shift, axis=1), 1e-9))[:, None]
    shift[(lines.degree() < 2) | (size == 0)] = 0.0
    return _moved(lines, lines.points + shift, mask, scale)


def smooth(lines: Lines, mask: Mask, scale: Floats) -> Lines:
    """Move every point but tips half the way to the mean of its neighbours."""
    degree = lines.degree()
    both = np.concatenate([lines.edges, lines.edges[:, ::-1]])
    sums = np.stack([np.bincount(both[:, 0], lines.points[both[:, 1], a], len(degree)) for a in range(3)], axis=1)
    wanted = 0.5 * (lines.points + sums / np.maximum(degree, 1)[:, None])
    return _moved(lines, np.where(degree[:, None] >= 2, wanted, lines.points), mask, scale)


def _moved(lines: Lines, points: Floats, mask: Mask, scale: Floats) -> Lines:
    """The lines with their points elsewhere, but for points whose edges would then cross more background."""
    points = points.copy()
    before = _outside(lines.points, lines.edges, mask, scale)
    looked = np.arange(len(lines.edges))
    while len(looked):
        worse = _outside(points, lines.edges[looked], mask, scale) > before[looked] + 1e-9
        undo = np.unique(lines.edges[looked[worse]])
        points[undo] = lines.points[undo]
        # Undoing a point changes its other edges: look at these again.
        touched = np.zeros(len(points), dtype=bool)
        touched[undo] = True
        looked = np.flatnonzero(touched[lines.edges].any(axis=1))
    return replace(lines, points=points)


def _outside(points: Floats, edges: Ints, mask: Mask, scale: Floats) -> Floats:
    return outside_share(points[edges[:, 0]], points[edges[:, 1]], mask, scale)


def resample(lines: Lines, spacing: float, mask: Mask, scale: Floats) -> Lines:
    """Place points every ``spacing`` along each branch; keep the old ones where a chord would cross background.

    Forks and tips stay. Radii are interpolated.
    """
    degree = lines.degree()
    ends = np.flatnonzero(degree != 2)
    number = {int(point): i for i, point in enumerate(ends)}
    points, radii = [lines.points[ends]], [lines.radii[ends]]
    edges: list[tuple[int, int]] = []
    count = len(ends)
    for path in lines.branches():
        new_points, new_radii = _resample_path(lines.points[path], lines.radii[path], spacing, mask, scale)
        inner = list(range(count, count + len(new_points) - 2))
        count += len(inner)
        points.append(new_points[1:-1])
        radii.append(new_radii[1:-1])
        chain = [number[path[0]], *inner, number[path[-1]]]
        edges.extend(pairwise(chain))
    return Lines(np.concatenate(points), np.concatenate(radii), np.array(edges, dtype=np.int64).reshape(-1, 2))


def _resample_path(points: Floats, radii: Floats, spacing: float, mask: Mask, scale: Floats) -> tuple[Floats, Floats]:
    along = lengths_along(points)
    wanted = np.linspace(0.0, along[-1], max(round(along[-1] / spacing), 1) + 1)

    def at(places: Floats) -> Floats:
        return np.stack([np.interp(places, along, points[:, axis]) for axis in range(3)], axis=1)

    coarse = at(wanted)
    crossing = np.flatnonzero(outside_share(coarse[:-1], coarse[1:], mask, scale) > 0)
    kept = [along[(along > wanted[i] + 1e-9) & (along < wanted[i + 1] - 1e-9)] for i in crossing if len(points) > 2]
    places = np.unique(np.concatenate([wanted, *kept]))
    return at(places), np.interp(places, along, radii)
