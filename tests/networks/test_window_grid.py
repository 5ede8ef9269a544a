"""Windows: cutting a volume and putting it together again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.window_grid import WindowGrid

SIDES = st.tuples(*[st.integers(1, 23)] * 3)


@given(shape=SIDES, window=SIDES, overlap=st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.75]), seed=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_what_was_cut_is_put_together_again(shape, window, overlap, seed) -> None:
    volume = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 3, *shape)))
    grid = WindowGrid(shape, window, overlap)
    windows = list(grid.disassemble(volume))
    assert len(windows) == len(grid) == np.prod(grid.counts)
    assert all(tuple(piece.shape) == (2, 3, *window) for piece in windows)
    again = grid.reassemble(windows)
    if overlap:
        torch.testing.assert_close(again, volume, rtol=1e-12, atol=1e-12)
    else:
        assert torch.equal(again, volume)


@given(shape=SIDES, window=SIDES)
@settings(max_examples=60, deadline=None)
def test_without_overlap_every_voxel_lies_in_one_window_and_beyond_lie_zeros(shape, window) -> None:
    grid = WindowGrid(shape, window)
    seen = torch.zeros(shape)
    for number in range(len(grid)):
        seen[grid.region(number)] += 1
    assert bool((seen == 1).all())
    total = sum(float(piece.sum()) for piece in grid.disassemble(torch.ones(shape)))
    assert total == np.prod(shape)


def test_overlapping_windows_stay_inside_and_share_what_was_asked_for() -> None:
    grid = WindowGrid((32, 70, 200), (32, 64, 64), 0.5)
    z, y, x = (sorted({corner[axis] for corner in grid.corners}) for axis in range(3))
    assert z == [0]
    assert y == [0, 6]
    assert x[0] == 0
    assert x[-1] == 136
    assert np.diff(x).max() <= 32


def test_gradients_go_back_to_the_window_a_voxel_came_from() -> None:
    grid = WindowGrid((3, 5, 4), (2, 2, 3))
    windows = [torch.rand(1, 2, 2, 3, requires_grad=True) for _ in range(len(grid))]
    weights = torch.rand(1, 3, 5, 4)
    (grid.reassemble(windows) * weights).sum().backward()
    for number, window in enumerate(windows):
        assert torch.equal(window.grad, grid.cut(weights, number))


def test_depths_run_from_face_to_face() -> None:
    grid = WindowGrid((6, 4, 4), (2, 4, 4))
    together = torch.cat([grid.depths(number) for number in range(3)])
    torch.testing.assert_close(together, torch.tensor([-5.0, -3, -1, 1, 3, 5]) / 6)


@pytest.mark.parametrize(("shape", "window", "overlap"), [((0, 4, 4), (2, 2, 2), 0), ((4, 4, 4), (2, 2), 0)])
def test_what_is_no_grid_is_refused(shape, window, overlap) -> None:
    with pytest.raises(NeurinoError, match="expected voxels along z, y and x"):
        WindowGrid(shape, window, overlap)
    with pytest.raises(NeurinoError, match="below 1"):
        WindowGrid((4, 4, 4), (2, 2, 2), 1.0)
