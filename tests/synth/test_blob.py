"""MR-like volumes: determinism, size of the structure, and that it can be told from its surroundings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.synth import BlobSettings, generate_blob

SETTINGS = BlobSettings(shape=(40, 48, 44))


def test_same_seed_same_bytes() -> None:
    one, again, other = (generate_blob(SETTINGS, seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert one.image.tobytes() == again.image.tobytes()
    assert one.mask.tobytes() == again.mask.tobytes()
    assert one.mask.tobytes() != other.mask.tobytes()


@pytest.mark.parametrize("shape", [(40, 48, 44), (12, 64, 20)])
def test_structure_is_one_piece_of_one_to_two_percent(shape: tuple[int, int, int]) -> None:
    for seed in range(4):
        volume = generate_blob(BlobSettings(shape=shape), seed)
        assert volume.image.shape == volume.mask.shape == shape
        assert 0.01 <= volume.mask.mean() <= 0.02
        assert label(volume.mask, np.ones((3, 3, 3)))[1] == 1
        assert volume.trees == ()


def test_structure_is_brighter_than_its_rim_but_not_the_brightest() -> None:
    for seed in range(4):
        volume = generate_blob(SETTINGS, seed)
        mask = volume.mask.astype(bool)
        inside = volume.image[mask].mean()
        near = volume.image[binary_dilation(mask, iterations=4) & ~binary_dilation(mask, iterations=1)]
        assert inside > 1.02 * np.median(near) or inside > near.mean()
        # A threshold alone does not find it: many voxels elsewhere are as bright.
        assert (volume.image > inside).sum() > 3 * mask.sum()


@pytest.mark.parametrize(
    "wrong", [{"shape": (4, 64, 64)}, {"spacing": (1.0, -1.0, 1.0)}, {"fraction": (0.0, 0.1)}, {"fraction": (0.1, 0.5)}]
)
def test_wrong_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(NeurinoError, match=r"expected|needs"):
        BlobSettings(**wrong)
