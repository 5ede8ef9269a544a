"""How bright the voxels under a tracing are, and whether one placement of it is brighter than another beyond doubt."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import stats

from nnunet_neurino.swc import Tree

#: Coordinates beyond this lie in no image; lengths would overflow.
FAR = 1e6
_MOST_POINTS = 2000
_SAMPLE = 2_000_000
# A voxel and the 26 around it, with their weights: the signal of a thin neurite, less noise.
_BLOCK = np.array(list(itertools.product((-1, 0, 1), repeat=3)))
_WEIGHTS = 0.5 ** (3 + np.abs(_BLOCK).sum(axis=1))
# The surroundings of a point: the faces and corners of a cube around it, this many voxels away.
NEAR = 4
_AROUND = NEAR * _BLOCK[np.isin(np.abs(_BLOCK).sum(axis=1), (1, 3))]
# Neighbouring points of a tracing are no independent witnesses: those in one cube count as one. The cubes grow from
# this many voxels for as long as there are enough of them.
_CUBE, _ENOUGH_CUBES = 8, 8


class Brightness:
    """Ranks of an image's voxels.

    The share r of darker voxels is even between 0 and 1 for voxels drawn at random. -log(1 - r), less its mean, tells
    the bright middle of a neurite from its rim, where r is close to 1 all over.
    """

    def __init__(self, image: np.ndarray) -> None:
        """Rank the voxels of ``image`` (z, y, x), or of a part spread over all of it."""
        step = max(1, round((image.size / _SAMPLE) ** (1 / 3)))
        sample = np.asarray(image[::step, ::step, ::step], dtype=np.float32).ravel()
        self.image = image
        self._values, counts = np.unique(sample, return_counts=True)
        # The middle of the ranks of equal values: half of an all-black image is not brighter than the rest.
        self._darker = (np.cumsum(counts) - counts / 2) / sample.size
        rarity = -np.log(1.001 - self._darker)
        self._rarity = rarity - np.average(rarity, weights=counts)

    def rarity(self, xyz: np.ndarray) -> np.ndarray:
        """-log(1 - r) of the voxel nearest to each position (..., 3) x, y, z; 0, the image's mean, outside."""
        return self._look_up(self._rarity, xyz)

    def smooth_rarity(self, xyz: np.ndarray) -> np.ndarray:
        """The weighted mean of :meth:`rarity` over the 27 voxels around each position (n, 3)."""
        return self._look_up(self._rarity, xyz[:, None] + _BLOCK) @ _WEIGHTS

    def contrast(self, xyz: np.ndarray) -> float:
        """Mean share of darker voxels around the positions (n, 3) inside the image; 0.5 when there are none."""
        limit = np.array(self.image.shape[::-1]) - 0.5
        inside = xyz[((xyz >= -0.5) & (xyz < limit)).all(axis=1)]
        if not len(inside):
            return 0.5
        return float((self._look_up(self._darker, inside[:, None] + _BLOCK, 0.5) @ _WEIGHTS).mean())

    def _look_up(self, table: np.ndarray, xyz: np.ndarray, outside: float = 0.0) -> np.ndarray:
        shape = np.array(self.image.shape)
        at = np.floor(np.clip(xyz[..., ::-1], -FAR, FAR) + 0.5).astype(np.int64)
        inside = ((at >= 0) & (at < shape)).all(axis=-1)
        z, y, x = at[inside].T
        value = np.asarray(self.image[z, y, x], dtype=np.float32)
        row = np.minimum(np.searchsorted(self._values, value), len(self._values) - 1)
        result = np.full(xyz.shape[:-1], outside)
        result[inside] = table[row]
        return result


class Evidence:
    """What the image says for a tracing whose points lie at ``xyz``."""

    def __init__(self, brightness: Brightness, xyz: np.ndarray) -> None:
        """Look at the points (n, 3) x, y, z, in voxels, and around them."""
        self.xyz = xyz
        self._centre = brightness.smooth_rarity(xyz)
        self._around = brightness.rarity(xyz[:, None] + _AROUND)
        # (n,) how much rarer the brightness at each point is than that of its surroundings
        self.local = self._centre - self._around.mean(axis=1)
        self.total = float(self.local.sum())

    def doubt_against(self, other: Evidence) -> float:
        """The chance that ``other``, for the same points elsewhere, only seems to be worse."""
        return doubt(self.local - other.local, self.xyz)

    def doubt_of_peak(self) -> float:
        """The chance that the tracing would lie as well or better a few voxels away, in the least clear direction."""
        return max(doubt(self._centre - there, self.xyz) for there in self._around.T)


def doubt(gain: np.ndarray, xyz: np.ndarray) -> float:
    """The chance that the mean of ``gain`` (n,), measured at positions (n, 3), is above 0 by accident.

    Student's test on the sums in cubes of space, as a bootstrap of these cubes would have it; of several sizes of cube
    the one with the most doubt counts, since nobody knows how far the brightness of one voxel tells that of others.
    Points without a gain say nothing and are left out. Too few cubes leave all doubt.
    """
    told = gain != 0
    gain, xyz = gain[told], xyz[told]
    if not len(gain) or gain.mean() <= 0:
        return 1.0
    most, size = 0.0, _CUBE
    while True:
        cube = np.floor((xyz - xyz.min(axis=0)) / size).astype(np.int64)
        _, cube = np.unique(cube @ (1, 1 << 21, 1 << 42), return_inverse=True)
        n = int(cube.max()) + 1
        if n < 2 or (n < _ENOUGH_CUBES and size > _CUBE):
            return most or 1.0
        spread = float(np.square(np.bincount(cube, gain - gain.mean())).sum()) * n / (n - 1)
        most = max(most, float(stats.t.sf(gain.sum() / np.sqrt(spread), n - 1)) if spread else 0.0)
        size *= 2


def points_along(tree: Tree, step: np.ndarray) -> np.ndarray:
    """Points (n, 3) along the tracing, in its own coordinates, about ``step`` (x, y, z) apart or a bounded number."""
    edges = tree.edges()
    near = np.clip(tree.xyz, -FAR, FAR)
    if not len(edges):
        return near
    start, end = near[edges[:, 0]], near[edges[:, 1]]
    length = np.linalg.norm((end - start) / step, axis=1)
    total = float(length.sum())
    place = np.arange(0.0, total + 1e-9, max(1.0, total / _MOST_POINTS))
    along = np.cumsum(length) - length
    edge = np.clip(np.searchsorted(along, place, side="right") - 1, 0, len(edges) - 1)
    t = (place - along[edge]) / np.where(length[edge] > 0, length[edge], 1)
    return start[edge] + np.clip(t, 0, 1)[:, None] * (end - start)[edge]
