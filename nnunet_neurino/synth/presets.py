"""Settings with names: generated volumes that look like those of a known kind of microscope."""

from __future__ import annotations

from dataclasses import replace

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.synth.settings import GrowthSettings, MicroscopeSettings, SynthSettings


def preset(
    name: str, shape: tuple[int, int, int] | None = None, spacing: tuple[float, float, float] | None = None
) -> SynthSettings:
    """Settings by name (see ``PRESETS``), with another shape (voxels z, y, x) or spacing (micrometres z, y, x)."""
    if name not in PRESETS:
        raise NeurinoError(f"preset {name!r} is unknown: choose one of {', '.join(PRESETS)}")
    settings = PRESETS[name]
    return replace(settings, shape=shape or settings.shape, spacing=spacing or settings.spacing)


PRESETS: dict[str, SynthSettings] = {
    # A single labelled interneuron in tissue, laser scanning: uneven haze, shadows of cells, specks.
    "confocal": SynthSettings(
        spacing=(1.0, 0.5, 0.5),
        microscope=MicroscopeSettings(
            photons=75.0, noise_smoothing=0.5, haze=0.25, puncta=700.0, punctum_light=8.0, saturation=60.0,
        ),
    ),
    # Cleared tissue: 16 bits, elongated focus, stripes, long fibres.
    "light-sheet": SynthSettings(
        spacing=(2.0, 1.0, 1.0),
        growth=GrowthSettings(
            neurons=(2, 4), soma_probability=0.3, stems=(2, 4), reach=(0.7, 1.3), branch_distance=45.0,
            radius=(0.9, 1.5), wander=0.4, crossings=(1, 3), touches=(0, 2),
        ),
        microscope=MicroscopeSettings(
            photons=420.0, psf=(2.6, 0.9), glow=0.2, glow_width=8.0,
            background=50.0, haze=0.2, texture=0.1, stripes=0.06, attenuation=400.0,
            dark_cells=4.0, glowing_cells=1.0, glowing_cell_light=20.0, puncta=80.0, punctum_light=60.0,
            read_noise=4.0, offset=-10.0, saturation=500.0, bits=16, full_scale=4095,
        ),
    ),
    # Whole-brain imaging by sectioning: black background, one bright pyramidal cell, fine dendrites.
    "fmost": SynthSettings(
        spacing=(1.0, 0.35, 0.35),
        growth=GrowthSettings(
            neurons=(1, 1), soma_probability=1.0, soma_radius=(5.0, 7.0), stems=(6, 9), reach=(0.5, 0.9),
            branch_distance=28.0, branch_angle=38.0, radius=(1.1, 1.7), min_radius=0.5, wander=0.35, wiggle=0.22,
            bouton_distance=25.0, bouton_swelling=0.5, crossings=(0, 2), touches=(0, 1),
        ),
        microscope=MicroscopeSettings(
            photons=90.0, membrane=0.25, psf=(1.6, 0.8), glow=0.06, beading=0.35, gap_distance=90.0,
            background=2.0, haze=0.4, attenuation=2000.0,
            dark_cells=0.0, glowing_cells=0.0, puncta=20.0, punctum_light=5.0,
            read_noise=1.2, offset=3.0, saturation=60.0,
        ),
    ),
    # Hard: the neuron is hardly brighter than the tissue, full of gaps and beads.
    "faint": SynthSettings(
        spacing=(1.0, 0.5, 0.5),
        growth=GrowthSettings(
            neurons=(1, 2), soma_probability=0.15, stems=(1, 3), radius=(1.0, 1.5), min_radius=0.5, wiggle=0.4,
            bouton_distance=9.0, bouton_swelling=1.3,
        ),
        microscope=MicroscopeSettings(
            photons=85.0, brightness_spread=0.3, beading=0.7, gap_distance=42.0, gap_length=(4.0, 16.0), gap_depth=0.88,
            background=14.0, haze=0.22, texture=0.2, attenuation=220.0,
            dark_cells=60.0, glowing_cells=4.0, glowing_cell_light=8.0, puncta=600.0, punctum_light=8.0,
            noise_smoothing=0.5, saturation=55.0,
        ),
    ),
    # Easy: thick bright neurites that a small network learns in two minutes on a CPU.
    "demo": SynthSettings(
        shape=(48, 96, 96),
        growth=GrowthSettings(
            neurons=(1, 2), soma_probability=0.7, soma_radius=(4.0, 5.5), stems=(3, 5), radius=(1.7, 2.2),
            min_radius=1.2, taper=0.3, wiggle=0.25, bouton_swelling=0.5,
            crossings=(0, 1), touches=(0, 0), clearance=2.0,
        ),
        microscope=MicroscopeSettings(
            photons=90.0, psf=(1.2, 0.8), beading=0.25, gap_distance=120.0, gap_length=(2.0, 3.0),
            dark_cells=1.0, glowing_cells=1.0, puncta=60.0, saturation=90.0,
        ),
    ),
}  # fmt: skip
