"""Copies of a case: where each voxel comes to lie, and what becomes of its brightness."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.slice_encoder import brightness
from nnunet_neurino.trainers.windows.copies import CopyRecipe, Pose, VolumeCopy, change_intensity, padded_shape

WINDOW, PATCH = (4, 16, 16), (8, 32, 32)
SHAPES = [(9, 20, 33), (3, 15, 40), (8, 32, 32), (1, 1, 1), (5, 70, 16)]
MOVED = CopyRecipe(copies=8, intensity=False, shifts=False)


def copy(number: int, shape, recipe: CopyRecipe = MOVED, case: str = "case") -> VolumeCopy:
    return VolumeCopy.of(case, number, recipe, shape, PATCH, WINDOW)


def numbered(shape) -> np.ndarray:
    return np.arange(1, 1 + np.prod(shape), dtype=np.int64).reshape(1, *shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_volumes_are_continued_as_in_nnunets_prediction(shape) -> None:
    found = copy(0, shape).place(numbered(shape))
    wanted = pad_nd_image(numbered(shape), padded_shape(shape, PATCH, WINDOW))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_whole_windows_and_at_least_a_patch_and_no_more(shape) -> None:
    found = padded_shape(shape, PATCH, WINDOW)
    for n, size, patch, window in zip(found, shape, PATCH, WINDOW, strict=True):
        assert n % window == 0
        assert max(size, patch) <= n < max(size, patch) + window
    assert padded_shape((1, 1, 1), (7, 30, 17), WINDOW) == (8, 32, 32), "a patch need not be whole windows"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("upside_down", [False, True])
def test_each_pose_is_a_turn_and_perhaps_a_flip(shape, upside_down) -> None:
    volume = numbered(shape)
    turns = {
        pad_nd_image(turned, padded_shape(turned.shape[1:], PATCH, WINDOW)).tobytes()
        for quarter, flipped in product(range(4), (False, True))
        for turned in [np.rot90(volume[..., ::-1] if flipped else volume, quarter, axes=(2, 3))]
    }
    found = set()
    for number in range(8):
        made = copy(number, shape)
        placed = (made.turned_over() if upside_down else made).place(volume)
        assert placed.shape[1:] == made.shape
        found.add((placed[:, ::-1] if upside_down else placed).tobytes())
    assert found == turns


@pytest.mark.parametrize("shape", SHAPES)
def test_voxels_and_regions_lie_where_the_whole_copy_has_them(shape) -> None:
    random = np.random.default_rng(0)
    volume = numbered(shape)
    places = np.stack([random.integers(0, n, 20) for n in shape], axis=1)
    for number in range(8):
        for made in (copy(number, shape), copy(number, shape).turned_over()):
            whole = made.place(volume)
            np.testing.assert_array_equal(whole[(0, *made.voxels(places).T)], volume[(0, *places.T)])
            for _ in range(5):
                ends = [np.sort(random.choice(n + 1, 2, replace=False)) for n in made.shape]
                region = tuple(slice(int(first), int(last)) for first, last in ends)
                np.testing.assert_array_equal(made.place(volume, region), whole[(slice(None), *region)])


def test_only_the_part_that_is_needed_is_read() -> None:
    volume = numbered((9, 64, 80))

    class Counted:
        shape, dtype, read = volume.shape, volume.dtype, 0

        def __getitem__(self, place) -> np.ndarray:
            self.read += volume[place].size
            return volume[place]

    for number in range(8):
        counted = Counted()
        copy(number, (9, 64, 80)).turned_over().place(counted, (slice(4, 8), slice(16, 32), slice(32, 64)))
        assert 0 < counted.read <= 4 * 16 * 32


@pytest.mark.parametrize(
    ("recipe", "poses"),
    [
        (CopyRecipe(16), 8),
        (CopyRecipe(8, quarter_turns=False), 4),
        (CopyRecipe(3, mirroring=False), 1),
        (CopyRecipe(3, mirroring=False, quarter_turns=False), 1),
    ],
)
def test_all_poses_come_before_one_comes_again(recipe, poses) -> None:
    orders = []
    for case in map(str, range(20)):
        order = [recipe.pose(case, number) for number in range(recipe.copies)]
        assert order[0] == Pose()
        assert len(recipe.poses) == poses
        for first in range(0, recipe.copies - poses + 1, poses):
            assert len(set(order[first : first + poses])) == poses
        orders.append(tuple(order))
    assert poses < 3 or len(set(orders)) > 3, "cases differ in their order"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("upside_down", [False, True])
def test_moved_copies_hold_what_is_left_of_the_volume(shape, upside_down) -> None:
    recipe = CopyRecipe(copies=12, mirroring=False, intensity=False)
    volume = numbered(shape)
    shifts = set()
    for number in range(12):
        made = copy(number, shape, recipe)
        made = made.turned_over() if upside_down else made
        shifts.add(made.shift)
        limits = [min(w // 2, n // 4) for w, n in zip(WINDOW, made.shape, strict=True)]
        assert all(abs(moved) <= limit for moved, limit in zip(made.shift, limits, strict=True))
        placed = made.place(volume)[0]
        where = made.voxels(np.argwhere(volume[0]))
        inside = ((where >= 0) & (where < made.shape)).all(1)
        np.testing.assert_array_equal(placed[tuple(where[inside].T)], volume[0].ravel()[inside])
        assert np.count_nonzero(placed) == inside.sum()
    assert (0, 0, 0) in shifts
    assert len(shifts) > 5
    assert copy(0, shape, recipe).shift == (0, 0, 0)


def test_copies_that_would_be_the_same_are_not_counted() -> None:
    assert CopyRecipe(12, intensity=False, shifts=False).distinct == 8
    assert CopyRecipe(12, quarter_turns=False, intensity=False, shifts=False).distinct == 4
    assert CopyRecipe(12, mirroring=False, intensity=False, shifts=False).distinct == 1
    assert CopyRecipe(12, mirroring=False).distinct == 12
    assert CopyRecipe(12, intensity=False).distinct == 12
    with pytest.raises(NeurinoError, match="copies 0: expected 1 or more"):
        CopyRecipe(0)


def image(shape, channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(2, 3, (channels, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("recipe", [MOVED, CopyRecipe(8)])
def test_copy_0_is_what_the_network_makes_of_the_image_itself(shape, recipe) -> None:
    padded = pad_nd_image(image(shape), padded_shape(shape, PATCH, WINDOW))
    found = copy(0, shape, recipe).image(image(shape))
    np.testing.assert_array_equal(found, brightness(torch.from_numpy(padded)[None])[0].numpy())


def test_images_and_labels_lie_the_same_way_in_every_copy() -> None:
    shape = (9, 20, 33)
    labels = (np.random.default_rng(1).random((1, *shape)) < 0.3).astype(np.int8)
    labels[:, :, :2] = -1
    bright = np.where(labels > 0, 5, 1).astype(np.float32)
    for number in range(9):
        made = copy(number, shape, CopyRecipe(9))
        for one in (made, made.turned_over()):
            found, place = one.image(bright)[0], one.labels(labels)[0]
            assert place.dtype == np.int16
            assert set(np.unique(place)) == {0, 1}
            threshold = (found[place > 0].mean() + found[place == 0].mean()) / 2
            assert (((found > threshold) == (place > 0)).mean()) > 0.999


def test_copies_are_the_same_whenever_they_are_made() -> None:
    recipe = CopyRecipe(5)
    first = [copy(number, (9, 20, 33), recipe).image(image((9, 20, 33))) for number in range(5)]
    np.random.default_rng().random(3)
    again = [copy(number, (9, 20, 33), CopyRecipe(9)).image(image((9, 20, 33))) for number in reversed(range(5))]
    for one, two in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(one, two)
    other = copy(1, (9, 20, 33), recipe, "another case").image(image((9, 20, 33)))
    assert not np.array_equal(other, first[1])


def test_intensities_are_changed_moderately_and_differently_in_each_copy() -> None:
    recipe = CopyRecipe(24, mirroring=False, shifts=False)
    made = [copy(number, (8, 32, 32), recipe).image(image((8, 32, 32))) for number in range(24)]
    assert all(one.dtype == np.float32 and one.min() >= 0 and one.max() <= 1 for one in made)
    for channel in range(2):
        flat = np.stack([one[channel].ravel() for one in made])
        assert np.corrcoef(flat)[0].min() > 0.95
        changes = np.abs(flat[1:] - flat[0]).mean(axis=1)
        assert changes.min() > 0.005
        assert changes.max() < 0.3
        assert len({row.tobytes() for row in flat}) == 24


def test_what_is_changed_is_not_undone_by_the_percentiles() -> None:
    # An image that is twice as bright has the same brightness: the change must come behind it.
    original = image((8, 32, 32))
    same = brightness(torch.from_numpy(2 * original + 1)[None])[0].numpy()
    np.testing.assert_allclose(copy(0, (8, 32, 32)).image(original), same, atol=1e-5)
    changed = copy(1, (8, 32, 32), CopyRecipe(2, mirroring=False, shifts=False)).image(original)
    assert np.abs(changed - same).mean() > 0.005


def test_there_is_no_noise_where_there_is_no_image() -> None:
    for number in range(1, 12):
        made = copy(number, (3, 15, 20), CopyRecipe(12))
        found = made.image(image((3, 15, 20)))
        around = made.place(np.ones((2, 3, 15, 20), bool)) == 0
        assert all(len(np.unique(found[channel][around[channel]])) == 1 for channel in range(2))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_even_and_empty_images_stay_finite(value) -> None:
    for seed in range(20):
        for known in (np.zeros((1, 2, 3, 4), bool), np.ones((1, 2, 3, 4), bool)):
            flat = np.full((1, 2, 3, 4), value, np.float32)
            found = change_intensity(flat, known, np.random.default_rng(seed))
            assert np.isfinite(found).all()
            assert found.min() >= 0
            assert found.max() <= 1
