"""The rasteriser against brute force, and what it promises for any radius and spacing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from swc_references import distances, random_tree

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import MODES, Tree, bridges, distance_band, rasterise, shift, to_micrometres
from nnunet_neurino.swc.edges import grid_edges

BINARY = [mode for mode in MODES if mode != "distance"]


def n_components(label: np.ndarray) -> int:
    return ndimage.label(label, np.ones((3, 3, 3)))[1]


def cases(seed: int, n: int):
    """Random trees with image shape and anisotropic spacing."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        shape = tuple(int(size) for size in rng.integers(5, 22, 3))
        tree = random_tree(rng, shape, int(rng.integers(1, 9)))
        yield tree, shape, np.exp(rng.uniform(-1, 1.2, 3))


def off_grid(tree: Tree) -> Tree:
    """The tree moved a little, so that no distance is a tie that rounding decides."""
    return replace(tree, xyz=tree.xyz * 0.99 + np.array([0.0123, 0.0234, 0.0345]))


def test_capsules_agree_with_brute_force_voxel_by_voxel() -> None:
    for tree, shape, spacing in cases(1, 150):
        line = rasterise(tree, shape, spacing, mode="skeleton", tube_radius=0)
        within, _ = distances(tree, shape, spacing)
        assert np.array_equal(rasterise(tree, shape, spacing), within | line)
        within, _ = distances(tree, shape, spacing, floor=1.5 * spacing[2])
        assert np.array_equal(rasterise(tree, shape, spacing, mode="distance_binary"), within | line)
        even = replace(tree, radii=np.full(len(tree), 0.8))
        within, _ = distances(even, shape, spacing)
        assert np.array_equal(rasterise(tree, shape, spacing, mode="skeleton", tube_radius=0.8), within | line)


def test_distance_target_agrees_with_its_formula() -> None:
    for tree, shape, spacing in cases(2, 60):
        _, d = distances(tree, shape, spacing)
        d_max = 3.0 * spacing[2]
        expected = np.where(d < d_max, np.exp(6 * (1 - d / d_max)) - 1, 0) / (np.exp(6) - 1)
        target = rasterise(tree, shape, spacing, mode="distance", d_max=3.0)
        assert target.dtype == np.float32
        np.testing.assert_allclose(target, expected, atol=2e-6)


def test_distance_band_gives_the_radius_at_the_closest_point() -> None:
    tree = Tree.build([[2, 5, 5], [12, 5, 5]], [-1, 0], radii=[1, 3])
    distance, radius = distance_band(tree, (11, 11, 15), (1, 1, 1), band=4)
    assert distance[5, 5, 2] == 0
    assert distance[5, 8, 7] == pytest.approx(3)
    assert radius[5, 8, 7] == pytest.approx(2)
    assert radius[5, 5, 13] == pytest.approx(3)
    assert np.isinf(distance[5, 9, 7])
    assert radius[5, 9, 7] == 0


@pytest.mark.parametrize("mode", BINARY)
def test_a_connected_tree_is_one_component(mode: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        shape = tuple(int(size) for size in rng.integers(8, 40, 3))
        spacing = np.exp(rng.uniform(-2, 2, 3))
        tree = random_tree(rng, shape, int(rng.integers(2, 12)), radii=(0.01, 4))
        assert n_components(rasterise(tree, shape, spacing, mode=mode)) == 1


def test_thin_oblique_neuron_at_coarse_z_is_one_component() -> None:
    rng = np.random.default_rng(4)
    steps = rng.normal((0, 0, 0.3), size=(400, 3))
    path = np.cumsum(steps, axis=0)
    path = (path - path.min(axis=0)) * [1, 1, 0.4]
    shape = tuple(np.ceil(path.max(axis=0)).astype(int)[::-1] + 1)
    tree = Tree.build(path, np.arange(-1, 399), radii=0.4)
    assert n_components(distances(tree, shape, (2.5, 1, 1))[0]) > 10  # tubes alone fall apart
    assert n_components(rasterise(tree, shape, (2.5, 1, 1))) == 1


def test_voxels_that_a_taper_cuts_off_are_joined() -> None:
    # A label in which the suspect p is cut off from the centre line is made by hand: real ones are that rare.
    tree = Tree.build([[1, 4, 0], [9, 4, 0]], [-1, 0], radii=[4, 0.01])
    edges = grid_edges(tree, (1, 9, 11), np.ones(3))
    suspects = bridges.Tapered(edges, 0.0)
    p = np.ravel_multi_index((0, 7, 4), edges.shape)
    suspects._noted.append((np.array([p]), np.array([0]), np.array([5 / 8])))
    label = np.zeros(edges.shape, dtype=bool)
    label[0, 4, 1:10] = True
    line = np.flatnonzero(label)
    label.ravel()[p] = True
    assert n_components(label) == 2
    bridges.bridge(label, line, suspects)
    assert label[0, 6, 4]
    held = label.copy()
    label[0, 5, 4] = True  # now nothing is cut off, and nothing more is drawn
    held[0, 5, 4] = True
    bridges.bridge(label, line, suspects)
    assert np.array_equal(label, held)
    assert n_components(label) == 1


def test_node_voxels_are_rounded_and_the_line_is_thin() -> None:
    tree = Tree.build([[0.4, 0.6, 2], [9.4, 0.6, 2]], [-1, 0], radii=0.01)
    label = rasterise(tree, (5, 4, 12))
    assert np.argwhere(label).tolist() == [[2, 1, x] for x in range(10)]


def test_micrometres_are_voxels_times_spacing() -> None:
    for tree, shape, spacing in cases(5, 30):
        tree = off_grid(tree)
        physical = to_micrometres(replace(tree, unit="voxel"), spacing)
        assert physical.unit == "micrometre"
        for mode in BINARY:
            label = rasterise(tree, shape, spacing, mode=mode)
            assert np.array_equal(label, rasterise(physical, shape, spacing, mode=mode))


def test_a_radius_counts_voxels_of_x() -> None:
    ball = Tree.build([[10, 10, 10]], [-1], radii=3)
    label = rasterise(ball, (21, 21, 21), spacing=(2, 1, 0.5))
    extent = [np.flatnonzero(label.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    assert [(e.min(), e.max()) for e in extent] == [(10, 10), (9, 11), (7, 13)]


def test_what_leaves_the_image_is_cut_at_the_border() -> None:
    for tree, shape, spacing in cases(6, 60):
        big = tuple(3 * size for size in shape)
        offset = np.array(shape[::-1], dtype=float)
        moved = shift(off_grid(tree), offset * -0.4)
        whole = rasterise(shift(moved, offset), big, spacing)
        z, y, x = shape
        assert np.array_equal(whole[z : 2 * z, y : 2 * y, x : 2 * x], rasterise(moved, shape, spacing))


def test_far_and_huge_numbers() -> None:
    far = Tree.build([[4, 4, 4], [1e15, 4, 4], [4, -1e16, 1e16]], [-1, 0, 0], radii=[1, 1, 1])
    label = rasterise(far, (9, 9, 9))
    assert label[4, 4, 4:].all()
    assert not label[:, :, 0].any()
    assert rasterise(Tree.build([[4, 4, 4]], [-1], radii=1e16), (5, 6, 7)).all()
    assert not rasterise(Tree.build([[-90, 4, 4], [-50, 9, 9]], [-1, 0]), (5, 6, 7)).any()
    assert not rasterise(Tree([], [], [], [], []), (5, 6, 7)).any()


def test_a_soma_with_its_child_inside_is_a_whole_ball() -> None:
    soma = Tree.build([[10, 10, 10], [13, 10, 10], [19, 10, 10]], [-1, 0, 1], radii=[6, 0.5, 0.5], types=[1, 3, 3])
    z, y, x = np.ogrid[:21, :21, :21]
    ball = (z - 10) ** 2 + (y - 10) ** 2 + (x - 10) ** 2 <= 36
    assert (rasterise(soma, (21, 21, 21)) & ball).sum() == ball.sum()


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": (5, 5)},
        {"shape": (5, 0, 5)},
        {"shape": (10**5, 10**5, 10**5)},
        {"spacing": (1, 1)},
        {"spacing": (1, 0, 1)},
        {"spacing": (1, float("nan"), 1)},
        {"mode": "tube"},
        {"mode": "skeleton", "tube_radius": -1},
        {"mode": "distance", "d_max": 0},
        {"mode": "distance", "a": float("inf")},
    ],
)
def test_bad_arguments_are_refused(arguments: dict) -> None:
    with pytest.raises(NeurinoError):
        rasterise(Tree.build([[1, 1, 1]], [-1]), **{"shape": (5, 5, 5), **arguments})


def test_radii_in_another_unit_are_refused_instead_of_taking_hours() -> None:
    n = 5000
    tree = Tree.build(np.random.default_rng(0).uniform(0, 90, (n, 3)), np.arange(-1, n - 1), radii=900)
    with pytest.raises(NeurinoError, match="another unit"):
        rasterise(tree, (100, 512, 512))
