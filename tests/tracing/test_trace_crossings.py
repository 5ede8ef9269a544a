"""Two neurites that cross, built one cause of a wrong join at a time."""

from __future__ import annotations

import numpy as np
import pytest
from tracing_scenes import cut_gap, mask_of, piece_at, polyline

from nnunet_neurino.swc import Tree
from nnunet_neurino.tracing import trace

SHAPE = (24, 60, 72)
MIDDLE = np.array([36.0, 31.0, 13.5])


def straight(angle: float, middle: np.ndarray = MIDDLE, half: float = 26.0, radius: float = 1.5) -> Tree:
    """A neurite through ``middle`` in the plane of x and y, ``angle`` degrees from the x axis."""
    way = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle)), 0.0])
    return polyline([tuple(middle - half * way), tuple(middle + half * way)], radius)


def taken_apart(mask: np.ndarray, trees: list[Tree]) -> bool:
    """Whether the tracing leads along each neurite from end to end, and from none to another."""
    traced = trace(mask)
    pieces = [
        {piece_at(traced, tuple(0.93 * tree.xyz[i] + 0.07 * tree.xyz[-1 - i])) for i in (0, -1)} for tree in trees
    ]
    return all(len(piece) == 1 for piece in pieces) and len(set.union(*pieces)) == len(trees)


# At 90 degrees a gap on the crossing itself takes 12 voxels of the other neurite away.
@pytest.mark.parametrize(
    ("angle", "off"), [(90, -4), (90, -2), (90, 2), (90, 4), (90, 6), (60, -4), (60, -2), (60, 0), (60, 2), (60, 4)]
)
def test_a_gap_on_a_crossing_or_beside_it(angle: float, off: float) -> None:
    trees = [polyline([(4, 30, 12), (68, 32, 12)]), straight(angle)]
    mask = mask_of(trees, SHAPE)
    along = trees[1].xyz[1] - trees[1].xyz[0]
    cut_gap(mask, tuple(MIDDLE + off * along / np.linalg.norm(along)), tuple(along), 3.0)
    assert taken_apart(mask, trees)


@pytest.mark.parametrize("angle", [50, 40, 32])
def test_neurites_that_share_a_stretch_for_their_angle(angle: float) -> None:
    trees = [straight(0), straight(angle, MIDDLE - [0, 0, 1.5])]
    assert taken_apart(mask_of(trees, SHAPE), trees)


@pytest.mark.parametrize("beside", [6.5, 7.0, 7.5])
def test_a_neurite_past_a_cell_body_is_none_of_its_stems(beside: float) -> None:
    middle = np.array([48.0, 40.0, 24.0])
    tips = np.array([[90, 60, 30], [8, 62, 20], [14, 10, 28], [80, 6, 18]], float)
    stems = Tree.build(np.vstack([middle, tips]), np.array([-1, 0, 0, 0, 0]), radii=1.5)
    body = Tree.build(middle[None], np.array([-1]), radii=6.0)
    fibre = polyline([(4, 40, 24 + beside), (92, 40, 24 + beside)])
    traced = trace(mask_of([stems, body, fibre], (48, 80, 96)))
    along = {piece_at(traced, tuple(0.95 * fibre.xyz[i] + 0.05 * fibre.xyz[1 - i])) for i in (0, 1)}
    neuron = {piece_at(traced, tuple(0.9 * tip + 0.1 * middle)) for tip in tips}
    assert len(along) == len(neuron) == 1
    assert along != neuron
