"""Edges of a tree on an image grid, and the voxels near them, in chunks of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc.tree import SOMA, Tree

#: Candidate voxels that are looked at in one go; a slice of one edge's box may be larger.
_CHUNK = 2**16
# More candidate voxels than these take minutes, and come from radii in another unit: so many at all, or so many and
# this many times those of the image.
_MOST_CANDIDATES, _MANY_CANDIDATES, _MOST_TIMES = 2e9, 5e7, 30
#: 64 GiB of label.
MAX_VOXELS = 2**36


@dataclass(frozen=True)
class GridEdges:
    """Edges in physical units, ready for distance tests; nodes without an edge are edges of length zero."""

    start: np.ndarray  # (m, 3) child ends in z, y, x, physical (voxel index times spacing)
    vector: np.ndarray  # (m, 3) from the child end to the parent end
    r_start: np.ndarray  # (m,) physical radius at the child end
    r_change: np.ndarray  # (m,) radius at the parent end minus that at the child end
    shape: tuple[int, int, int]  # image shape z, y, x
    spacing: np.ndarray  # (3,) physical size of a voxel, z, y, x

    def max_radii(self) -> np.ndarray:
        """The larger of an edge's two radii, physical."""
        return self.r_start + np.maximum(self.r_change, 0)


@dataclass(frozen=True)
class Candidates:
    """Voxels near edges: flat index into the volume, edge, position t along it (0 child, 1 parent), distance²."""

    flat: np.ndarray
    edge: np.ndarray
    t: np.ndarray
    d2: np.ndarray


def check_grid(shape: Sequence[int], spacing: Sequence[float] | np.ndarray) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape (z, y, x) as ints and spacing (z, y, x) as floats, or NeurinoError."""
    try:
        sizes = tuple(int(n) for n in shape)
        steps = np.array([float(s) for s in spacing])
    except (TypeError, ValueError, OverflowError):
        sizes, steps = (), np.zeros(0)
    if len(sizes) != 3 or min(sizes) < 1:
        raise NeurinoError(f"shape {tuple(shape)!r}: expected three positive sizes z, y, x")
    if math.prod(sizes) > MAX_VOXELS:
        raise NeurinoError(f"shape {sizes}: more than {MAX_VOXELS} voxels; cut the image into blocks")
    if steps.shape != (3,) or not ((steps >= 1e-6) & (steps <= 1e6)).all():
        raise NeurinoError(f"spacing {tuple(spacing)!r}: expected three positive numbers z, y, x, 1e-6 to 1e6")
    return sizes, steps


def grid_edges(
    tree: Tree, shape: tuple[int, int, int], spacing: np.ndarray, radii: np.ndarray | None = None
) -> GridEdges:
    """All edges, the lone nodes and, as balls of their own, the somata that wrap a neighbour whole.

    Args:
        radii: (n,) physical; by default those of the tree, which count voxels of x unless it is in micrometres.
    """
    physical = tree.unit == "micrometre"
    positions = tree.xyz[:, ::-1] / spacing if physical else tree.xyz[:, ::-1]
    if radii is None:
        radii = tree.radii if physical else tree.radii * spacing[2]
    edges = tree.edges()
    alone = np.setdiff1d(np.arange(len(tree)), edges)
    ends = np.concatenate([edges, np.stack([alone, alone], axis=1)])
    a, b = positions[ends[:, 0]], positions[ends[:, 1]]
    ra, rb = radii[ends[:, 0]], radii[ends[:, 1]]

    # The closest-point rule would halve a soma that has one child inside it: draw its ball as well.
    wraps = np.abs(ra - rb) >= np.linalg.norm((b - a) * spacing, axis=1)
    larger = np.where(ra >= rb, 0, 1)
    soma = tree.types[np.take_along_axis(ends, larger[:, None], axis=1)[:, 0]] == SOMA
    extra = np.flatnonzero(wraps & soma)
    centre = np.where((larger[extra] == 0)[:, None], a[extra], b[extra])
    r_extra = np.maximum(ra[extra], rb[extra])
    a, b = np.concatenate([a, centre]), np.concatenate([b, centre])
    ra, rb = np.concatenate([ra, r_extra]), np.concatenate([rb, r_extra])
    return GridEdges(a * spacing, (b - a) * spacing, ra, rb - ra, shape, spacing)


def clip_to_box(a: np.ndarray, b: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Range t0, t1 (m,) within [0, 1] in which a + t (b - a) lies in the closed box; t0 > t1 where it misses it."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        t_low, t_high = (low - a) / (b - a), (high - a) / (b - a)
    inside = (a >= low) & (a <= high)
    still = a == b
    first = np.where(still, np.where(inside, 0.0, 2.0), np.minimum(t_low, t_high))
    last = np.where(still, np.where(inside, 1.0, -1.0), np.maximum(t_low, t_high))
    return np.maximum(first.max(axis=1), 0.0), np.minimum(last.min(axis=1), 1.0)


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every item its index ``counts`` times, and the running number within it."""
    index = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return index, np.arange(len(index)) - first[index]


def _pieces(edges: GridEdges, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes around short pieces of the edges: edge (k,), first and last voxel (k, 3) within the image."""
    shape = np.array(edges.shape)
    start, vector = edges.start / edges.spacing, edges.vector / edges.spacing
    margin = reach[:, None] / edges.spacing
    t0, t1 = clip_to_box(start, start + vector, -margin - 1, shape + margin)
    hit = np.flatnonzero(t0 <= t1)
    t0, t1 = t0[hit], t1[hit]
    span = np.abs(vector[hit]).max(axis=1) * (t1 - t0)
    wide = np.maximum(4.0, 2 * margin[hit].max(axis=1))
    counts = np.maximum(np.ceil(span / wide), 1).astype(np.int64)
    which, k = _expand(counts)
    step = (t1 - t0)[which] / counts[which]
    edge = hit[which]
    one = start[edge] + vector[edge] * (t0[which] + step * k)[:, None]
    two = start[edge] + vector[edge] * (t0[which] + step * (k + 1))[:, None]
    # A hair more than needed, so that rounding here loses no voxel that the distance test would take.
    room = margin[edge] * (1 + 1e-9) + 1e-6
    low = np.clip(np.ceil(np.minimum(one, two) - room), 0, shape).astype(np.int64)
    high = np.clip(np.floor(np.maximum(one, two) + room), -1, shape - 1).astype(np.int64)
    good = (low <= high).all(axis=1)
    return edge[good], low[good], high[good]


def near_voxels(edges: GridEdges, reach: np.ndarray) -> Iterator[Candidates]:
    """Every voxel whose distance to an edge is at most that edge's ``reach`` (m,), and some more, in chunks.

    A voxel may come up several times: once or more for every edge near it.
    """
    edge, low, high = _pieces(edges, reach)
    size = high - low + 1
    total, voxels = float(size.prod(axis=1).sum()), math.prod(edges.shape)
    if total > min(_MOST_CANDIDATES, _MANY_CANDIDATES + _MOST_TIMES * voxels):
        raise NeurinoError(
            f"rasterise: tubes of radii up to {reach.max():g} with voxels of {edges.spacing.min():g} would cover the "
            f"image {total / voxels:.0f} times; are the radii in another unit? "
            "see repair_radii"
        )
    piece, dz = _expand(size[:, 0])
    ends = np.cumsum(size[piece, 1] * size[piece, 2])
    at = 0
    while at < len(piece):
        done = ends[at - 1] if at else 0
        upto = max(int(np.searchsorted(ends, done + _CHUNK, side="right")), at + 1)
        yield from _chunk(edges, reach, edge, low, size, piece[at:upto], dz[at:upto])
        at = upto


def _chunk(
    edges: GridEdges,
    reach: np.ndarray,
    edge: np.ndarray,
    low: np.ndarray,
    size: np.ndarray,
    piece: np.ndarray,
    dz: np.ndarray,
) -> Iterator[Candidates]:
    """Candidates of some z slices of piece boxes: first their rows along x, then the voxels of near rows."""
    spacing = edges.spacing
    of_slice, dy = _expand(size[piece, 1])
    of_piece = piece[of_slice]
    row_edge = edge[of_piece]
    iz = low[piece, 0][of_slice] + dz[of_slice]
    iy = low[of_piece, 1] + dy
    start, vector = edges.start[row_edge], edges.vector[row_edge]
    # Seen along x: a row farther from the edge's shadow than the reach holds no voxel.
    qz, qy = iz * spacing[0] - start[:, 0], iy * spacing[1] - start[:, 1]
    vz, vy = vector[:, 0], vector[:, 1]
    flat_length = vz * vz + vy * vy
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.clip((qz * vz + qy * vy) / flat_length, 0, 1)
    s[~(flat_length > 0)] = 0
    shadow = np.hypot(qz - s * vz, qy - s * vy)
    near = np.flatnonzero(shadow <= reach[row_edge] * (1 + 1e-9) + 1e-9 * spacing.min())
    if not len(near):
        return
    row, dx = _expand(size[of_piece[near], 2])
    row_at = near[row]
    ix = low[of_piece[row_at], 2] + dx
    e = row_edge[row_at]
    vx, vz, vy = vector[:, 2][row_at], vz[row_at], vy[row_at]
    qz, qy = qz[row_at], qy[row_at]
    qx = ix * spacing[2] - start[:, 2][row_at]
    square = np.einsum("ij,ij->i", edges.vector, edges.vector)
    inverse = np.divide(1.0, square, out=np.zeros_like(square), where=square > 1e-300)[e]
    t = np.clip((qz * vz + qy * vy + qx * vx) * inverse, 0, 1)
    d2 = (qz - t * vz) ** 2 + (qy - t * vy) ** 2 + (qx - t * vx) ** 2
    base = (iz * edges.shape[1] + iy) * edges.shape[2]
    yield Candidates(base[row_at] + ix, e, t, d2)


def centre_line(edges: GridEdges) -> np.ndarray:
    """Flat indices of the voxels of the drawn edges: 26-connected from node to node, cut at the image's border."""
    shape = np.array(edges.shape)
    start, vector = edges.start / edges.spacing, edges.vector / edges.spacing
    steps = np.ceil(np.abs(vector).max(axis=1, initial=0)) + 1
    t0, t1 = clip_to_box(start, start + vector, np.full(3, -0.5), shape - 0.5)
    hit = np.flatnonzero(t0 <= t1)
    first, last = np.floor(t0[hit] * steps[hit]), np.ceil(t1[hit] * steps[hit])
    which, k = _expand((last - first + 1).astype(np.int64))
    edge = hit[which]
    t = (first[which] + k) / steps[edge]
    # floor(x + 1/2), not rint: two points a step apart must not round to voxels two apart.
    voxel = np.floor(start[edge] + vector[edge] * t[:, None] + 0.5)
    inside = ((voxel >= 0) & (voxel < shape)).all(axis=1)
    z, y, x = voxel[inside].astype(np.int64).T
    return (z * edges.shape[1] + y) * edges.shape[2] + x
