"""Make centre lines smooth and evenly sampled without leaving the foreground."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_neurino.tracing.lines import Floats, Ints, Lines, lengths_along, onward
from nnunet_neurino.tracing.soma import thick_centres

Mask = NDArray[np.bool_]

_CALM = 0.33  # rounds of smoothing per squared radius, so that what recentring makes of a bend does not grow
_REACH = 0.25  # and the radius counts only up to this share of the way to the end of the branch


def inside(points: Floats, mask: Mask, scale: Floats) -> NDArray[np.bool_]:
    """Whether points (..., 3) lie on a foreground voxel; ``scale`` is the size of a voxel in the points' unit."""
    voxel = np.rint(points / scale).astype(np.int64)
    within = ((voxel >= 0) & (voxel < mask.shape)).all(axis=-1)
    voxel = np.clip(voxel, 0, np.array(mask.shape) - 1)
    return within & mask[voxel[..., 0], voxel[..., 1], voxel[..., 2]]


def outside_share(starts: Floats, ends: Floats, mask: Mask, scale: Floats) -> Floats:
    """Share of each straight edge (m, 3) to (m, 3) that lies on background, seen at nine places."""
    shares = np.linspace(0, 1, 9)
    places = starts[:, None] + shares[:, None] * (ends - starts)[:, None]
    return 1.0 - inside(places, mask, scale).mean(axis=1)


def straighten_tips(lines: Lines) -> Lines:
    """Put every tip where its neurite is heading.

    The last front of a wave is a few voxels in a corner of the neurite's end, which says how far the neurite goes but
    not where its middle is. Its radius is taken from the point before.
    """
    neighbours = lines.neighbours()
    points, radii = lines.points.copy(), lines.radii.copy()
    for tip in np.flatnonzero(lines.degree() == 1).tolist():
        path = [tip, *islice(onward(neighbours, tip, neighbours[tip][0]), 4)]
        if len(path) < 3:
            continue
        heading = lines.points[path[1]] - lines.points[path[2:]].mean(axis=0)
        length = float(np.linalg.norm(heading))
        if length < 1e-6:
            continue
        heading /= length
        ahead = float((lines.points[tip] - lines.points[path[1]]) @ heading)
        points[tip] = lines.points[path[1]] + max(ahead, 0.25) * heading
        radii[tip] = lines.radii[path[1]]
    return Lines(points, radii, lines.edges)


def recentre(lines: Lines, voxels: Floats) -> Lines:
    """Move every point to the mean of the foreground voxels that it is the nearest point of.

    The fronts of a wave are slanted, the cells of the nearest-point rule are straight cross-sections. Tips and cell
    bodies stay, and no point moves further than its radius.

    Args:
        lines: centre lines.
        voxels: (n, 3) positions of the foreground voxels in the unit of the lines.
    """
    if not len(lines.points) or not len(voxels):
        return lines
    distance, nearest = cKDTree(lines.points).query(voxels, workers=-1)
    own = distance <= 2.0 * lines.radii[nearest] + 2.0
    nearest, voxels = nearest[own], voxels[own]
    size = np.bincount(nearest, minlength=len(lines.points))
    sums = np.stack([np.bincount(nearest, voxels[:, a], minlength=len(lines.points)) for a in range(3)], axis=1)
    shift = sums / np.maximum(size, 1)[:, None] - lines.points
    movable = (lines.degree() >= 2) & (size > 0)
    movable[thick_centres(lines)] = False
    movable &= np.linalg.norm(shift, axis=1) <= np.maximum(lines.radii, 1.0)
    return replace(lines, points=lines.points + shift * movable[:, None])


def smooth(lines: Lines, rounds: int, mask: Mask, scale: Floats) -> Lines:
    """Move every point towards the mean of its two neighbours, but never so that a line crosses more background.

    A fork moves as a point of the straightest line through it. Tips and cell bodies stay.
    """
    free = lines.degree() >= 2
    free[thick_centres(lines)] = False
    movable = np.flatnonzero(free)
    if not rounds or not len(movable):
        return lines
    pairs = _straightest_neighbours(lines, movable)
    points = lines.points.copy()
    before = _outside(points, movable, pairs, mask, scale)
    wanted = rounds * _calming_rounds(lines)[movable]
    for done in range(int(wanted.max())):
        if done:
            still = wanted > done
            movable, pairs, before, wanted = movable[still], pairs[still], before[still], wanted[still]
        old = points.copy()
        points[movable] = 0.5 * old[movable] + 0.25 * (old[pairs[:, 0]] + old[pairs[:, 1]])
        for _ in range(4):  # undoing one point changes its neighbours' edges: look again
            worse = _outside(points, movable, pairs, mask, scale) > before + 1e-9
            moved = (points[movable] != old[movable]).any(axis=1)
            undo = worse & moved
            if not undo.any():
                break
            points[movable[undo]] = old[movable[undo]]
    return replace(lines, points=points)


def _calming_rounds(lines: Lines) -> Ints:
    """How often each point of a thick neurite must be smoothed after it was recentred, at least once.

    The cells of :func:`recentre` lean with the line, which makes its bends larger by a share that grows with the
    square of the radius. Near the ends of a branch there is less to smooth.
    """
    if not (_CALM * lines.radii**2 >= 1.5).any():
        return np.ones(len(lines.points), dtype=np.int64)
    reach = np.zeros(len(lines.points))
    for path in lines.branches():
        along = lengths_along(lines.points[path])
        reach[path] = np.minimum(along, along[-1] - along)
    return np.maximum(np.rint(_CALM * np.minimum(lines.radii, _REACH * reach) ** 2), 1).astype(np.int64)


def _straightest_neighbours(lines: Lines, movable: Ints) -> Ints:
    """The two neighbours (n, 2) of each point that lie most nearly on opposite sides of it."""
    both = np.concatenate([lines.edges, lines.edges[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    first = np.searchsorted(both[:, 0], movable)
    pairs = np.stack([both[first, 1], both[first + 1, 1]], axis=1)
    degree = lines.degree()
    for row in np.flatnonzero(degree[movable] > 2).tolist():
        around = both[first[row] : first[row] + degree[movable[row]], 1]
        ways = lines.points[around] - lines.points[movable[row]]
        ways = ways / np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-12)
        a, b = np.unravel_index(int(np.argmin(ways @ ways.T)), (len(around), len(around)))
        pairs[row] = around[a], around[b]
    return pairs


def _outside(points: Floats, movable: Ints, pairs: Ints, mask: Mask, scale: Floats) -> Floats:
    middle = points[movable]
    return outside_share(middle, points[pairs[:, 0]], mask, scale) + outside_share(
        middle, points[pairs[:, 1]], mask, scale
    )


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
