"""What a generated volume is made of: the neurons' shape and the microscope."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nnunet_neurino.errors import NeurinoError

_LARGEST_RATIO = 300  # of the sides of a voxel; beyond, one focus is larger than any volume


@dataclass(frozen=True)
class GrowthSettings:
    """How neurons grow. Lengths are in in-plane voxels (the voxel size along x); ranges are (low, high).

    Attributes:
        neurons: number of neurons, inclusive range.
        soma_probability: probability that a neuron has its cell body in the volume; otherwise it enters through a face.
        soma_radius: radius of the cell body.
        stems: number of neurites that leave a cell body, inclusive range.
        reach: length of a stem as a fraction of the largest side of the volume.
        branch_distance: mean path length between two branch points in volumes of up to 160 voxels a side; longer in
            proportion in larger ones, so that neurons grow and do not become bushes.
        branch_angle: mean angle between a daughter and its parent, degrees.
        max_order: branches of branches of ... at most this deep.
        radius: radius at the beginning of a stem.
        min_radius: no neurite is thinner than this.
        taper: fraction of the radius lost from the beginning to the end of a branch.
        daughter_ratio: radius of a daughter relative to its parent at the branch point.
        wander: size of the slow (30 voxels) changes of direction, relative to the direction of growth.
        wiggle: size of the fast (5 voxels) changes of direction.
        bouton_distance: mean path length between swellings; infinite for none.
        bouton_swelling: additional radius in the middle of a swelling, relative to the radius.
        crossings: additional unbranched fibres that cross a neurite at its centre line, inclusive range.
        touches: additional unbranched fibres that touch a neurite from outside, inclusive range.
        clearance: a branch ends where it would come nearer than this to the surface of another neurite (the fibres
            of ``crossings`` and ``touches`` excepted); negative to let neurites run through each other.
    """

    neurons: tuple[int, int] = (1, 2)
    soma_probability: float = 0.6
    soma_radius: tuple[float, float] = (5.0, 7.5)
    stems: tuple[int, int] = (3, 6)
    reach: tuple[float, float] = (0.5, 0.9)
    branch_distance: float = 30.0
    branch_angle: float = 50.0
    max_order: int = 3
    radius: tuple[float, float] = (1.2, 1.9)
    min_radius: float = 0.6
    taper: float = 0.45
    daughter_ratio: float = 0.8
    wander: float = 0.55
    wiggle: float = 0.3
    bouton_distance: float = 18.0
    bouton_swelling: float = 0.9
    crossings: tuple[int, int] = (0, 1)
    touches: tuple[int, int] = (0, 1)
    clearance: float = -1.0


@dataclass(frozen=True)
class MicroscopeSettings:
    """How the specimen turns into voxel values. Lengths are in in-plane voxels, light in photons per voxel.

    Attributes:
        photons: light of a structure that fills the whole focus.
        brightness_spread: standard deviation of the logarithm of a neuron's brightness.
        membrane: 0 for dye in the whole cytoplasm (light grows with the cross-section), 1 for dye in the membrane
            (with the circumference).
        psf: standard deviation of the focus, (axial, lateral).
        glow: fraction of the light that is spread widely instead of being focused.
        glow_width: standard deviation of that spread.
        beading: standard deviation of the logarithm of the brightness along a neurite.
        beading_length: its correlation length.
        gap_distance: mean path length between two gaps of the label; infinite for none.
        gap_length: length of a gap.
        gap_depth: fraction of the light that is missing in a gap.
        background: mean light of the tissue.
        haze: relative unevenness of the background, coarse.
        haze_width: its correlation length.
        texture: relative unevenness of the background, fine.
        dark_cells: unlabelled cell bodies that show as shadows in the background, number per 100^3 voxels.
        glowing_cells: autofluorescent cell bodies, number per 100^3 voxels.
        glowing_cell_light: light of an autofluorescent cell body.
        cell_radius: radius of dark and glowing cells.
        puncta: bright specks, number per 100^3 voxels.
        punctum_light: mean light of a speck at its centre.
        attenuation: depth at which light falls to 1/e.
        stripes: relative strength of shadows along x (a light sheet that comes from the side).
        read_noise: standard deviation of the camera's noise.
        noise_smoothing: standard deviation of the smoothing done by the acquisition software; 0 for none.
        offset: photons that give the value 0 (a negative number lifts the black level).
        saturation: photons that give the largest value.
        bits: 8 or 16, the type of the voxels.
        full_scale: the largest value written; None for the largest that the type holds.
    """

    photons: float = 60.0
    brightness_spread: float = 0.2
    membrane: float = 0.5
    psf: tuple[float, float] = (1.8, 0.8)
    glow: float = 0.1
    glow_width: float = 6.0
    beading: float = 0.35
    beading_length: float = 3.0
    gap_distance: float = 60.0
    gap_length: tuple[float, float] = (2.0, 7.0)
    gap_depth: float = 0.8
    background: float = 8.0
    haze: float = 0.35
    haze_width: float = 35.0
    texture: float = 0.2
    dark_cells: float = 2.0
    glowing_cells: float = 2.0
    glowing_cell_light: float = 6.0
    cell_radius: tuple[float, float] = (5.0, 9.0)
    puncta: float = 300.0
    punctum_light: float = 12.0
    attenuation: float = 250.0
    stripes: float = 0.0
    read_noise: float = 1.5
    noise_smoothing: float = 0.0
    offset: float = 0.0
    saturation: float = 70.0
    bits: int = 8
    full_scale: int | None = None


@dataclass(frozen=True)
class SynthSettings:
    """Everything but the seed that decides a generated volume.

    Attributes:
        shape: voxels along z, y, x.
        spacing: voxel size along z, y, x in micrometres. Only its ratios shape the image.
        growth: the neurons.
        microscope: the image formation.
    """

    shape: tuple[int, int, int] = (128, 128, 128)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    growth: GrowthSettings = field(default_factory=GrowthSettings)
    microscope: MicroscopeSettings = field(default_factory=MicroscopeSettings)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 4:
            raise NeurinoError(f"shape {tuple(self.shape)}: expected three sides z, y, x of at least 4 voxels each")
        if len(self.spacing) != 3 or not all(math.isfinite(step) and step > 0 for step in self.spacing):
            raise NeurinoError(
                f"spacing {tuple(self.spacing)}: expected three voxel sizes z, y, x in micrometres, all above 0"
            )
        if max(self.spacing) > _LARGEST_RATIO * min(self.spacing):
            raise NeurinoError(
                f"spacing {tuple(self.spacing)}: the sides of a voxel differ by more than a factor of "
                f"{_LARGEST_RATIO}; give all three in micrometres"
            )
        if self.microscope.bits not in (8, 16):
            raise NeurinoError(f"bits {self.microscope.bits}: expected 8 or 16")

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel size along z, y, x in in-plane voxels, the unit of all lengths in the settings."""
        z, y, x = self.spacing
        return z / x, y / x, 1.0
