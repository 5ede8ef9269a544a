"""The range that the localised TASL has by its documentation."""

from __future__ import annotations

import numpy as np
from drawn import RADII, SHAPE, TREES, draw, random_tree, value_of
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_neurino.losses.truth import analyse_truth


def _highest(truth):
    """What the docstring of ``TASL`` promises for a mask."""
    return 2 + np.log(max(analyse_truth(truth).graph.n_sections, 1)) / 20


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from((0.02, 0.1, 0.5)),
    radius=st.sampled_from(RADII),
    found=st.floats(0, 1),
    false=st.floats(0, 1),
    smooth=st.sampled_from((0.0, 1.0, 2.0)),
)
def test_no_prediction_leaves_the_documented_range(seed, density, radius, found, false, smooth):
    """Trees and noise; predictions from all wrong to all right, in voxels and in clumps."""
    rng = np.random.default_rng(seed)
    tree = rng.random() < 0.5
    truth = random_tree(seed, radius=radius) if tree else rng.random(SHAPE) < density
    field = rng.standard_normal(SHAPE)
    field = ndimage.gaussian_filter(field, smooth) if smooth else field
    field = np.argsort(np.argsort(field.ravel())).reshape(SHAPE) / field.size
    value = value_of(np.where(np.where(truth, field < found, field < false), 1.0, 0.0).clip(1e-6, 1 - 1e-6), truth)
    assert 0 <= value <= _highest(truth)


def test_one_neuron_lost_and_all_else_predicted_comes_close_to_the_highest_value():
    truth = draw(TREES["two neurons"], 0.5)
    value = value_of(np.where(truth, 1e-6, 1 - 1e-6), truth)
    assert 1.5 < value <= _highest(truth)
