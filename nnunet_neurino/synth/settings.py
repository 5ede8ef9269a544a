"""What a generated volume is made of: the neurons' shape and the microscope."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from nnunet_neurino.errors import NeurinoError

_LARGEST_RATIO = 300  # of the sides of a voxel; beyond, one focus is larger than any volume


@dataclass(frozen=True)
class GrowthSettings:
    """How neurons grow. Lengths are in in-plane voxels (the voxel size along x); ranges are (low, high)."""

    neurons: tuple[int, int] = (1, 2)  # number of neurons, inclusive range
    # probability that a neuron has its cell body in the volume; otherwise it enters through a face
    soma_probability: float = 0.6
    soma_radius: tuple[float, float] = (5.0, 7.5)  # radius of the cell body
    stems: tuple[int, int] = (3, 6)  # number of neurites that leave a cell body, inclusive range
    reach: tuple[float, float] = (0.5, 0.9)  # length of a stem as a fraction of the largest side of the volume
    # mean path length between two branch points in volumes of up to 160 voxels a side; longer in proportion in
    # larger ones, so that neurons grow and do not become bushes
    branch_distance: float = 30.0
    branch_angle: float = 50.0  # mean angle between a daughter and its parent, degrees
    max_order: int = 3  # branches of branches of ... at most this deep
    radius: tuple[float, float] = (1.2, 1.9)  # radius at the beginning of a stem
    min_radius: float = 0.6  # no neurite is thinner than this
    taper: float = 0.45  # fraction of the radius lost from the beginning to the end of a branch
    daughter_ratio: float = 0.8  # radius of a daughter relative to its parent at the branch point
    wander: float = 0.55  # size of the slow (30 voxels) changes of direction, relative to the direction of growth
    wiggle: float = 0.3  # size of the fast (5 voxels) changes of direction
    bouton_distance: float = 18.0  # mean path length between swellings; infinite for none
    bouton_swelling: float = 0.9  # additional radius in the middle of a swelling, relative to the radius
    # additional unbranched fibres that cross a neurite at its centre line, inclusive range
    crossings: tuple[int, int] = (0, 1)
    touches: tuple[int, int] = (0, 1)  # additional unbranched fibres that touch a neurite from outside, inclusive range
    # a branch ends where it would come nearer than this to the surface of another neurite (the fibres of
    # `crossings` and `touches` excepted); negative to let neurites run through each other
    clearance: float = -1.0


@dataclass(frozen=True)
class MicroscopeSettings:
    """How the specimen turns into voxel values. Lengths are in in-plane voxels, light in photons per voxel."""

    photons: float = 60.0  # light of a structure that fills the whole focus
    brightness_spread: float = 0.2  # standard deviation of the logarithm of a neuron's brightness
    # 0 for dye in the whole cytoplasm (light grows with the cross-section), 1 for dye in the membrane (with the
    # circumference)
    membrane: float = 0.5
    psf: tuple[float, float] = (1.8, 0.8)  # standard deviation of the focus, (axial, lateral)
    glow: float = 0.1  # fraction of the light that is spread widely instead of being focused
    glow_width: float = 6.0  # standard deviation of that spread
    beading: float = 0.35  # standard deviation of the logarithm of the brightness along a neurite
    beading_length: float = 3.0  # its correlation length
    gap_distance: float = 60.0  # mean path length between two gaps of the label; infinite for none
    gap_length: tuple[float, float] = (2.0, 7.0)  # length of a gap
    gap_depth: float = 0.8  # fraction of the light that is missing in a gap
    background: float = 8.0  # mean light of the tissue
    haze: float = 0.35  # relative unevenness of the background, coarse
    haze_width: float = 35.0  # its correlation length
    texture: float = 0.2  # relative unevenness of the background, fine
    dark_cells: float = 2.0  # unlabelled cell bodies that show as shadows in the background, number per 100^3 voxels
    glowing_cells: float = 2.0  # autofluorescent cell bodies, number per 100^3 voxels
    glowing_cell_light: float = 6.0  # light of an autofluorescent cell body
    cell_radius: tuple[float, float] = (5.0, 9.0)  # radius of dark and glowing cells
    puncta: float = 300.0  # bright specks, number per 100^3 voxels
    punctum_light: float = 12.0  # mean light of a speck at its centre
    attenuation: float = 250.0  # depth at which light falls to 1/e
    stripes: float = 0.0  # relative strength of shadows along x (a light sheet that comes from the side)
    read_noise: float = 1.5  # standard deviation of the camera's noise
    noise_smoothing: float = 0.0  # standard deviation of the smoothing done by the acquisition software; 0 for none
    offset: float = 0.0  # photons that give the value 0 (a negative number lifts the black level)
    saturation: float = 70.0  # photons that give the largest value
    bits: int = 8  # 8 or 16, the type of the voxels
    full_scale: int | None = None  # the largest value written; None for the largest that the type holds


@dataclass(frozen=True)
class SynthSettings:
    """Everything but the seed that decides a generated volume."""

    shape: tuple[int, int, int] = (128, 128, 128)  # voxels along z, y, x
    # voxel size along z, y, x in micrometres. Only its ratios shape the image
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    growth: GrowthSettings = field(default_factory=GrowthSettings)  # the neurons
    microscope: MicroscopeSettings = field(default_factory=MicroscopeSettings)  # the image formation

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
