"""Cross-sections: one a step on drawn tubes, a forest, and the same in all 48 orientations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from nnunet_neurino.skeleton.sections import section_graph


def _tube(points, radius, shape=(30, 31, 32)):
    voxels = np.indices(shape).reshape(3, -1).T.astype(float)
    nearest = np.full(len(voxels), np.inf)
    for a, b in itertools.pairwise(np.array(points, float)):
        along = np.clip((voxels - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(voxels - a - along[:, None] * (b - a), axis=1))
    return (nearest <= radius).reshape(shape)


def _noise(seed):
    return ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((16, 17, 18)), 1.2) > 0.2


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5, 2.0])
def test_a_straight_tube_has_one_section_a_voxel_of_length(radius):
    graph = section_graph(_tube([(15, 15, 4), (15, 15, 26)], radius))
    assert abs(graph.n_sections - 23) <= 2 * int(radius) + 1
    assert (graph.parent < 0).sum() == 1
    assert (graph.n_children == 0).sum() == 2
    assert graph.n_edges == 3  # the root's own and the two arms


def test_a_fork_has_three_ends():
    mask = _tube([(15, 15, 4), (15, 15, 16), (15, 26, 28)], 1.2) | _tube([(15, 15, 16), (15, 4, 28)], 1.2)
    graph = section_graph(mask)
    assert (graph.n_children == 0).sum() == 3


def test_the_root_is_in_the_soma():
    from_centre = np.linalg.norm(np.moveaxis(np.indices((30, 31, 32)), 0, -1) - [15, 15, 6], axis=-1)
    mask = _tube([(15, 15, 6), (15, 15, 30)], 1.2) | (from_centre < 4.5)
    graph = section_graph(mask)
    roots = graph.voxels[graph.parent[graph.section] < 0]
    assert (np.abs(roots.mean(0) - [15, 15, 6]) <= 2).all()


def _ring():
    return _tube([(7, 3, 3), (7, 3, 11), (7, 11, 11), (7, 11, 3), (7, 3, 3)], 0.6, (14, 15, 15))


def _thin_fork():
    """Its root is either of two voxels that do not touch."""
    return _tube([(7, 14, 2), (7, 14, 12), (7, 6, 20)], 0.5, (14, 29, 24)) | _tube(
        [(7, 14, 12), (7, 22, 20)], 0.5, (14, 29, 24)
    )


@pytest.mark.parametrize("mask", [_noise(0), _noise(1), _tube([(4, 4, 4), (20, 25, 28), (5, 26, 28)], 1.5), _ring()])
def test_it_is_a_forest_over_the_mask(mask):
    graph = section_graph(mask)
    np.testing.assert_array_equal(graph.voxels, np.argwhere(mask))
    assert set(graph.section) == set(range(graph.n_sections))
    assert (graph.parent < np.arange(graph.n_sections)).all()
    child = np.flatnonzero(graph.parent >= 0)
    assert (graph.level[child] == graph.level[graph.parent[child]] + 1).all()
    assert (graph.level[graph.parent < 0] == 0).all()
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    of_section = [{labels[tuple(v)] for v in graph.voxels[graph.section == s]} for s in range(graph.n_sections)]
    assert all(len(s) == 1 for s in of_section)
    assert set().union(*of_section) == set(range(1, count + 1))
    root = np.array([min(s) for s in of_section])
    np.testing.assert_array_equal(root[child], root[graph.parent[child]])
    parents = np.concatenate([np.stack([child, graph.parent[child]], 1), graph.also])
    assert len(np.unique(parents, axis=0)) == len(parents)
    assert (graph.level[parents[:, 0]] == graph.level[parents[:, 1]] + 1).all()
    np.testing.assert_array_equal(np.bincount(parents[:, 1], minlength=graph.n_sections), graph.n_children)
    for edge in range(graph.n_edges):
        run = np.flatnonzero(graph.edge == edge)
        assert (graph.n_children[run[:-1]] == 1).all()
        np.testing.assert_array_equal(graph.parent[run[1:]], run[:-1])


@pytest.mark.parametrize("mask", [_noise(2), _tube([(4, 4, 4), (20, 25, 28), (5, 26, 28)], 1.5), _ring(), _thin_fork()])
def test_no_orientation_changes_it(mask):
    def maps(mask):
        graph = section_graph(mask)
        volumes = np.full((4, *mask.shape), -1.0)
        sizes = np.bincount(graph.section)
        for volume, values in zip(
            volumes,
            (graph.level[graph.section], sizes[graph.section], graph.n_children[graph.section], graph.core),
            strict=True,
        ):
            volume[tuple(graph.voxels.T)] = values
        return volumes, graph.n_edges

    expected, n_edges = maps(mask)
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            flips = tuple(slice(None, None, s) for s in signs)
            got, got_edges = maps(np.ascontiguousarray(mask.transpose(order)[flips]))
            turned = expected.transpose(0, *(a + 1 for a in order))[(slice(None), *flips)]
            np.testing.assert_array_equal(got, turned)
            assert got_edges == n_edges


def test_nothing_one_voxel_and_everything():
    empty = section_graph(np.zeros((3, 4, 5)))
    assert (empty.n_sections, empty.n_edges) == (0, 0)
    single = np.zeros((3, 4, 5))
    single[1, 1, 1] = 1
    assert section_graph(single).n_sections == 1
    full = section_graph(np.ones((9, 9, 9)))
    assert full.n_sections == 5
    np.testing.assert_array_equal(full.parent, [-1, 0, 1, 2, 3])
