"""One cell body, one neuron."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from crossing_scenes import SMOOTH, grown_scene, judge
from tracing_scenes import mask_of, piece_at, polyline

from nnunet_neurino.swc import Tree
from nnunet_neurino.synth import GrowthSettings
from nnunet_neurino.tracing import TraceSettings, trace
from nnunet_neurino.tracing.crossings.bodies import part_bodies
from nnunet_neurino.tracing.lines import Lines, way_between

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


@pytest.mark.parametrize("meet", [50.0, 58.0, 66.0])
def test_neurites_that_touch_with_their_tips_are_of_two_neurons(meet: float) -> None:
    trees = neuron(LEFT, [(meet, 52, 24)], *LEFT_STEMS) + neuron(RIGHT, [(meet, 52, 24)], *RIGHT_STEMS)
    mask = mask_of(trees, SHAPE)
    one, other, near_one, near_other = pieces_at(mask, LEFT, RIGHT, (meet - 12, 49, 24), (meet + 12, 49, 24))
    assert one == near_one
    assert other == near_other
    assert one != other


def test_a_neurite_through_another_neurons_cell_body_goes_on_behind_it() -> None:
    trees = neuron(LEFT, [(112, 40, 24)], *LEFT_STEMS) + neuron((64, 42, 24), [(54, 74, 18)], [(72, 8, 32)])
    one, other, *along = pieces_at(mask_of(trees, SHAPE), LEFT, (54, 72, 18), (46, 40, 24), (100, 40, 24))
    assert along == [one, one]
    assert one != other


def test_a_neurite_that_ends_on_another_neurons_cell_body_stays_with_its_own() -> None:
    trees = neuron(LEFT, [(60, 44, 26)], *LEFT_STEMS) + neuron(
        (66, 44, 26), [(54, 74, 18)], [(76, 8, 34)], [(110, 60, 40)]
    )
    one, other, along = pieces_at(mask_of(trees, SHAPE), LEFT, (66, 44, 26), (46, 42, 25))
    assert along == one
    assert one != other


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


@pytest.mark.parametrize("seed", range(20))
def test_after_parting_no_two_bodies_are_joined_and_nothing_else_is_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = nx.gnm_random_graph(60, 70, seed=seed)
    lines = Lines(rng.uniform(0, 50, (60, 3)), rng.uniform(1, 2, 60), np.array(sorted(map(sorted, graph.edges))))
    bodies = rng.choice(60, 4, replace=False).tolist()
    parted = part_bodies(lines, bodies)
    piece = parted.pieces()
    assert len(set(piece[bodies])) == 4
    gone = set(map(tuple, lines.edges.tolist())) - set(map(tuple, parted.edges.tolist()))
    assert len(parted.points) == 60
    for edge in gone:  # each was on a way between two bodies
        of = graph.subgraph(nx.node_connected_component(graph, edge[0]))
        assert len(of.nodes & set(bodies)) > 1


@pytest.mark.parametrize("seed", range(30))
def test_a_way_between_is_found_if_there_is_one(seed: int) -> None:
    graph = nx.gnm_random_graph(40, 30, seed=seed)
    starts = np.random.default_rng(seed).choice(40, 3, replace=False).tolist()
    way = way_between(starts, graph.neighbors)
    joined = any(nx.has_path(graph, a, b) for a in starts for b in starts if a != b)
    assert bool(way) == joined
    if way:
        assert way[0] != way[-1]
        assert {way[0], way[-1]} <= set(starts)
        assert nx.is_simple_path(graph, way)


def test_two_neurons_with_a_cell_body_each_are_two_trees() -> None:
    growth = GrowthSettings(neurons=(2, 2), crossings=(0, 0), touches=(0, 0), **SMOOTH)
    outcomes = [judge(grown_scene(growth, (96, 96, 96), seed), trace) for seed in range(20)]
    assert sum(outcome.crossings for outcome in outcomes) >= 20
    assert sum(outcome.foreign for outcome in outcomes) <= 0.1 * sum(outcome.cable for outcome in outcomes)
