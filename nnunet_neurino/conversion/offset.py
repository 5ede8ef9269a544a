"""Where in a larger volume was this image cut out? Searches the shift of a tracing that does not fit as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy import fft

from nnunet_neurino.conversion.evidence import Brightness

# Voxels of the reduced image and of the search grid: bounds time and memory.
_MOST_IMAGE, _MOST_GRID = 1_000_000, 2_000_000
# A tracing this many times longer than the image is no tracing of the same tissue, but in another unit.
_LONGEST = 40
_PEAKS = 2
_MOST_POINTS = 1000


def likely_shifts(brightness: Brightness, points: list[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Shifts (x, y, z) in whole voxels that put a tracing onto bright voxels, a few for each way to read it.

    Args:
        brightness: of the image.
        points: for each way, points (n, 3) x, y, z along the tracing, in voxels; they span boxes of one size.

    Yields:
        Which of the ways, and the shift.
    """
    shape = np.array(brightness.image.shape)
    extent = np.ptp(points[0], axis=0)[::-1]
    if extent.max() > _LONGEST * shape.max():
        return
    factor = max(1, int(np.ceil((brightness.image.size / _MOST_IMAGE) ** (1 / 3))))
    while np.prod((shape + extent) / factor + 2) > _MOST_GRID:
        factor += 1
    reduced = _reduced_ranks(brightness.image, factor)
    grid = [fft.next_fast_len(int(n + e / factor) + 2, real=True) for n, e in zip(reduced.shape, extent, strict=True)]
    spectrum = fft.rfftn(reduced, grid)
    for way, all_points in enumerate(points):
        few = all_points[:: len(all_points) // _MOST_POINTS + 1]
        for start in _peaks(spectrum, grid, few, factor, reduced.shape):
            yield way, _climb(lambda moved: float(brightness.rarity(few + moved).sum()), start, factor)  # noqa: B023


def _reduced_ranks(image: np.ndarray, factor: int) -> np.ndarray:
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


def _peaks(
    spectrum: np.ndarray, grid: Sequence[int], points: np.ndarray, factor: int, shape: Sequence[int]
) -> list[np.ndarray]:
    """The best shifts (x, y, z) on the reduced grid: a correlation of the image with the drawn tracing."""
    low = points.min(axis=0)
    cells = np.floor((points - low) / factor).astype(np.int64)[:, ::-1]
    drawn = np.zeros(grid, dtype=np.float32)
    np.add.at(drawn, tuple(cells.T), 1)
    score = fft.irfftn(spectrum * np.conj(fft.rfftn(drawn)), grid)
    result = []
    for _ in range(_PEAKS):
        at = np.array(np.unravel_index(int(np.argmax(score)), score.shape))
        place = np.where(at >= shape, at - grid, at)
        result.append(np.round(place[::-1] * factor - low))
        around = tuple(np.arange(a - 1, a + 2) % n for a, n in zip(at, grid, strict=True))
        score[np.ix_(*around)] = -np.inf
    return result


def _climb(measure: Callable[[np.ndarray], float], start: np.ndarray, size: int = 1) -> np.ndarray:
    """Climb from ``start`` to the best whole shift (x, y, z) nearby, with steps of ``size`` and then smaller ones."""
    steps = np.concatenate([np.eye(3), -np.eye(3)])
    best, value = start, measure(start)
    while True:
        tried = [(measure(best + size * step), tuple(best + size * step)) for step in steps]
        new, place = max(tried)
        if new > value:
            best, value = np.array(place), new
        elif size > 1:
            size //= 2
        else:
            return best
