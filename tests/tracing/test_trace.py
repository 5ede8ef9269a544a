"""Tracing: what any tracing must satisfy, on drawn and generated neurons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from tracing_scenes import background_share, cut_gap, forked, mask_of, piece_at, polyline, wavy

from nnunet_neurino.metrics import length_scores, neuron_distance, tree_counts
from nnunet_neurino.swc import Tree, merge_touching, rasterise, read_swc, sections, to_micrometres
from nnunet_neurino.synth import GrowthSettings, SynthSettings, generate
from nnunet_neurino.tracing import TraceSettings, trace

SHAPE = (24, 60, 72)


def test_fork_has_its_branches_tips_and_place() -> None:
    truth = forked()
    tree = trace(mask_of([truth], SHAPE))
    counts = tree_counts(tree)
    assert (counts.trees, counts.tips) == (1, 4 if tree.n_children()[0] > 1 else 3)
    assert neuron_distance(tree, truth).esa < 0.5
    scores = length_scores(tree, truth)
    assert min(scores.length_precision or 0, scores.length_recall or 0) > 0.97


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_radius_and_middle_of_a_straight_tube(radius: float) -> None:
    truth = polyline([(6, 12, 12), (60, 12, 12)], radius)
    tree = trace(mask_of([truth], (24, 24, 66)))
    assert (tree.n_pieces, tree_counts(tree).branches) == (1, 1)
    inner = (tree.xyz[:, 0] > 10) & (tree.xyz[:, 0] < 56)
    assert np.abs(tree.xyz[inner, 1:] - 12).max() < 0.3
    assert np.abs(tree.radii[inner] - radius).max() < 0.55


@pytest.mark.parametrize("radius", [5.0, 9.0])
@pytest.mark.parametrize("cut", [False, True])
def test_a_thick_neurite_is_one_smooth_line(radius: float, cut: bool) -> None:
    x = np.arange(-10.0 if cut else 20.0, 151.0 if cut else 121.0, 3)
    y = 32 + 10 * np.sin(x / 25)
    truth = Tree.build(np.column_stack([x, y, np.full(len(x), 18.0)]), np.arange(len(x)) - 1, radii=radius)
    tree = trace(mask_of([truth], (36, 62, 140)))
    assert (tree.n_pieces, tree_counts(tree).branches) == (1, 1)
    inner = (tree.xyz[:, 0] > 40) & (tree.xyz[:, 0] < 100)
    assert np.abs(tree.radii[inner] - radius + 0.5).max() < 0.1 * radius + 0.1
    middle = Tree.build(tree.xyz[inner], np.arange(inner.sum()) - 1)
    away = neuron_distance(middle, truth)
    assert away.esa_pred_to_truth is not None
    assert away.esa_pred_to_truth < 0.1 * radius
    assert tree.length < 1.2 * truth.length + 2 * radius


def test_a_neurite_that_comes_back_to_a_thick_one_stays() -> None:
    trunk = polyline([(10, 20, 20), (120, 20, 20)], 7.0)
    loop = polyline([(30, 20, 20), (30, 50, 20), (90, 50, 20), (90, 20, 20)], 2.0)
    tree = trace(mask_of([trunk, loop], (40, 60, 130)))
    assert tree.n_pieces == 1
    assert (length_scores(tree, loop, 3.0).length_recall or 0) > 0.9


@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_other_orientations_give_as_good_a_tree(axes: tuple[int, int, int]) -> None:
    truth = wavy(3, 1.5, SHAPE)
    mask = mask_of([truth], SHAPE)
    tree = trace(mask.transpose(axes))
    zyx = tree.xyz[:, ::-1][:, np.argsort(axes)]
    back = Tree.build(zyx[:, ::-1], tree.parents)
    assert neuron_distance(back, truth).esa < 0.4
    flipped = trace(mask[::-1, ::-1, ::-1])
    back = Tree.build(np.array(SHAPE)[::-1] - 1 - flipped.xyz, flipped.parents)
    assert neuron_distance(back, truth).esa < 0.4


def test_anisotropic_voxels() -> None:
    spacing = (2.5, 0.5, 0.5)
    truth = Tree.build([[6, 6, 3], [30, 20, 8], [60, 50, 14], [66, 54, 20]], np.arange(4) - 1, radii=3.0)
    mask = mask_of([truth], SHAPE, spacing)
    tree = trace(mask, spacing)
    assert tree.n_pieces == 1
    physical = neuron_distance(to_micrometres(tree, spacing), to_micrometres(truth, spacing))
    assert physical.esa is not None
    assert physical.esa < 0.5 * spacing[0]
    # One slice is thicker than the neurite, and its steps come near to the middle.
    assert np.median(tree.radii) == pytest.approx(3.0, abs=1.5)
    same = trace(mask, spacing, settings=TraceSettings(unit="micrometre"))
    assert same.unit == "micrometre"
    assert np.allclose(same.xyz, tree.xyz * spacing[::-1])
    assert np.allclose(same.radii, tree.radii * spacing[2])


def test_three_voxel_gap_is_bridged_and_a_long_one_is_not() -> None:
    truth = wavy(1, 1.5, SHAPE)
    at, before, after = truth.xyz[20], truth.xyz[10], truth.xyz[30]
    mask = mask_of([truth], SHAPE)
    cut_gap(mask, at, truth.xyz[21] - truth.xyz[19], 3.0)
    assert trace(mask, settings=TraceSettings(bridge_length=0)).n_pieces == 2
    tree = trace(mask)
    assert tree.n_pieces == 1
    assert piece_at(tree, before) == piece_at(tree, after)
    mask[:, :, 28:46] = False
    assert trace(mask).n_pieces == 2


def test_parallel_and_passing_ends_stay_apart() -> None:
    side_by_side = [polyline([(5, 20, 12), (35, 20, 12)]), polyline([(5, 27, 12), (35, 27, 12)])]
    assert trace(mask_of(side_by_side, SHAPE)).n_pieces == 2
    past_each_other = [polyline([(5, 20, 12), (40, 20, 12)]), polyline([(34, 27, 12), (68, 27, 12)])]
    assert trace(mask_of(past_each_other, SHAPE)).n_pieces == 2


@pytest.mark.parametrize("clearance", [-1.5, 0.0, 2.0])
def test_crossing_neurites_stay_apart_with_and_without_a_gap(clearance: float) -> None:
    z = 12 + 3.0 + clearance
    trees = [polyline([(4, 30, 12), (68, 34, 12)]), polyline([(36, 4, z), (34, 56, z)])]
    mask = mask_of(trees, SHAPE)
    cut_gap(mask, (35, 40, z), (0, 1, 0), 3.0)
    for cut in (mask_of(trees, SHAPE), mask):
        tree = trace(cut)
        assert tree.n_pieces == 2
        ends = [piece_at(tree, place) for place in ((6, 30, 12), (66, 34, 12), (36, 6, z), (34, 54, z))]
        assert ends[0] == ends[1] != ends[2] == ends[3]
    assert trace(mask_of(trees, SHAPE), settings=TraceSettings(split_crossings=False)).n_pieces == (
        2 if clearance > 1 else 1
    )


def test_image_decides_about_a_gap() -> None:
    truth = polyline([(5, 30, 12), (66, 30, 12)])
    mask = mask_of([truth], SHAPE)
    whole = mask.copy()
    mask[:, :, 33:38] = False
    rng = np.random.default_rng(0)
    noise = rng.normal(10, 1, SHAPE)
    faint, dark = noise + 40 * mask + 15 * (whole & ~mask), noise + 40 * mask
    assert trace(mask, image=faint).n_pieces == 1
    assert trace(mask, image=dark).n_pieces == 2
    assert trace(mask).n_pieces == 1


@pytest.mark.parametrize("spacing", [(2.0, 0.5, 0.5), (0.3, 1.0, 1.0), (3.0, 1.0, 1.0)])
def test_steps_of_long_voxels_are_no_branches(spacing: tuple[float, float, float]) -> None:
    x = np.linspace(6, 84, 60)
    xyz = np.column_stack([x, 25 + 12 * np.sin(x / 12), 18 + 10 * np.sin(x / 15)])
    truth = Tree.build(xyz, np.arange(60) - 1, radii=1.8, unit="micrometre")
    shape = tuple(int(size / step) for size, step in zip((36, 50, 90), spacing, strict=True))
    tree = trace(rasterise(truth, shape, spacing=spacing) > 0, spacing, settings=TraceSettings(unit="micrometre"))
    assert (tree.n_pieces, tree_counts(tree).branches) == (1, 1)
    assert (neuron_distance(tree, truth).esa or 9) < 0.6
    assert tree.length == pytest.approx(truth.length, rel=0.1)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_image_with_voxels_that_are_no_numbers(odd: float) -> None:
    truth = polyline([(5, 30, 12), (66, 30, 12)])
    mask = mask_of([truth], SHAPE)
    image = np.where(mask, 100.0, 10.0)
    mask[:, :, 34:37] = False
    image[np.random.default_rng(0).random(SHAPE) < 0.02] = odd
    tree = trace(mask, image=image)
    assert tree.n_pieces == 1
    assert neuron_distance(tree, truth).esa < 0.3
    image[:] = odd
    assert trace(mask, image=image).n_pieces in (1, 2)


def test_probability_map_by_hysteresis() -> None:
    truth = polyline([(5, 30, 12), (66, 30, 12)])
    mask = mask_of([truth], SHAPE)
    probability = np.where(mask, 0.9, 0.05).astype(np.float32)
    probability[:, :, 30:40] = np.where(mask[:, :, 30:40], 0.4, 0.05)
    probability[2:5, 2:5, 2:20] = 0.4
    with pytest.warns(UserWarning, match="taken for probabilities"):
        tree = trace(probability)
    assert tree.n_pieces == 1
    assert neuron_distance(tree, truth).esa < 0.3
    with pytest.warns(UserWarning, match="times 255"):
        coded = trace((probability * 255).astype(np.uint8))
    assert coded == tree


def test_a_faint_stretch_that_touches_by_corners_alone_is_kept() -> None:
    probability = np.full((5, 60, 60), 0.01, np.float32)
    along = np.arange(5, 55)
    probability[2, along, along] = np.where((along > 20) & (along < 40), 0.4, 0.9)
    probability[0, 0, :2] = -1e-7, 1 + 1e-6  # as softmax and resampling leave them
    with pytest.warns(UserWarning, match="taken for probabilities"):
        tree = trace(probability, settings=TraceSettings(bridge_length=0))
    assert (tree.n_pieces, tree.length) == (1, pytest.approx(49 * 2**0.5, rel=0.05))


def test_loop_is_broken_once() -> None:
    ring = polyline([(20, 15, 12), (50, 15, 12), (50, 45, 12), (20, 45, 12), (20, 15, 12)])
    tree = trace(mask_of([ring], SHAPE))
    assert tree.n_pieces == 1
    assert len(tree.edges()) == len(tree) - 1
    assert length_scores(tree, ring).length_recall == pytest.approx(1.0, abs=0.01)
    assert tree.length == pytest.approx(120, abs=8)


def test_no_shortcut_through_background() -> None:
    hairpin = polyline([(8, 26, 12), (60, 26, 12), (62, 29, 12), (60, 32, 12), (8, 32, 12)], 1.2)
    mask = mask_of([hairpin], SHAPE)
    for node_spacing in (0.0, 4.0, 12.0):
        tree = trace(mask, settings=TraceSettings(node_spacing=node_spacing, smooth=5))
        assert background_share(tree, mask) < 0.005
        assert tree.length == pytest.approx(hairpin.length, rel=0.06)
    assert len(tree) < len(trace(mask)) / 2


def test_root_at_the_soma_or_where_it_is_wanted() -> None:
    truth = forked()
    soma = Tree.build(np.array([[25.0, 30, 12]]), np.array([-1]), radii=7.0)
    mask = mask_of([truth, soma], SHAPE)
    tree = trace(mask)
    assert np.linalg.norm(tree.xyz[0] - [25, 30, 12]) < 1.5
    assert tree.radii[0] == pytest.approx(7.0, abs=1.0)
    assert list(tree.types[:2]) == [1, 0]
    wanted = trace(mask, settings=TraceSettings(root=(14, 14, 58)))
    assert np.linalg.norm(wanted.xyz[0] - [58, 14, 14]) < 2.5
    assert neuron_distance(tree, wanted).esa < 0.3  # type: ignore[operator]


def test_noise_is_left_out_and_several_neurons_are_kept() -> None:
    mask = mask_of([polyline([(5, 10, 6), (66, 10, 6)]), polyline([(5, 45, 18), (50, 52, 18)])], SHAPE)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, SHAPE, (40, 3)):
        mask[tuple(place)] = True
    tree = trace(mask)
    assert tree.n_pieces == 2
    cable = np.bincount(tree.piece_labels()[tree.edges()[:, 0]], tree.edge_lengths())
    assert cable[0] > cable[1]


def generated(seed: int) -> tuple[np.ndarray, Tree]:
    growth = GrowthSettings(neurons=(1, 1), crossings=(0, 0), touches=(0, 0), clearance=2.5)
    volume = generate(SynthSettings(shape=(64, 80, 80), growth=growth), seed)
    return volume.mask > 0, volume.tree


@pytest.mark.parametrize("seed", range(4))
def test_exact_masks_of_generated_neurons(seed: int) -> None:
    mask, truth = generated(seed)
    tree = trace(mask)
    scores = length_scores(tree, truth)
    assert tree.n_pieces == 1
    assert scores.length_precision is not None
    assert scores.length_precision >= 0.97
    assert scores.length_recall is not None
    assert scores.length_recall >= 0.97
    assert neuron_distance(tree, truth).esa < 0.6  # type: ignore[operator]
    for rows in sections(tree):
        length = np.linalg.norm(np.diff(tree.xyz[rows], axis=0), axis=1).sum()
        assert length >= np.median(tree.radii[rows[1:]])


def test_real_tracings(shared_data: Path) -> None:
    for name in ("rivuletpy_small_app2", "snake_noise_image_10", "app2py_crop1", "tuff_raw_intra_in40_tail"):
        truth = merge_touching(read_swc(shared_data / "pairs" / name / "tracing.swc"))
        shape = np.ceil(truth.xyz.max(axis=0) + truth.radii.max() + 2).astype(int)[::-1]
        tree = trace(rasterise(truth, tuple(shape)))
        assert tree.n_pieces == 1  # the last has swellings that are nearly cell bodies
        assert neuron_distance(tree, truth).esa < 1.0  # type: ignore[operator]


def share_outside(tree: Tree, mask: np.ndarray) -> float:
    """Share of the cable on background, by 101 points of every edge that avoid the corners of voxels."""
    edges = tree.edges()
    start, end = tree.xyz[edges[:, 0]], tree.xyz[edges[:, 1]]
    places = start[:, None] + ((np.arange(101) + 0.4142) / 101)[None, :, None] * (end - start)[:, None]
    voxel = np.rint(places[..., ::-1]).astype(int)
    outside = ~mask[tuple(np.moveaxis(np.clip(voxel, 0, np.array(mask.shape) - 1), -1, 0))]
    return float(outside.mean(axis=1) @ np.linalg.norm(end - start, axis=1)) / max(tree.length, 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_no_cable_lies_outside_the_mask_without_bridges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(40, 60, 60)), 2.0)
    for mask in (noise > np.quantile(noise, 0.9), mask_of([wavy(seed, 2.2, (40, 60, 60))], (40, 60, 60))):
        for step in (0.0, 5.0):
            tree = trace(mask, settings=TraceSettings(bridge_length=0, node_spacing=step))
            assert share_outside(tree, mask) == 0.0


def test_no_cable_lies_outside_real_masks(shared_data: Path) -> None:
    for folder in sorted((shared_data / "pairs").iterdir()):
        truth = read_swc(folder / "tracing.swc")
        shape = np.ceil(truth.xyz.max(axis=0) + truth.radii.max() + 2).astype(int)[::-1]
        mask = rasterise(truth, tuple(shape))
        assert share_outside(trace(mask, settings=TraceSettings(bridge_length=0)), mask) == 0.0, folder.name
