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


@pytest.mark.parametrize("angle", [90, 60])
@pytest.mark.parametrize("off", [-6, 6])
def test_a_gap_beside_a_crossing(angle: float, off: float) -> None:
    trees = [polyline([(0, 30, 12), (71, 32, 12)]), straight(angle, half=40)]
    mask = mask_of(trees, SHAPE)
    along = trees[1].xyz[1] - trees[1].xyz[0]
    cut_gap(mask, tuple(MIDDLE + off * along / np.linalg.norm(along)), tuple(along), 3.0)
    assert taken_apart(mask, [trees[0], straight(angle, half=22)])


@pytest.mark.parametrize("angle", [50, 40, 32])
def test_neurites_that_share_a_stretch_for_their_angle(angle: float) -> None:
    trees = [straight(0), straight(angle, MIDDLE - [0, 0, 1.5])]
    assert taken_apart(mask_of(trees, SHAPE), trees)


def forked_scene(second_ends: float) -> tuple[np.ndarray, list[Tree]]:
    """A forked neuron with a cell body, and a straight neurite that crosses it and ends at ``x``."""
    body = Tree.build(np.array([[20.0, 40, 12]]), np.array([-1]), radii=6.0)
    neuron = [polyline([(20, 40, 12), (60, 40, 12), (95, 62, 12)]), polyline([(60, 40, 12), (95, 18, 12)])]
    other = polyline([(40, 0, 13.5), (40, second_ends, 13.5)])
    return mask_of([body, *neuron, other], (24, 80, 96)), [*neuron, other]


def test_a_fibre_from_border_to_border_is_no_branch_of_the_neuron_that_it_crosses() -> None:
    mask, (_, __, fibre) = forked_scene(79)
    traced = trace(mask)
    along = {piece_at(traced, tuple(0.9 * fibre.xyz[i] + 0.1 * fibre.xyz[1 - i])) for i in (0, 1)}
    assert len(along) == 1
    assert along.isdisjoint({piece_at(traced, place) for place in ((20, 40, 12), (90, 59, 12), (90, 21, 12))})


def test_what_is_no_neuron_by_itself_stays_with_the_one_that_it_crosses() -> None:
    mask, _ = forked_scene(60)
    assert trace(mask).n_pieces == 1
