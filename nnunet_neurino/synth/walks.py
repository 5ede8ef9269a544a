"""Random directions and smooth random paths, in in-plane voxels, coordinates x, y, z."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from nnunet_neurino.synth.settings import GrowthSettings

FloatArray = NDArray[np.float64]

_SLOW, _FAST = 30.0, 5.0  # correlation lengths of the direction, voxels


def spread_directions(count: int, size: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Unit vectors that avoid each other and prefer the volume's long axes."""
    candidates = unit(rng.standard_normal((40, 3)) * flatness(size))
    chosen = [candidates[0]]
    for _ in range(count - 1):
        nearest = np.max(candidates @ np.array(chosen).T, axis=1)
        chosen.append(candidates[int(np.argmin(nearest + 0.3 * rng.random(len(candidates))))])
    return np.array(chosen)


def walk(
    growth: GrowthSettings,
    start: FloatArray,
    heading: FloatArray,
    length: float,
    size: FloatArray,
    rng: np.random.Generator,
) -> FloatArray:
    """A smooth random path with steps of one voxel; the starting point itself is left out.

    In a shallow volume paths stay shallow, as those of the neurons people choose to image.
    """
    count = max(int(length), 1)
    drift = growth.wander * wandering(count, _SLOW, rng) + growth.wiggle * wandering(count, _FAST, rng)
    return start + np.cumsum(unit((heading + drift) * flatness(size)), axis=0)


def wandering(count: int, correlation: float, rng: np.random.Generator) -> FloatArray:
    """(count, 3) unit-variance noise that starts at 0 and forgets over ``correlation`` steps."""
    memory = math.exp(-1 / correlation)
    noise = rng.standard_normal((count, 3)) * math.sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], noise, axis=0))


def flatness(size: FloatArray) -> FloatArray:
    """How far the volume lets neurites run along each axis, 1 for the longest side."""
    return np.asarray(np.minimum(size / size.max() + 0.15, 1.0))


def first_outside(points: FloatArray, size: FloatArray) -> int:
    """Row of the first point (n, 3) outside the volume, or the number of points."""
    outside = np.any((points < 0) | (points > size), axis=1)
    return int(np.argmax(outside)) if outside.any() else len(points)


def unit(vectors: FloatArray) -> FloatArray:
    """The vectors (..., 3) at length 1; null vectors stay."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))
