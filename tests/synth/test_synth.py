"""Generated neurons: determinism, geometry, connectivity, exact masks, and what the settings promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import label
from scipy.spatial import cKDTree

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import Tree, read_swc, write_swc
from nnunet_neurino.synth import (
    PRESETS,
    GrowthSettings,
    MicroscopeSettings,
    SynthSettings,
    generate,
    grow_trees,
    photograph,
    preset,
)

SMALL = (24, 48, 56)
CONNECTED = np.ones((3, 3, 3))
QUIET = MicroscopeSettings(
    beading=0.0,
    gap_distance=math.inf,
    background=0.0,
    puncta=0.0,
    dark_cells=0.0,
    glowing_cells=0.0,
    glow=0.0,
    attenuation=math.inf,
    brightness_spread=0.0,
    read_noise=0.0,
    photons=4000.0,
    saturation=8000.0,
    bits=16,
)


def trees_of(settings: SynthSettings, seed: int) -> tuple[Tree, ...]:
    return grow_trees(settings, np.random.default_rng(seed))


@pytest.mark.parametrize("name", PRESETS)
def test_same_seed_same_bytes_other_seed_other_bytes(name: str) -> None:
    settings = preset(name, shape=SMALL)
    first, again, other = (generate(settings, seed) for seed in (3, 3, 4))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    assert first.trees == again.trees
    assert first.image.tobytes() != other.image.tobytes()
    assert first.tree != other.tree


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("shape", [SMALL, (4, 40, 8), (5, 6, 7)])
def test_volume_keeps_its_promises(name: str, shape: tuple[int, int, int]) -> None:
    settings = preset(name, shape=shape)
    for seed in range(3):
        volume = generate(settings, seed)
        assert volume.image.shape == volume.mask.shape == shape
        assert volume.image.dtype == (np.uint8 if settings.microscope.bits == 8 else np.uint16)
        assert set(np.unique(volume.mask)) == {0, 1}
        for tree in volume.trees:
            assert tree.unit == "voxel"
            assert tree.n_pieces == 1
            assert len(tree.edges()) > 0
            assert (tree.xyz >= 0).all()
            assert (tree.xyz <= np.array(shape[::-1]) - 1).all()
            assert (tree.radii >= 0.45).all()


def test_the_microscope_does_not_change_the_neurons() -> None:
    confocal = preset("confocal", shape=SMALL)
    dark = replace(confocal, microscope=replace(confocal.microscope, background=0.0, puncta=0.0))
    one, two = generate(confocal, 5), generate(dark, 5)
    assert one.trees == two.trees
    assert (one.mask == two.mask).all()
    assert one.image.mean() > 2 * two.image.mean()


def brute_force_mask(tree: Tree, shape: tuple[int, int, int], voxel_size: tuple[float, float, float]) -> np.ndarray:
    """Voxels at most the linearly interpolated radius from the closest point of an edge."""
    size = np.array(voxel_size)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * size
    mask = np.zeros(shape, bool)
    for child, parent in tree.edges():
        a, b = tree.xyz[child][::-1] * size, tree.xyz[parent][::-1] * size
        t = np.clip((grid - a) @ (b - a) / max((b - a) @ (b - a), 1e-30), 0, 1)
        distance = np.linalg.norm(grid - a - t[..., None] * (b - a), axis=-1)
        mask |= distance <= tree.radii[child] + t * (tree.radii[parent] - tree.radii[child])
    return mask


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 1.0)])
def test_mask_is_the_tree_exactly(spacing: tuple[float, float, float]) -> None:
    settings = SynthSettings(
        shape=(12, 28, 28), spacing=spacing, growth=GrowthSettings(radius=(2.0, 2.5), min_radius=1.5)
    )
    volume = generate(settings, 2)
    expected = brute_force_mask(volume.tree, settings.shape, settings.voxel_size)
    assert (volume.mask.astype(bool) >= expected).all()
    # The rasteriser adds the drawn centre line, so that thin neurites stay connected: nothing else may be added.
    added = np.argwhere(volume.mask.astype(bool) & ~expected)[:, ::-1]
    if len(added):
        fine = np.concatenate(
            [
                volume.tree.xyz[c] + np.linspace(0, 1, 9)[:, None] * (volume.tree.xyz[p] - volume.tree.xyz[c])
                for c, p in volume.tree.edges()
            ]
        )
        assert cKDTree(fine).query(added, p=np.inf)[0].max() <= 0.75


@pytest.mark.parametrize("name", PRESETS)
def test_each_neuron_is_one_piece_of_the_mask(name: str) -> None:
    settings = preset(name, shape=SMALL)
    for seed in range(2):
        for tree in trees_of(settings, seed):
            assert label(photograph((tree,), settings).mask, CONNECTED)[1] == 1


def test_tree_in_memory_is_the_tree_on_disk(tmp_path) -> None:
    tree = generate(preset("fmost", shape=SMALL), 1).tree
    write_swc(tree, tmp_path / "one.swc")
    back = replace(read_swc(tmp_path / "one.swc"), unit="voxel")
    assert back == tree


def surface_distance(one: Tree, other: Tree) -> float:
    distances, rows = cKDTree(other.xyz).query(one.xyz, k=5)
    return float((distances - other.radii[rows] - one.radii[:, None]).min())


def test_crossing_fibres_cross_and_touching_fibres_touch() -> None:
    base = GrowthSettings(
        neurons=(1, 1), soma_probability=0.0, bouton_distance=math.inf, crossings=(0, 0), touches=(0, 0)
    )
    straight = {"max_order": 0, "wiggle": 0.0, "wander": 0.0}
    shape = (64, 64, 64)
    for seed in range(5):
        crossing = trees_of(SynthSettings(shape, growth=replace(base, crossings=(2, 2))), seed)
        assert len(crossing) == 3
        neuron, *fibres = crossing
        for fibre in fibres:
            assert cKDTree(neuron.xyz).query(fibre.xyz)[0].min() < 0.01
            assert fibre.n_children().max() == 1
        neuron, fibre = trees_of(SynthSettings(shape, growth=replace(base, touches=(1, 1), **straight)), seed)
        assert -1.0 < surface_distance(fibre, neuron) < 1.0


def test_clearance_keeps_neurons_apart() -> None:
    growth = GrowthSettings(neurons=(3, 3), clearance=3.0, crossings=(0, 0), touches=(0, 0))
    settings = SynthSettings((64, 96, 96), growth=growth)
    for seed in range(3):
        trees = trees_of(settings, seed)
        masks = [photograph((tree,), settings).mask for tree in trees]
        assert label(np.maximum.reduce(masks), CONNECTED)[1] == len(trees) >= 2


def test_growth_follows_its_settings() -> None:
    shape = (96, 96, 96)
    one = GrowthSettings(neurons=(1, 1), crossings=(0, 0), touches=(0, 0))

    def tortuosity(growth: GrowthSettings) -> float:
        ratios = []
        for seed in range(12):
            (tree,) = trees_of(SynthSettings(shape, growth=growth), seed)
            ratios.append(tree.length / np.linalg.norm(tree.xyz[-1] - tree.xyz[0]))
        return float(np.median(ratios))

    line = replace(one, soma_probability=0.0, max_order=0)
    assert tortuosity(replace(line, wander=0.0, wiggle=0.0)) == pytest.approx(1.0, abs=0.01)
    assert tortuosity(replace(line, wander=1.2, wiggle=1.0)) > 1.15

    (bare,) = trees_of(SynthSettings(shape, growth=line), 0)
    assert bare.n_children().max() == 1
    branching = SynthSettings(shape, growth=replace(one, soma_probability=0.0, branch_distance=12.0))
    assert sum((trees_of(branching, seed)[0].n_children() > 1).sum() for seed in range(6)) >= 18

    straight = replace(line, wander=0.0, wiggle=0.0, bouton_distance=math.inf, taper=0.6, radius=(3.0, 3.0))
    (cone,) = trees_of(SynthSettings(shape, growth=straight), 1)
    assert cone.radii[-5:].mean() < 0.85 * cone.radii[:5].mean()
    (beads,) = trees_of(SynthSettings(shape, growth=replace(straight, bouton_distance=15.0, bouton_swelling=2.0)), 1)
    assert beads.radii.max() > 1.5 * cone.radii.max()

    (with_soma,) = trees_of(SynthSettings(shape, growth=replace(one, soma_probability=1.0)), 0)
    assert with_soma.types[with_soma.roots[0]] == 1
    assert with_soma.radii.max() == with_soma.radii[with_soma.roots[0]] >= 5


def line_tree(z: float, y: float, radius: float, length: int = 60) -> Tree:
    xyz = np.stack([np.arange(length), np.full(length, y), np.full(length, z)], axis=1)
    return Tree.build(xyz, np.arange(length) - 1, radii=radius, types=2)


def test_image_of_a_fibre_lies_on_the_fibre_and_has_the_width_of_the_focus() -> None:
    scope = replace(QUIET, psf=(2.4, 1.0), membrane=0.0)
    settings = SynthSettings((21, 31, 60), microscope=scope)
    image = photograph((line_tree(10.3, 14.6, 0.5),), settings).image.astype(float)[:, :, 10:50].sum(axis=2)
    z, y = np.indices(image.shape)
    assert np.average(z, weights=image) == pytest.approx(10.3, abs=0.05)
    assert np.average(y, weights=image) == pytest.approx(14.6, abs=0.05)
    # Variances add up: focus, ball of dye (r^2 / 5 along each axis), linear sharing (frac * (1 - frac)).
    dye = 0.5**2 / 5
    assert np.average((z - 10.3) ** 2, weights=image) == pytest.approx(2.4**2 + dye + 0.2, rel=0.08)
    assert np.average((y - 14.6) ** 2, weights=image) == pytest.approx(1.0 + dye + 0.2, rel=0.08)


@pytest.mark.parametrize("radius", [0.0, 1.0, 5000.0])
def test_odd_tracings_can_be_photographed(radius: float) -> None:
    """One node, coincident nodes, no radius, a radius far beyond the volume."""
    scope = replace(QUIET, membrane=0.9)
    line = ([[1, 5, 5], [9, 5, 5]], [-1, 0])
    for xyz, parents in (line,) if radius > 1 else (line, ([[5, 5, 5]], [-1]), ([[5, 5, 5], [5, 5, 5]], [-1, 0])):
        tree = Tree.build(np.array(xyz, float), np.array(parents), radii=radius)
        volume = photograph((tree,), SynthSettings((11, 11, 11), microscope=scope))
        assert volume.mask[5, 5, 5] == 1
        if radius == 1.0 and len(set(map(tuple, xyz))) == len(xyz):
            assert volume.image[5, 5, 5] > 10 * max(int(volume.image[0, 0, 0]), 1)


def test_focus_is_anisotropic_in_micrometres_not_in_voxels() -> None:
    scope = replace(QUIET, psf=(2.4, 1.0), membrane=0.0)
    settings = SynthSettings((17, 31, 60), spacing=(1.2, 0.6, 0.6), microscope=scope)
    image = photograph((line_tree(8.0, 15.0, 0.5),), settings).image.astype(float)[:, :, 10:50].sum(axis=2)
    z = np.indices(image.shape)[0]
    assert np.average((z - 8.0) ** 2, weights=image) == pytest.approx((2.4 / 2) ** 2, rel=0.2)


def test_light_of_a_thick_neurite_is_the_photons_asked_for() -> None:
    settings = SynthSettings((25, 25, 60), microscope=replace(QUIET, membrane=0.0))
    image = photograph((line_tree(12, 12, 6.0),), settings).image
    value = image[12, 12, 15:45].mean() / 65535 * 8000
    # Dye is spread in balls along the axis, which is denser in the middle than a filled tube: at most 1.5 times.
    assert 0.95 * 4000 < value < 1.6 * 4000


def test_deeper_is_darker_and_gaps_are_dark_but_stay_in_the_mask() -> None:
    fading = SynthSettings((40, 20, 60), microscope=replace(QUIET, attenuation=20.0))
    image = photograph((line_tree(8, 10, 1.5), line_tree(32, 10, 1.5)), fading).image.astype(float)
    assert image[28:36].sum() / image[4:12].sum() == pytest.approx(math.exp(-24 / 20), rel=0.1)

    gappy = SynthSettings((20, 20, 60), microscope=replace(QUIET, gap_distance=20.0, gap_depth=1.0, gap_length=(5, 6)))
    volume = photograph((line_tree(10, 10, 1.5),), gappy, 3)
    profile = volume.image[10, 10].astype(float)
    assert profile[8:52].min() < 0.25 * np.percentile(profile, 90)
    assert label(volume.mask, CONNECTED)[1] == 1


def test_noise_has_the_variance_of_shot_and_read_noise() -> None:
    scope = replace(QUIET, background=50.0, haze=0.0, texture=0.0, read_noise=5.0, saturation=655.35, photons=0.0)
    image = photograph((line_tree(10, 10, 1.0),), SynthSettings((20, 60, 60), microscope=scope)).image / 100.0
    assert image.mean() == pytest.approx(50, rel=0.02)
    assert image.var() == pytest.approx(50 + 25, rel=0.05)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: preset("widefield"), "choose one of confocal"),
        (lambda: SynthSettings(shape=(3, 10, 10)), "at least 4 voxels"),
        (lambda: SynthSettings(shape=(10, 10)), "three sides"),
        (lambda: SynthSettings(spacing=(1.0, 0.0, 1.0)), "all above 0"),
        (lambda: SynthSettings(spacing=(1.0, math.nan, 1.0)), "all above 0"),
        (lambda: SynthSettings(microscope=MicroscopeSettings(bits=12)), "expected 8 or 16"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(make, words: str) -> None:
    with pytest.raises(NeurinoError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
