"""One cell body, one neuron."""

from __future__ import annotations

import numpy as np
from crossing_scenes import SMOOTH, grown_scene, judge
from tracing_scenes import mask_of, piece_at, polyline

from nnunet_neurino.swc import Tree
from nnunet_neurino.synth import GrowthSettings
from nnunet_neurino.tracing import TraceSettings, trace

Place = tuple[float, float, float]


def neuron(body: Place, *neurites: list[Place], radius: float = 1.5) -> list[Tree]:
    """A cell body with neurites through places x, y, z, as trees to draw on top of each other."""
    return [Tree.build(np.array([body]), np.array([-1]), radii=6.0)] + [
        polyline([body, *neurite], radius) for neurite in neurites
    ]


# Each has a neurite of its own on every side, so that nothing runs straight on through a cell body by chance.
LEFT: Place = (24.0, 40.0, 24.0)
RIGHT: Place = (92.0, 40.0, 24.0)
LEFT_STEMS: list[list[Place]] = [[(14, 72, 30)], [(8, 10, 18)]]
RIGHT_STEMS: list[list[Place]] = [[(104, 72, 18)], [(108, 12, 30)]]
SHAPE = (48, 80, 116)


def pieces_at(mask: np.ndarray, *places: Place) -> list[int]:
    """The number of the traced piece that is nearest to each place x, y, z."""
    traced = trace(mask)
    return [piece_at(traced, place) for place in places]


def test_neurons_that_cross_in_two_places_are_taken_apart_in_both() -> None:
    over: list[Place] = [(40, 54, 24), (84, 54, 24), (98, 68, 24)]
    under: list[Place] = [(76, 46, 24), (66, 68, 24), (54, 68, 24), (44, 44, 24), (50, 28, 24)]
    trees = neuron(LEFT, over, *LEFT_STEMS) + neuron(RIGHT, under, *RIGHT_STEMS)
    one, other, *ends = pieces_at(mask_of(trees, SHAPE), LEFT, RIGHT, (96, 66, 24), (49, 31, 24))
    assert ends == [one, other]
    assert one != other


def test_crossings_left_joined_join_cell_bodies_too() -> None:
    trees = neuron(LEFT, [(58, 52, 24)], *LEFT_STEMS) + neuron(RIGHT, [(58, 52, 24)], *RIGHT_STEMS)
    assert trace(mask_of(trees, SHAPE), settings=TraceSettings(split_crossings=False)).n_pieces == 1


def test_two_neurons_with_a_cell_body_each_are_two_trees() -> None:
    growth = GrowthSettings(neurons=(2, 2), crossings=(0, 0), touches=(0, 0), **SMOOTH)
    outcomes = [judge(grown_scene(growth, (96, 96, 96), seed), trace) for seed in range(20)]
    assert sum(outcome.crossings for outcome in outcomes) >= 20
    assert sum(outcome.foreign for outcome in outcomes) <= 0.2 * sum(outcome.cable for outcome in outcomes)
