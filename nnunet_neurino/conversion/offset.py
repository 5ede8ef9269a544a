"""Where in a larger volume was this image cut out? Finds the shift (and flip) of a tracing that mostly lies outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft

#: Measures the brightness at points: (n, 3) x, y, z -> (n,) share of darker voxels and (n,) score, 0 outside.
Brightness = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

# Voxels of the reduced image and of the search grid: bounds time and memory.
_MOST_IMAGE, _MOST_GRID = 1_000_000, 6_000_000
# A tracing this many times longer than the image is no tracing of the same tissue, but in another unit.
_LONGEST = 40
_PEAKS = 4
_MOST_POINTS = 2000
# The second best flip must stay below this share of the best one's score; the same tracing elsewhere is no match.
_CLEARLY = 0.8
_LEAST_INSIDE, _LEAST_CONTRAST = 0.1, 0.7


@dataclass(frozen=True)
class Offset:
    """A found shift.

    Attributes:
        flips: axes that run the other way, such as "y"; flipped before the shift.
        shift: (x, y, z) whole voxels to add.
        contrast: mean share of darker voxels under the part of the tracing that is inside.
    """

    flips: str
    shift: tuple[float, float, float]
    contrast: float


def find_offset(
    image: np.ndarray, rank: np.ndarray, candidates: dict[str, np.ndarray], brightness: Brightness
) -> Offset | None:
    """Find the flip and shift that puts the tracing onto bright voxels; None where nothing stands out.

    Args:
        image: (z, y, x).
        rank: sorted intensities of the image, or of a sample of them.
        candidates: for each flip, points (n, 3) x, y, z along the tracing, in voxels.
        brightness: measures them at full resolution.
    """
    factor = max(1, int(np.ceil((image.size / _MOST_IMAGE) ** (1 / 3))))
    extent = np.ptp(next(iter(candidates.values())), axis=0)[::-1]
    if extent.max() > _LONGEST * max(image.shape):
        return None
    while np.prod((np.array(image.shape) + extent) / factor + 2) > _MOST_GRID:
        factor += 1
    reduced = _reduced_scores(image, factor)

    def quick(points: np.ndarray) -> float:
        return _value(*_nearest(image, rank, points))

    found = []
    for flips, points in candidates.items():
        few = points[:: max(1, len(points) // _MOST_POINTS)]
        climbs = [_climb(few, quick, start, factor) for start in _peaks(reduced, points, factor)]
        shift, value = max(climbs, key=_second)
        found.append((value, flips, shift))
    found.sort(key=lambda entry: -entry[0])
    value, flips, shift = found[0]
    few = candidates[flips][:: max(1, len(candidates[flips]) // _MOST_POINTS)]
    shift, _ = _climb(few, lambda moved: _value(*brightness(moved)), shift, 1)
    moved = candidates[flips] + shift
    inside = ((moved > -0.5) & (moved < np.array(image.shape[::-1]) - 0.5)).all(axis=1)
    if value <= 0 or inside.mean() < _LEAST_INSIDE or (len(found) > 1 and found[1][0] > _CLEARLY * value):
        return None
    contrast = float(brightness(moved[inside])[0].mean())
    if contrast < _LEAST_CONTRAST:
        return None
    return Offset(flips, (float(shift[0]), float(shift[1]), float(shift[2])), contrast)


def _second(entry: tuple[np.ndarray, float]) -> float:
    return entry[1]


def _reduced_scores(image: np.ndarray, factor: int) -> np.ndarray:
    """Ranks of the brightest voxel in each block, from -0.5 to 0.5."""
    shape = [-(-n // factor) for n in image.shape]
    blocks = np.empty(shape, dtype=np.float32)
    edges = [np.arange(0, n, factor) for n in image.shape[1:]]
    for z in range(shape[0]):
        plane = np.asarray(image[z * factor : (z + 1) * factor]).max(axis=0).astype(np.float32)
        blocks[z] = np.maximum.reduceat(np.maximum.reduceat(plane, edges[0], axis=0), edges[1], axis=1)
    order = np.sort(blocks, axis=None)
    middle = np.searchsorted(order, blocks, "left") + np.searchsorted(order, blocks, "right")
    return (middle / (2 * blocks.size) - 0.5).astype(np.float32)


def _peaks(reduced: np.ndarray, points: np.ndarray, factor: int) -> list[np.ndarray]:
    """The best shifts (x, y, z) on the reduced grid: a correlation of the image with the drawn tracing."""
    low = points.min(axis=0)
    cells = np.floor((points - low) / factor).astype(np.int64)[:, ::-1]
    drawn = np.zeros(cells.max(axis=0) + 1, dtype=np.float32)
    np.add.at(drawn, tuple(cells.T), 1)
    shape = [fft.next_fast_len(a + b, real=True) for a, b in zip(reduced.shape, drawn.shape, strict=True)]
    product = fft.rfftn(reduced, shape) * np.conj(fft.rfftn(drawn, shape))
    score = fft.irfftn(product, shape)
    result = []
    for _ in range(_PEAKS):
        at = np.array(np.unravel_index(int(np.argmax(score)), score.shape))
        place = np.where(at >= reduced.shape, at - shape, at)
        result.append(np.round(place[::-1] * factor - low))
        around = tuple(np.arange(a - 1, a + 2) % n for a, n in zip(at, score.shape, strict=True))
        score[np.ix_(*around)] = -np.inf
    return result


def _climb(
    points: np.ndarray, measure: Callable[[np.ndarray], float], start: np.ndarray, size: int
) -> tuple[np.ndarray, float]:
    """Climb from ``start`` to the best whole shift nearby, with steps of ``size`` and then smaller ones."""
    steps = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    best, value = start, measure(points + start)
    while True:
        tried = [(best + size * step, measure(points + best + size * step)) for step in steps if step.any()]
        place, new = max(tried, key=_second)
        if new > value:
            best, value = place, new
        elif size > 1:
            size = max(1, size // 2)
        else:
            return best, value


def _nearest(image: np.ndarray, rank: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What :data:`Brightness` gives, from the nearest voxel only: much faster."""
    at = np.floor(points[:, ::-1] + 0.5).astype(np.int64)
    at = at[((at >= 0) & (at < np.array(image.shape))).all(axis=1)]
    value = np.asarray(image[at[:, 0], at[:, 1], at[:, 2]], dtype=np.float32)
    darker = np.searchsorted(rank, value, "left") / len(rank)
    return np.ones(len(at)), -np.log10(1.001 - darker) / 3


def _value(share: np.ndarray, score: np.ndarray) -> float:
    # A voxel of no meaning has a mean score of 0.145 (the mean of the scores of all voxels).
    return float((score - 0.145 * (share > 0)).sum())
