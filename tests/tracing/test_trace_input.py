"""Tracing of what is hardly a mask, or none."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.tracing import TraceSettings, trace


@pytest.mark.parametrize(
    ("mask", "nodes"),
    [
        (np.zeros((5, 6, 7), bool), 0),
        (np.pad(np.ones((1, 1, 1), bool), 3), 0),
        (np.pad(np.ones((3, 3, 3), bool), 4), 1),
    ],
)
def test_next_to_nothing(mask: np.ndarray, nodes: int) -> None:
    tree = trace(mask)
    assert (len(tree) > 0) == (nodes > 0)
    assert tree.unit == "voxel"


def test_plane_and_line_shaped_volumes() -> None:
    for shape in ((1, 30, 40), (30, 1, 40), (1, 1, 40)):
        mask = np.zeros(shape, bool)
        mask[shape[0] // 2, shape[1] // 2, 4:36] = True
        tree = trace(mask)
        assert (tree.n_pieces, round(tree.length)) == (1, pytest.approx(31, abs=2))


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        (np.ones((20, 20, 20), bool), "100% of the image is foreground"),
        (np.linspace(-5, 900, 1000).reshape(10, 10, 10), "values from -5 to 900"),
        (np.full((4, 4, 4), np.nan), "NaN"),
        (np.zeros((2, 3, 4, 5)), "4 axes"),
        (np.zeros((0, 3, 4)), "no voxels"),
    ],
)
def test_what_is_no_mask_is_refused(volume: np.ndarray, said: str) -> None:
    with pytest.raises(NeurinoError, match=said):
        trace(volume)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(NeurinoError, match="low <= high"):
        TraceSettings(low=0.6, high=0.5)
    for name in ("low", "min_length", "bridge_length", "bridge_angle", "prune", "node_spacing"):
        with pytest.raises(NeurinoError):
            TraceSettings(**{name: float("nan")})
    for root in ((1.0, 2.0), (1.0, float("nan"), 2.0)):
        with pytest.raises(NeurinoError, match="root"):
            TraceSettings(root=root)  # type: ignore[arg-type]
    with pytest.raises(NeurinoError, match="bridge_angle"):
        TraceSettings(bridge_angle=0)
    with pytest.raises(NeurinoError, match="spacing"):
        trace(np.zeros((3, 3, 3), bool), (1, 0, 1))
    with pytest.raises(NeurinoError, match="expected the same"):
        trace(np.zeros((3, 3, 3), bool), image=np.zeros((3, 3, 4)))
