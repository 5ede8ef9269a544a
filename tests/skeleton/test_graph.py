"""Graph primitives and voxel neighbours against networkx and against counting one by one."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from nnunet_neurino.skeleton.graph import adjacency, components, depths, search, tops
from nnunet_neurino.skeleton.neighbours import HALF_NEIGHBOURHOOD, neighbour_pairs


def random_graph(seed: int) -> tuple[nx.Graph, np.ndarray]:
    """A sparse graph that falls apart into several pieces, and its pairs."""
    graph = nx.gnm_random_graph(50, 40, seed=seed)
    return graph, np.array(graph.edges)


@pytest.mark.parametrize("seed", range(5))
def test_components_are_those_of_networkx(seed):
    graph, pairs = random_graph(seed)
    labels = components(50, pairs)
    assert {frozenset(np.flatnonzero(labels == label).tolist()) for label in range(labels.max() + 1)} == set(
        map(frozenset, nx.connected_components(graph))
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_search_reaches_everything_by_shortest_ways_from_the_nearest_start(seed):
    graph, pairs = random_graph(seed)
    starts = np.random.default_rng(seed).choice(50, 4, replace=False)
    order, before = search(adjacency(50, pairs), starts)
    shortest = nx.multi_source_dijkstra_path_length(graph, set(starts.tolist()))
    assert sorted(order.tolist()) == sorted(shortest)
    steps = depths(before)
    assert {row: steps[row] for row in order.tolist()} == shortest
    assert (np.diff(steps[order]) >= 0).all()
    assert (before[starts] == -1).all()
    reached = np.setdiff1d(order, starts)
    assert all(graph.has_edge(row, before[row]) for row in reached.tolist())
    assert set(tops(before)[order].tolist()) == set(starts.tolist())


def test_weights_stand_on_both_sides():
    matrix = adjacency(4, np.array([[0, 1], [2, 1]]), [2.5, 4.0])
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 2.5
    expected[1, 2] = expected[2, 1] = 4.0
    np.testing.assert_array_equal(matrix.toarray(), expected)


def test_nothing_has_no_components_and_no_depths():
    none = np.zeros((0, 2), int)
    assert components(0, none).shape == depths(none[:, 0]).shape == tops(none[:, 0]).shape == (0,)
    np.testing.assert_array_equal(components(3, none), [0, 1, 2])


@pytest.mark.parametrize("offset", [0, -7, 1000])
def test_neighbours_are_those_that_differ_by_one_along_no_axis_by_more(offset):
    mask = np.random.default_rng(0).random((6, 7, 8)) > 0.7
    voxels = np.argwhere(mask) + offset
    pairs, steps = neighbour_pairs(voxels)
    apart = np.abs(voxels[:, None] - voxels[None]).max(axis=2)
    touching = {frozenset(pair) for pair in np.argwhere(apart == 1).tolist()}
    assert len(pairs) == len(touching)
    assert set(map(frozenset, pairs.tolist())) == touching
    np.testing.assert_array_equal(voxels[pairs[:, 1]] - voxels[pairs[:, 0]], HALF_NEIGHBOURHOOD[steps])


def test_no_voxel_has_no_neighbours():
    pairs, steps = neighbour_pairs(np.zeros((0, 3), int))
    assert pairs.shape == (0, 2)
    assert steps.shape == (0,)
