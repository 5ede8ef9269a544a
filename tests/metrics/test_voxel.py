"""Voxel scores against brute force over all pairs of surface voxels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.metrics import betti_numbers, surface_distance, topology_scores, voxel_scores


def random_mask(rng: np.random.Generator, shape: tuple[int, int, int], density: float, smooth: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.random(shape), smooth)
    return noise > np.quantile(noise, 1 - density)


def brute_surface(mask: np.ndarray) -> np.ndarray:
    """Foreground voxels with at least one of six neighbours outside the mask or the image."""
    found = []
    for z, y, x in np.argwhere(mask):
        for dz, dy, dx in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
            n = (z + dz, y + dy, x + dx)
            if min(n) < 0 or any(a >= b for a, b in zip(n, mask.shape, strict=True)) or not mask[n]:
                found.append((z, y, x))
                break
    return np.array(found, dtype=float)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.4)])
@pytest.mark.parametrize("density", [0.02, 0.4, 1.0])
def test_equals_brute_force(seed: int, spacing: tuple[float, float, float], density: float) -> None:
    rng = np.random.default_rng(seed)
    pred, truth = (random_mask(rng, (9, 14, 12), density, seed * 0.6) for _ in range(2))
    scores = voxel_scores(pred, truth, spacing)
    hits = sum(bool(a and b) for a, b in zip(pred.ravel(), truth.ravel(), strict=True))
    assert scores.precision == pytest.approx(hits / pred.sum())
    assert scores.recall == pytest.approx(hits / truth.sum())
    assert scores.f1 == pytest.approx(2 * hits / (pred.sum() + truth.sum()))
    for scale, suffix in (((1.0, 1.0, 1.0), ""), (spacing, "_um")):
        distances = cdist(brute_surface(pred) * scale, brute_surface(truth) * scale)
        forth, back = distances.min(axis=1), distances.min(axis=0)
        assert getattr(scores, f"hd95_directed{suffix}") == pytest.approx(np.percentile(forth, 95))
        assert getattr(scores, f"hd95_truth_to_pred{suffix}") == pytest.approx(np.percentile(back, 95))
        assert getattr(scores, f"hd95{suffix}") == pytest.approx(np.percentile(np.concatenate([forth, back]), 95))


def test_directed_distance_does_not_see_what_is_missing() -> None:
    truth = np.zeros((3, 3, 60), bool)
    truth[1, 1] = True
    pred = truth.copy()
    pred[:, :, 20:] = False
    scores = voxel_scores(pred, truth)
    assert scores.hd95_directed == 0
    assert scores.hd95_truth_to_pred == pytest.approx(np.percentile([*[0] * 20, *range(1, 41)], 95))
    assert scores.hd95 == pytest.approx(np.percentile([*[0] * 40, *range(1, 41)], 95))


def test_maximum_is_the_hausdorff_distance() -> None:
    from skimage.metrics import hausdorff_distance

    rng = np.random.default_rng(5)
    pred, truth = (random_mask(rng, (10, 20, 20), 0.1, 1.5) for _ in range(2))
    ours = surface_distance(pred, truth, percentile=100)
    surfaces = [np.zeros(pred.shape, bool), np.zeros(pred.shape, bool)]
    for image, mask in zip(surfaces, (pred, truth), strict=True):
        image[tuple(brute_surface(mask).astype(int).T)] = True
    assert max(ours.pred_to_truth, ours.truth_to_pred) == pytest.approx(hausdorff_distance(*surfaces))


def test_empty_masks_have_documented_answers() -> None:
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    neither = voxel_scores(empty, empty)
    assert (neither.f1, neither.hd95, neither.precision, neither.recall) == (None,) * 4
    assert neither.reason == "the prediction is empty and the truth is empty"
    missed = voxel_scores(empty, full)
    assert (missed.f1, missed.recall, missed.precision, missed.hd95) == (0.0, 0.0, None, None)
    invented = voxel_scores(full, empty, (1, 1, 1))
    assert (invented.f1, invented.recall, invented.precision, invented.hd95_um) == (0.0, None, 0.0, None)
    assert voxel_scores(full, full).hd95 == 0


def test_without_voxel_size_nothing_is_in_micrometres() -> None:
    mask = np.ones((2, 2, 2), bool)
    assert voxel_scores(mask, mask).hd95_um is None


def test_different_shapes_are_refused() -> None:
    with pytest.raises(NeurinoError, match=r"3 x 4 x 5 voxels.*3 x 4 x 6"):
        voxel_scores(np.ones((3, 4, 5), bool), np.ones((3, 4, 6), bool))


@pytest.mark.parametrize("numbers", [np.uint8(1), np.uint8(255), np.int64(2), np.int64(256), np.float32(0.5)])
def test_masks_of_any_numbers_are_masks(numbers: np.generic) -> None:
    rng = np.random.default_rng(5)
    truth, pred = rng.random((2, 7, 9, 8)) < 0.3
    assert voxel_scores(pred.astype(np.uint8), truth * numbers, (2, 1, 1)) == voxel_scores(pred, truth, (2, 1, 1))
    assert topology_scores(pred.astype(np.uint8), truth * numbers) == topology_scores(pred, truth)
    hollow = np.ones((3, 3, 3), bool)
    hollow[1, 1, 1] = False
    assert betti_numbers(hollow * numbers) == betti_numbers(hollow)
    assert betti_numbers(hollow).b2 == 1
