"""The skeleton graph against drawn shapes, Betti numbers and networkx."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from scipy import ndimage

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.skeleton import graph_of_skeleton, skeleton_graph


def _cycles(graph):
    return graph.n_edges - graph.n_nodes + graph.n_components


def _check_consistent(graph):
    """What every graph must satisfy: each path is a walk of touching voxels between its nodes, covering all voxels."""
    covered = np.zeros(len(graph.voxels), int)
    for edge, (start, end) in enumerate(graph.edges):
        rows = graph.path(edge)
        assert (np.abs(np.diff(graph.voxels[rows], axis=0)).max(1) == 1).all()
        assert graph.node[rows[0]] == start
        assert graph.node[rows[-1]] == end
        assert (graph.node[rows[1:-1]] == -1).all()
        covered[rows[1:-1]] += 1
    assert (covered[graph.node < 0] == 1).all()
    assert (covered[graph.node >= 0] == 0).all()
    assert graph.path_starts[-1] == len(graph.path_voxels)
    assert set(range(graph.n_nodes)) == set(graph.node[graph.node >= 0])


def _line(shape, *points):
    mask = np.zeros(shape, bool)
    for a, b in pairwise(points):
        n = max(abs(q - p) for p, q in zip(a, b, strict=True))
        for t in np.linspace(0, 1, n + 1):
            mask[tuple(round(p + t * (q - p)) for p, q in zip(a, b, strict=True))] = True
    return mask


@pytest.mark.parametrize(
    ("end", "spacing", "length"),
    [((5, 5, 25), (1, 1, 1), 20.0), ((5, 5, 25), (3, 2, 0.5), 10.0), ((25, 25, 25), (2, 1, 2), 60.0)],
)
def test_a_straight_line_is_one_edge_of_its_length(end, spacing, length):
    graph = skeleton_graph(_line((30, 30, 30), (5, 5, 5), end), spacing)
    assert (graph.n_nodes, graph.n_edges, graph.n_components) == (2, 1, 1)
    assert graph.edge_lengths == pytest.approx([length])
    assert graph.length == pytest.approx(length)
    np.testing.assert_array_equal(np.sort(graph.nodes[:, 2]), [5, 25])


def test_a_fork_has_three_ends_and_one_branching():
    mask = _line((9, 40, 40), (4, 20, 2), (4, 20, 20), (4, 5, 35)) | _line((9, 40, 40), (4, 20, 20), (4, 36, 36))
    graph = graph_of_skeleton(mask)
    assert sorted(graph.node_degree) == [1, 1, 1, 3]
    assert graph.n_edges == 3
    assert np.linalg.norm(graph.nodes[graph.node_degree == 3] - [4, 20, 20], axis=1) < 1.1
    expected = 18 + (15 * np.sqrt(2)) + (16 * np.sqrt(2))
    assert graph.length == pytest.approx(expected, abs=1.0)
    _check_consistent(graph)


def test_corners_and_crossings_are_not_branchings():
    corner = graph_of_skeleton(_line((3, 20, 20), (1, 2, 2), (1, 2, 15), (1, 15, 15)))
    assert (corner.n_nodes, corner.n_edges) == (2, 1)
    cross = graph_of_skeleton(_line((3, 21, 21), (1, 10, 0), (1, 10, 20)) | _line((3, 21, 21), (1, 0, 10), (1, 20, 10)))
    assert sorted(cross.node_degree) == [1, 1, 1, 1, 4]


def test_a_thick_fork_gives_the_same_graph():
    mask = np.zeros((20, 40, 40), bool)
    mask[8:11, 10:13, 2:38] = True
    mask[8:11, 10:35, 18:21] = True
    graph = skeleton_graph(mask)
    assert sorted(graph.node_degree) == [1, 1, 1, 3]
    assert graph.length == pytest.approx(36 + 23, abs=6)


def test_ring_lone_voxel_pair_and_nothing():
    shape = (5, 30, 30)
    ring = graph_of_skeleton(_line(shape, (2, 5, 5), (2, 5, 20), (2, 20, 20), (2, 20, 5), (2, 5, 5)))
    assert (ring.n_nodes, ring.n_edges, _cycles(ring)) == (1, 1, 1)
    assert ring.length == pytest.approx(60.0)
    _check_consistent(ring)
    single = graph_of_skeleton(_line(shape, (2, 5, 5), (2, 5, 5)))
    assert (single.n_nodes, single.n_edges, single.n_components, single.length) == (1, 0, 1, 0.0)
    pair = graph_of_skeleton(_line(shape, (2, 5, 5), (2, 6, 6)), (1, 3, 4))
    assert (pair.n_nodes, pair.n_edges, pair.length) == (2, 1, 5.0)
    empty = graph_of_skeleton(np.zeros(shape))
    assert (empty.n_nodes, empty.n_edges, empty.n_components, empty.length) == (0, 0, 0, 0.0)
    assert empty.nodes.shape == (0, 3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("smooth", [1.0, 2.0])
def test_noise_keeps_components_and_paths_consistent(seed, smooth):
    rng = np.random.default_rng(seed)
    mask = ndimage.gaussian_filter(rng.standard_normal((32, 33, 34)), smooth) > 0.2 / smooth
    graph = skeleton_graph(mask)
    _check_consistent(graph)
    assert graph.n_components == ndimage.label(mask, np.ones((3, 3, 3)))[1]
    assert len(np.unique(graph.component)) == graph.n_components
    for edge, (start, end) in enumerate(graph.edges):
        assert len({graph.component[graph.path(edge)[0]], *graph.node_component[[start, end]]}) == 1


@pytest.mark.parametrize("seed", range(3))
def test_lengths_and_connections_agree_with_networkx(seed):
    """Drawn random trees: the same tree distance between the ends as Dijkstra over all touching voxels."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 40, 40), bool)
    points = [tuple(rng.integers(4, 36, 3))]
    for _ in range(6):
        points.append(tuple(rng.integers(4, 36, 3)))
        mask |= _line(mask.shape, points[rng.integers(len(points) - 1)], points[-1])
    mask = ndimage.binary_dilation(mask, ndimage.generate_binary_structure(3, 1))
    spacing = (2.0, 1.0, 1.5)
    graph = skeleton_graph(mask, spacing)
    _check_consistent(graph)
    voxels = nx.Graph()
    rows = {tuple(v): i for i, v in enumerate(graph.voxels)}
    for v, i in rows.items():
        voxels.add_node(i)
        for step in np.ndindex(3, 3, 3):
            other = rows.get(tuple(np.array(v) + step - 1))
            if other is not None and other != i:
                voxels.add_edge(i, other, weight=float(np.linalg.norm((np.array(step) - 1) * spacing)))
    coarse = nx.MultiGraph()
    coarse.add_nodes_from(range(graph.n_nodes))
    for (a, b), length in zip(graph.edges, graph.edge_lengths, strict=True):
        coarse.add_edge(int(a), int(b), weight=float(length))
    ends = np.flatnonzero(graph.node_degree == 1)
    by_voxels = nx.single_source_dijkstra_path_length(voxels, int(np.flatnonzero(graph.node == ends[0])[0]))
    by_edges = nx.single_source_dijkstra_path_length(coarse, int(ends[0]))
    for end in ends[1:]:
        row = int(np.flatnonzero(graph.node == end)[0])
        assert by_edges[int(end)] == pytest.approx(by_voxels[row], rel=0.15, abs=3)


@pytest.mark.parametrize("turn", [1, -1])
def test_a_fork_whose_branching_is_the_first_or_the_last_voxel(turn):
    mask = np.zeros((3, 3, 3), bool)
    mask[0, 0, 0] = mask[0, 0, 2] = mask[0, 2, 1] = mask[1, 1, 1] = True
    graph = graph_of_skeleton(mask[::turn])
    assert sorted(graph.node_degree) == [1, 1, 1, 3]
    bend = graph_of_skeleton(_line((3, 3, 5), (0, 1, 1), (1, 1, 2), (0, 1, 3))[::turn])
    assert (bend.n_nodes, bend.n_edges, bend.length) == (2, 1, pytest.approx(2 * np.sqrt(2)))
    _check_consistent(bend)


def test_the_mask_comes_back():
    mask = _line((9, 9, 30), (4, 4, 2), (4, 4, 27))
    np.testing.assert_array_equal(graph_of_skeleton(mask).to_mask(), mask)


@pytest.mark.parametrize("spacing", [(1, 1), (0, 1, 1), (1, 1, float("nan"))])
def test_a_wrong_spacing_is_refused(spacing):
    with pytest.raises(NeurinoError, match="voxel sizes"):
        skeleton_graph(np.ones((3, 3, 3)), spacing)
