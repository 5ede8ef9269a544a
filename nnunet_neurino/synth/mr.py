"""MR-like volumes with one small structure, for whole-volume models (``neurino synth --kind blob``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.synth.settings import MicroscopeSettings, SynthSettings
from nnunet_neurino.synth.tissue import Volume, random_field
from nnunet_neurino.synth.volume import SynthVolume


@dataclass(frozen=True)
class BlobSettings:
    """An MR-like volume: a head with tissue classes, and one bent, tapering structure deep inside it."""

    shape: tuple[int, int, int] = (64, 64, 64)  # voxels along z, y, x
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)  # voxel size along z, y, x in millimetres
    fraction: tuple[float, float] = (0.011, 0.019)  # share of the volume that is the structure, range
    contrast: float = 0.16  # brightness of the structure minus that of the tissue around it, where white matter is 1
    bias: float = 0.12  # relative unevenness of the sensitivity of the coil
    noise: float = 0.035  # standard deviation of the noise in both channels of the receiver (so the noise is Rician)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 12:
            raise NeurinoError(
                f"shape {tuple(self.shape)}: a volume of kind blob needs three sides of 12 voxels or more"
            )
        if len(self.spacing) != 3 or not all(0 < step < math.inf for step in self.spacing):
            raise NeurinoError(f"spacing {tuple(self.spacing)}: expected three voxel sizes z, y, x, all above 0")
        if not 0 < self.fraction[0] <= self.fraction[1] < 0.2:
            raise NeurinoError(f"fraction {self.fraction}: expected a range within 0 to 0.2")


def generate_blob(settings: BlobSettings | None = None, seed: int | Sequence[int] = 0) -> SynthVolume:
    """An MR-like volume (uint16) and the mask of its structure. The same settings and seed give the same bytes.

    Examples:
        >>> volume = generate_blob(BlobSettings(shape=(24, 32, 32)), seed=3)
        >>> bool(0.01 <= volume.mask.mean() <= 0.02)
        True
    """
    settings = settings or BlobSettings()
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    # The noise fields take lengths in voxels of a cube that has 64 voxels a side, whatever the real shape.
    grid = SynthSettings(
        shape=settings.shape,
        spacing=(64 / settings.shape[0], 64 / settings.shape[1], 64 / settings.shape[2]),
        microscope=MicroscopeSettings(),
    )
    z, y, x = (np.linspace(-1, 1, length, dtype=np.float32) for length in settings.shape)
    position = (z[:, None, None], y[:, None], x)
    head = _ellipsoid(position, rng.uniform(0.8, 0.92, 3))
    head += 0.05 * random_field(grid, 24.0, rng)
    level = _structure_level(position, rng) + 0.035 * random_field(grid, 9.0, rng)
    level[head > 0.8] = np.inf
    voxels = round(rng.uniform(*settings.fraction) * level.size)
    mask = np.zeros(level.size, dtype=bool)
    mask[np.argsort(level, axis=None, kind="stable")[:voxels]] = True
    mask = mask.reshape(level.shape)

    signal = _tissue_classes(grid, head, level, rng)
    surrounding = 0.62
    blend = 1 / (1 + np.exp(np.clip((level - level[mask].max()) / 0.04, -30, 30)))
    signal = signal * (1 - blend) + (surrounding + settings.contrast) * blend
    signal *= 1 + 0.05 * random_field(grid, 4.0, rng)
    signal *= np.exp(settings.bias * random_field(grid, 50.0, rng))
    real = signal + settings.noise * rng.standard_normal(settings.shape, dtype=np.float32)
    imaginary = settings.noise * rng.standard_normal(settings.shape, dtype=np.float32)
    image = np.clip(np.rint(np.hypot(real, imaginary) * 1000), 0, 4095).astype(np.uint16)
    return SynthVolume(image=image, mask=mask.astype(np.uint8), trees=(), spacing=settings.spacing)


def _ellipsoid(position: tuple[Volume, ...], radii: NDArray[np.float64]) -> Volume:
    """Distance from the middle where the surface is at 1."""
    squares = [(axis / radius) ** 2 for axis, radius in zip(position, radii, strict=True)]
    return np.sqrt(squares[0] + squares[1] + squares[2]).astype(np.float32)


def _structure_level(position: tuple[Volume, ...], rng: np.random.Generator) -> Volume:
    """Distance to a bent axis divided by the local thickness: small inside the structure."""
    turn = rng.normal(0, 0.25)
    centre = np.array([0.12, 0.05, 0.3]) + rng.normal(0, 0.06, 3)
    bend = rng.uniform(1.7, 2.3)
    radius = rng.uniform(0.26, 0.32)
    level = np.full(np.broadcast_shapes(*(axis.shape for axis in position)), np.inf, dtype=np.float32)
    for share in np.linspace(0, 1, 25):
        angle = turn + bend * (share - 0.5)
        point = centre + radius * np.array([0.45 * np.sin(2 * angle), np.sin(angle), np.cos(angle) - 0.8])
        thickness = 1.0 - 0.45 * share  # a head and a tail
        squares = [(axis - c) ** 2 for axis, c in zip(position, point, strict=True)]
        np.minimum(level, np.sqrt(squares[0] + squares[1] + squares[2]) / thickness, out=level)
    return level


def _tissue_classes(grid: SynthSettings, head: Volume, level: Volume, rng: np.random.Generator) -> Volume:
    """Brightness of scalp, fluid, grey and white matter; grey around the structure so that it is not given away."""
    folds = head + 0.11 * random_field(grid, 8.0, rng)
    signal = np.full(head.shape, 0.02, dtype=np.float32)
    signal[head < 1.0] = 0.8  # scalp
    signal[head < 0.93] = 0.15  # skull and fluid
    signal[folds < 0.84] = 0.62  # grey matter
    signal[folds < 0.66] = 1.0  # white matter
    deep = (head < 0.5) & (random_field(grid, 12.0, rng) > 0.6)
    signal[deep] = 0.72  # nuclei that look like the structure
    signal[(head < 0.35) & (random_field(grid, 14.0, rng) > 1.0)] = 0.15  # ventricles
    signal[(level < 0.3) & (head < 0.8)] = 0.62
    return signal
