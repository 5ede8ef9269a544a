"""From neurons to voxel values: fluorophores, focus, tissue, noise, digitisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nnunet_neurino.swc import Tree
from nnunet_neurino.synth.settings import MicroscopeSettings, SynthSettings
from nnunet_neurino.synth.tissue import glowing_cells, scatter, smooth_field, specks, stripes, tissue

FloatArray = NDArray[np.float64]
Volume = NDArray[np.float32]

_PER_VOXEL = 12.0  # fluorophores per voxel of a neurite: their shot noise is far below the camera's
_FEWEST = 8.0  # and at least so many per voxel of its length
_MOST = 3e6  # and at most about so many in all
_THINNEST = 0.1  # voxels: a radius of 0 in a tracing means that it was not measured
_FOCUS_CUT = 3.0  # the focus ends at so many standard deviations


def render(
    trees: Sequence[Tree], settings: SynthSettings, rng: np.random.Generator
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The image (z, y, x) of neurons given in voxels of the volume, radii in in-plane voxels."""
    scope = settings.microscope
    light = np.zeros(settings.shape, dtype=np.float32)
    for tree in trees:
        points, weights = _fluorophores(tree, settings, rng)
        scatter(light, points, weights * rng.lognormal(0.0, scope.brightness_spread))
    light *= scope.photons
    light += specks(settings, rng)
    light = _focus(light, settings)
    light += tissue(settings, rng)
    light += glowing_cells(settings, rng)
    depth = np.arange(settings.shape[0]) * settings.voxel_size[0]
    light *= np.exp(-depth / scope.attenuation, dtype=np.float32)[:, None, None]
    light *= stripes(settings, rng)
    return _camera(light, scope, rng)


def _fluorophores(tree: Tree, settings: SynthSettings, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Positions (n, 3; x, y, z voxels) and weights of a neuron's dye; a voxel full of dye sums to 1."""
    scope = settings.microscope
    scale = np.array(settings.voxel_size[::-1])
    nodes, radii = tree.xyz * scale, np.maximum(tree.radii, _THINNEST)
    child, parent = tree.edges().T
    length = np.linalg.norm(nodes[child] - nodes[parent], axis=1)
    # A cell body is a ball: a wide node must not turn the edge that leaves it into a cone.
    steep = radii[parent] - radii[child] > length
    radius = np.where(steep, np.minimum(radii[child], radii[parent]), (radii[child] + radii[parent]) / 2)
    volume = np.pi * radius**2 * length
    balls = np.flatnonzero(_are_balls(tree, child, parent, steep))
    volume_of_balls = 4 / 3 * np.pi * radii[balls] ** 3
    sparing = min(1.0, _MOST / max(_PER_VOXEL * float(volume.sum() + volume_of_balls.sum()), 1.0))

    count = np.ceil(sparing * np.maximum(_PER_VOXEL * volume, _FEWEST * length)).astype(np.int64)
    edge = np.repeat(np.arange(len(count)), count)
    along = rng.random(len(edge))
    start, end = nodes[child[edge]], nodes[parent[edge]]
    tubes = start + along[:, None] * (end - start) + radius[edge, None] * _in_ball(len(edge), rng)
    weights = (volume * radius**-scope.membrane / np.maximum(count, 1))[edge]
    path = np.concatenate([[0.0], np.cumsum(length)])
    weights *= _labelling(scope, path[edge] + along * length[edge], float(path[-1]), rng)

    number = np.ceil(sparing * _PER_VOXEL * volume_of_balls).astype(np.int64)
    ball = np.repeat(np.arange(len(balls)), number)
    filled = nodes[balls[ball]] + radii[balls[ball], None] * _in_ball(len(ball), rng)
    weights_in_balls = (volume_of_balls * radii[balls] ** -scope.membrane / np.maximum(number, 1))[ball]
    points = np.concatenate([tubes, filled])
    return points / scale, np.concatenate([weights, weights_in_balls]) / float(np.prod(scale))


def _are_balls(
    tree: Tree, child: NDArray[np.int64], parent: NDArray[np.int64], steep: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Cell bodies, nodes much wider than the edge that leaves them (cell bodies that do not say so), lone nodes."""
    balls = tree.types == 1
    balls[parent[steep]] = True
    alone = np.ones(len(tree), dtype=bool)
    alone[child] = False
    alone[parent] = False
    return np.asarray(balls | alone)


def _in_ball(count: int, rng: np.random.Generator) -> FloatArray:
    """Points spread evenly in the unit ball."""
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(directions * np.cbrt(rng.random(count))[:, None])


def _labelling(scope: MicroscopeSettings, path: FloatArray, total: float, rng: np.random.Generator) -> FloatArray:
    """Brightness at positions along a neuron: beads and gaps."""
    if not len(path):
        return np.ones(0)
    grid = np.arange(int(total) + 2)
    memory = np.exp(-0.5 * (np.arange(-12, 13) / scope.beading_length) ** 2)
    noise = np.convolve(rng.standard_normal(len(grid) + 24), memory / np.linalg.norm(memory), mode="valid")
    brightness = np.exp(scope.beading * noise - scope.beading**2 / 2)
    if np.isfinite(scope.gap_distance):
        for place in np.flatnonzero(rng.random(len(grid)) < 1 / scope.gap_distance):
            width = rng.uniform(*scope.gap_length)
            # Soft ends: the label fades out over a voxel.
            edge = np.clip(width / 2 + 0.5 - np.abs(grid - place - width / 2), 0, 1)
            brightness *= 1 - scope.gap_depth * edge
    return np.asarray(np.interp(path, grid, brightness))


def _focus(light: Volume, settings: SynthSettings) -> Volume:
    """Blur by the focus: a narrow anisotropic kernel, and a wide one for the light out of focus."""
    scope = settings.microscope
    size = np.array(settings.voxel_size)
    axial, lateral = scope.psf
    sharp = gaussian_filter(light, np.array([axial, lateral, lateral]) / size, truncate=_FOCUS_CUT)
    if scope.glow > 0:
        sharp *= 1 - scope.glow
        sharp += scope.glow * _wide_blur(light, scope.glow_width / size)
    return sharp


def _wide_blur(light: Volume, width: NDArray[np.float64]) -> Volume:
    """Gaussian blur of large width, on a grid as coarse as the width allows."""
    factors = np.maximum(np.minimum(width / 2, np.array(light.shape) / 2).astype(int), 1)
    padding = [(0, -length % factor) for length, factor in zip(light.shape, factors, strict=True)]
    blocks = np.pad(light, padding)
    z, y, x = np.array(blocks.shape) // factors
    coarse = blocks.reshape(z, factors[0], y, factors[1], x, factors[2]).mean(axis=(1, 3, 5))
    coarse = gaussian_filter(coarse, width / factors, truncate=_FOCUS_CUT)
    return smooth_field(coarse, light.shape, factors)


def _camera(
    light: Volume, scope: MicroscopeSettings, rng: np.random.Generator
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    counts = rng.poisson(np.maximum(light, 0)).astype(np.float32)
    counts += scope.read_noise * rng.standard_normal(light.shape, dtype=np.float32)
    if scope.noise_smoothing > 0:
        counts = gaussian_filter(counts, scope.noise_smoothing)
    top = 2**scope.bits - 1 if scope.full_scale is None else scope.full_scale
    counts -= scope.offset
    counts *= top / (scope.saturation - scope.offset)
    np.clip(np.rint(counts, out=counts), 0, top, out=counts)
    return counts.astype(np.uint8) if scope.bits == 8 else counts.astype(np.uint16)
