"""Thinning keeps every component, as one connected centreline inside it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import skeletonize

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.skeleton import components, label_components, skeletonise


def _box(shape, size, at=(2, 2, 2)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + s) for a, s in zip(at, size, strict=True))] = True
    return mask


def _noise(seed, smooth, side=48):
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.standard_normal((side,) * 3), smooth) > 0.25 / smooth


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smooth", [0.7, 1.2, 2.0])
def test_every_component_keeps_one_connected_skeleton_inside_it(seed, smooth):
    mask = _noise(seed, smooth)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    skeleton = skeletonise(mask)
    assert not (skeleton & ~mask).any()
    pieces = np.unique(np.stack([ndimage.label(skeleton, np.ones((3, 3, 3)))[0][skeleton], labels[skeleton]]), axis=1)
    assert pieces.shape[1] == count
    assert sorted(pieces[1]) == list(range(1, count + 1))


def test_the_noise_above_really_needs_the_rescue():
    lost = 0
    for seed in range(3):
        mask = _noise(seed, 1.2)
        labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
        lost += count - len(np.unique(labels[skeletonize(mask, method="lee") > 0]))
    assert lost > 10


@pytest.mark.parametrize("size", [(2, 2, 2), (4, 4, 4), (8, 8, 8), (1, 1, 1)])
def test_a_cube_keeps_one_voxel(size):
    assert skeletonise(_box((14, 14, 14), size)).sum() >= 1


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("width", [2, 4])
def test_a_bar_of_even_width_keeps_its_length(axis, width):
    size = [width] * 3
    size[axis] = 30
    mask = _box((36, 36, 36), size)
    along = np.flatnonzero(skeletonise(mask).any(axis=tuple(a for a in range(3) if a != axis)))
    assert len(along) >= 30 - width
    assert (np.diff(along) == 1).all()


def test_a_slanted_two_wide_bar_keeps_its_length():
    mask = np.zeros((6, 60, 60), bool)
    for i in range(50):
        mask[2:4, i + 2 : i + 4, i + 2 : i + 4] = True
    assert skeletonize(mask, method="lee").sum() == 0, "scikit-image has mended it: the rescue is no longer needed"
    assert skeletonise(mask).sum() >= 45


def test_empty_full_and_flat_volumes():
    assert not skeletonise(np.zeros((4, 5, 6))).any()
    assert skeletonise(np.ones((6, 6, 6))).any()
    assert skeletonise(np.ones((1, 5, 9))).sum() >= 1
    assert skeletonise(np.zeros((0, 4, 4))).shape == (0, 4, 4)


def test_a_stack_of_channels_is_refused():
    with pytest.raises(NeurinoError, match="z, y, x"):
        skeletonise(np.zeros((1, 4, 4, 4)))


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_components_agree_with_and_without_cc3d(connectivity, monkeypatch):
    mask = np.random.default_rng(0).random((20, 21, 22)) > 0.8
    fast, count = label_components(mask, connectivity)
    monkeypatch.setattr(components, "cc3d", None)
    plain, plain_count = label_components(mask, connectivity)
    assert count == plain_count == len(np.unique(np.stack([fast[mask], plain[mask]]), axis=1).T)
    assert ((fast > 0) == mask).all()
    assert ((plain > 0) == mask).all()


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 5, 1), (1, 1, 9), (1, 3, 3), (1, 65, 65), (25, 3, 61)])
def test_as_many_components_as_fit_into_the_volume_are_counted(shape):
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    labels, count = label_components(mask)
    assert count == mask.sum() == len(np.unique(labels[mask]))
    np.testing.assert_array_equal(skeletonise(mask), mask)
