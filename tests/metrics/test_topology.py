"""Betti numbers of known shapes and of random masks (counted from cells); clDice from its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nnunet_neurino.metrics import betti_numbers, topology_scores
from nnunet_neurino.skeleton import skeletonise


def torus() -> np.ndarray:
    z, y, x = np.mgrid[-4:5, -12:13, -12:13]
    return (np.hypot(y, x) - 8) ** 2 + z**2 <= 9


def ball(hollow: bool) -> np.ndarray:
    r = np.sqrt(sum(axis**2 for axis in np.mgrid[-6:7, -6:7, -6:7]))
    return (r <= 6) & (r > 2) if hollow else r <= 6


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (torus(), (1, 1, 0)),
        (ball(False), (1, 0, 0)),
        (ball(True), (1, 0, 1)),
        (np.zeros((3, 3, 3), bool), (0, 0, 0)),
        (np.ones((3, 3, 3), bool), (1, 0, 0)),
        (np.eye(3, dtype=bool)[None].repeat(1, 0), (1, 0, 0)),
    ],
)
def test_known_shapes(mask: np.ndarray, expected: tuple[int, int, int]) -> None:
    betti = betti_numbers(mask)
    assert (betti.b0, betti.b1, betti.b2) == expected


def euler_from_cells(mask: np.ndarray) -> int:
    """Euler number of the union of closed unit cubes: corners - edges + faces - cubes."""
    cells = set()
    for voxel in np.argwhere(mask):
        for offset in np.ndindex(3, 3, 3):
            cells.add(tuple(2 * voxel + offset))
    return sum((-1) ** sum(c % 2 for c in cell) for cell in cells)


@pytest.mark.parametrize("density", [0.1, 0.35, 0.6])
def test_random_masks_against_cells(density: float) -> None:
    rng = np.random.default_rng(int(100 * density))
    for _ in range(3):
        mask = rng.random((7, 8, 9)) < density
        betti = betti_numbers(mask)
        assert betti.b0 - betti.b1 + betti.b2 == euler_from_cells(mask)
        assert betti.b0 == ndimage.label(mask, np.ones((3, 3, 3)))[1]


def test_errors_are_differences() -> None:
    truth = np.zeros((5, 9, 30), bool)
    truth[2, 4] = True
    pred = truth.copy()
    pred[:, :, 10:12] = False
    pred[2, 1:8, 20:27] = True
    pred[2, 2:4, 22:25] = False
    scores = topology_scores(pred, truth)
    assert (scores.betti0_error, scores.betti1_error) == (1, 1)


@pytest.mark.parametrize("seed", range(3))
def test_cldice_from_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.random((16, 24, 24)), 1.5)
    truth = noise > np.quantile(noise, 0.9)
    pred = np.roll(truth, seed, axis=2)
    ours = {tuple(v) for v in np.argwhere(skeletonise(pred))}
    theirs = {tuple(v) for v in np.argwhere(skeletonise(truth))}
    precision = sum(bool(truth[v]) for v in ours) / len(ours)
    recall = sum(bool(pred[v]) for v in theirs) / len(theirs)
    scores = topology_scores(pred, truth)
    assert scores.cldice_precision == pytest.approx(precision)
    assert scores.cldice_recall == pytest.approx(recall)
    assert scores.cldice == pytest.approx(2 * precision * recall / (precision + recall))


def test_an_object_that_thinning_deletes_still_counts() -> None:
    truth = np.zeros((12, 12, 40), bool)
    truth[2:6, 2:6, 2:38] = True  # an even cross-section vanishes in plain thinning
    assert topology_scores(truth, truth).cldice == 1.0
    assert topology_scores(np.roll(truth, 6, axis=1), truth).cldice == 0.0


def test_empty_masks() -> None:
    empty, some = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    assert topology_scores(empty, empty).cldice is None
    assert topology_scores(empty, some).cldice == 0.0
    assert topology_scores(some, empty).reason == "the truth is empty"
