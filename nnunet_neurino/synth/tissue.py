"""What is in the image besides the neurons: haze, shadows of cells, autofluorescence, specks, stripes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nnunet_neurino.synth.settings import SynthSettings

FloatArray = NDArray[np.float64]
Volume = NDArray[np.float32]


def scatter(volume: Volume, points: FloatArray, weights: FloatArray) -> None:
    """Add weights at points (n, 3; x, y, z voxels), each shared linearly by the eight voxels around it."""
    z, y, x = volume.shape
    corner = np.floor(points).astype(np.int64)
    share = points - corner
    flat = np.zeros(volume.size)
    for step in itertools.product((0, 1), repeat=3):
        at = corner + np.array(step)
        part = np.abs(share - (1 - np.array(step))).prod(axis=1) * weights
        inside = np.all((at >= 0) & (at < (x, y, z)), axis=1)
        at, part = at[inside], part[inside]
        index = (at[:, 2] * y + at[:, 1]) * x + at[:, 0]
        flat += np.bincount(index, part, volume.size)
    volume += flat.reshape(volume.shape).astype(np.float32)


def smooth_field(coarse: NDArray[np.floating], shape: Sequence[int], factors: Sequence[float] | FloatArray) -> Volume:
    """Enlarge a coarse volume linearly; voxel ``i`` of an axis lies at ``(i + 0.5) / factor - 0.5`` of the coarse."""
    result = np.asarray(coarse, dtype=np.float32)
    for axis, (length, factor) in enumerate(zip(shape, factors, strict=True)):
        position = np.clip((np.arange(length) + 0.5) / factor - 0.5, 0, coarse.shape[axis] - 1)
        lower = np.minimum(position.astype(int), max(coarse.shape[axis] - 2, 0))
        weights = np.zeros((length, coarse.shape[axis]), dtype=np.float32)
        rows = np.arange(length)
        weights[rows, lower] = 1 - (position - lower)
        if coarse.shape[axis] > 1:
            weights[rows, lower + 1] += position - lower
        result = np.moveaxis(np.tensordot(weights, result, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(result)


def random_field(settings: SynthSettings, width: float, rng: np.random.Generator) -> Volume:
    """Smooth unit-variance noise with the given correlation length (in-plane voxels)."""
    step = np.maximum(width / 2 / np.array(settings.voxel_size), 1.0)
    coarse_shape = np.ceil(np.array(settings.shape) / step).astype(int) + 1
    sigma = width / (step * np.array(settings.voxel_size)) / 2
    noise = gaussian_filter(rng.standard_normal(coarse_shape + 8, dtype=np.float32), sigma)[4:-4, 4:-4, 4:-4]
    # The variance of white noise after a Gaussian of these widths.
    noise /= float(np.sqrt(np.prod(1 / (2 * np.sqrt(np.pi) * np.maximum(sigma, 0.3)))))
    return smooth_field(noise, settings.shape, step)


def tissue(settings: SynthSettings, rng: np.random.Generator) -> Volume:
    """Background light: coarse haze, fine texture, dark cell bodies."""
    scope = settings.microscope
    unevenness = random_field(settings, scope.haze_width, rng) + 0.5 * random_field(settings, scope.haze_width / 3, rng)
    haze = np.exp(scope.haze * unevenness)
    haze *= 1 + scope.texture * random_field(settings, 3.0, rng)
    np.maximum(haze, 0, out=haze)
    haze *= 1 - np.minimum(0.55 * _cells(settings, scope.dark_cells, rng), 1)
    haze *= scope.background
    return haze


def glowing_cells(settings: SynthSettings, rng: np.random.Generator) -> Volume:
    """Autofluorescent cell bodies with a mottled inside."""
    scope = settings.microscope
    cells = _cells(settings, scope.glowing_cells, rng)
    if cells.any():
        cells *= np.maximum(1 + 0.5 * random_field(settings, 4.0, rng), 0)
    cells *= scope.glowing_cell_light
    return cells


def specks(settings: SynthSettings, rng: np.random.Generator) -> Volume:
    """Bright points (to be blurred by the focus) of very different strength."""
    scope = settings.microscope
    volume = np.zeros(settings.shape, dtype=np.float32)
    number = rng.poisson(scope.puncta * _physical_volume(settings) / 1e6)
    points = rng.random((number, 3)) * (np.array(settings.shape[::-1]) - 1)
    axial, lateral = scope.psf
    # So much light in one place leaves punctum_light at the centre of its blurred image.
    total = scope.punctum_light * (2 * np.pi) ** 1.5 * axial * lateral**2 / np.prod(settings.voxel_size)
    scatter(volume, points, total * rng.lognormal(-0.4, 0.9, number))
    return volume


def stripes(settings: SynthSettings, rng: np.random.Generator) -> Volume:
    """Shadows along x that a light sheet from the side leaves behind obstacles, around 1; shape (z, y, 1)."""
    strength = settings.microscope.stripes
    noise = gaussian_filter(rng.standard_normal(settings.shape[:2], dtype=np.float32), (2.0, 1.2))
    noise /= max(float(noise.std()), 1e-6)
    return np.maximum(1 + strength * noise, 0.2)[:, :, None]


def _physical_volume(settings: SynthSettings) -> float:
    return float(np.prod(settings.shape) * np.prod(settings.voxel_size))


def _cells(settings: SynthSettings, density: float, rng: np.random.Generator) -> Volume:
    """Soft-edged ellipsoids, 1 inside."""
    volume = np.zeros(settings.shape, dtype=np.float32)
    size = np.array(settings.voxel_size)
    for _ in range(rng.poisson(density * _physical_volume(settings) / 1e6)):
        centre = rng.random(3) * np.array(settings.shape)
        radii = rng.uniform(*settings.microscope.cell_radius) * rng.uniform(0.75, 1.25, 3) / size
        low = np.maximum(np.floor(centre - 1.4 * radii).astype(int), 0)
        high = np.minimum(np.ceil(centre + 1.4 * radii).astype(int) + 1, settings.shape)
        if np.any(low >= high):
            continue
        z, y, x = (((np.arange(low[axis], high[axis]) - centre[axis]) / radii[axis]) ** 2 for axis in range(3))
        distance = np.sqrt(z[:, None, None] + y[:, None] + x)
        box = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
        volume[box] = np.maximum(volume[box], 1 / (1 + np.exp((distance - 1) * 8)))
    return volume
