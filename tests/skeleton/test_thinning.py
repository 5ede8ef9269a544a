"""Thinning keeps every component, as one connected centreline inside it."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist
from skimage.measure import euler_number
from skimage.morphology import skeletonize

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.skeleton import components, label_components, skeletonise


def _box(shape, size, at=(2, 2, 2)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + s) for a, s in zip(at, size, strict=True))] = True
    return mask


def _noise(seed, smooth, side=48):
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.standard_normal((side,) * 3), smooth) > 0.25 / smooth


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smooth", [0.7, 1.2, 2.0])
def test_every_component_keeps_one_connected_skeleton_inside_it(seed, smooth):
    mask = _noise(seed, smooth)
    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    skeleton = skeletonise(mask)
    assert not (skeleton & ~mask).any()
    pieces = np.unique(np.stack([ndimage.label(skeleton, np.ones((3, 3, 3)))[0][skeleton], labels[skeleton]]), axis=1)
    assert pieces.shape[1] == count
    assert sorted(pieces[1]) == list(range(1, count + 1))


def test_the_noise_above_really_needs_the_rescue():
    lost = 0
    for seed in range(3):
        mask = _noise(seed, 1.2)
        labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
        lost += count - len(np.unique(labels[skeletonize(mask, method="lee") > 0]))
    assert lost > 10


@pytest.mark.parametrize("size", [(2, 2, 2), (4, 4, 4), (8, 8, 8), (1, 1, 1)])
def test_a_cube_keeps_one_voxel(size):
    assert skeletonise(_box((14, 14, 14), size)).sum() >= 1


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("width", [2, 4])
def test_a_bar_of_even_width_keeps_its_length(axis, width):
    size = [width] * 3
    size[axis] = 30
    mask = _box((36, 36, 36), size)
    along = np.flatnonzero(skeletonise(mask).any(axis=tuple(a for a in range(3) if a != axis)))
    assert len(along) >= 30 - width
    assert (np.diff(along) == 1).all()


def test_a_slanted_two_wide_bar_keeps_its_length():
    mask = np.zeros((6, 60, 60), bool)
    for i in range(50):
        mask[2:4, i + 2 : i + 4, i + 2 : i + 4] = True
    assert skeletonize(mask, method="lee").sum() == 0, "scikit-image has mended it: the rescue is no longer needed"
    assert skeletonise(mask).sum() >= 45


def test_empty_full_and_flat_volumes():
    assert not skeletonise(np.zeros((4, 5, 6))).any()
    assert skeletonise(np.ones((6, 6, 6))).any()
    assert skeletonise(np.ones((1, 5, 9))).sum() >= 1
    assert skeletonise(np.zeros((0, 4, 4))).shape == (0, 4, 4)


def test_a_stack_of_channels_is_refused():
    with pytest.raises(NeurinoError, match="z, y, x"):
        skeletonise(np.zeros((1, 4, 4, 4)))


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_components_agree_with_and_without_cc3d(connectivity, monkeypatch):
    mask = np.random.default_rng(0).random((20, 21, 22)) > 0.8
    fast, count = label_components(mask, connectivity)
    monkeypatch.setattr(components, "cc3d", None)
    plain, plain_count = label_components(mask, connectivity)
    assert count == plain_count == len(np.unique(np.stack([fast[mask], plain[mask]]), axis=1).T)
    assert ((fast > 0) == mask).all()
    assert ((plain > 0) == mask).all()


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 5, 1), (1, 1, 9), (1, 3, 3), (1, 65, 65), (25, 3, 61)])
def test_as_many_components_as_fit_into_the_volume_are_counted(shape):
    mask = np.zeros(shape, bool)
    mask[::2, ::2, ::2] = True
    labels, count = label_components(mask)
    assert count == mask.sum() == len(np.unique(labels[mask]))
    np.testing.assert_array_equal(skeletonise(mask), mask)


def _branch_graph(skeleton):
    """Tips, forks and branches of a skeleton, found voxel by voxel, as a multigraph; a fork is a clump of voxels.

    Voxels with more than two neighbours (26) that touch each other are one fork. What is left falls into branches.
    Nodes are sets of voxels, edges have their number of voxels as ``length``.
    """
    voxels = [tuple(voxel) for voxel in np.argwhere(skeleton).tolist()]
    touching = nx.Graph()
    touching.add_nodes_from(voxels)
    for step in itertools.product((-1, 0, 1), repeat=3):
        others = {tuple(np.add(voxel, step).tolist()): voxel for voxel in voxels}
        touching.add_edges_from((others[voxel], voxel) for voxel in voxels if any(step) and voxel in others)
    forks = [voxel for voxel, degree in touching.degree if degree > 2]
    clumps = [frozenset(clump) for clump in nx.connected_components(touching.subgraph(forks))]
    clump_of = {voxel: clump for clump in clumps for voxel in clump}
    graph = nx.MultiGraph()
    graph.add_nodes_from(clumps)
    for branch in nx.connected_components(touching.subgraph(set(voxels) - set(forks))):
        contacts = {(voxel, clump_of[n]) for voxel in branch for n in touching[voxel] if n in clump_of}
        ends = [clump for _, clump in contacts]
        ends += [frozenset([voxel]) for voxel in branch if touching.degree[voxel] == 1]
        if len(ends) < 2:  # a lone voxel, one that touches a single fork, or a ring, which begins and ends anywhere
            ends.append(frozenset([next(iter(branch))]))
        if len(branch) == 1 and len(ends) < 2:
            graph.add_node(ends[0])
        else:
            graph.add_edge(ends[0], ends[-1], length=len(branch))
    return graph


def _loops(graph):
    """Independent loops: those of the graph, and those between the voxels of a single fork."""
    within = 0
    for fork in graph:
        box = np.zeros(np.ptp(list(fork), axis=0) + 1, bool)
        box[tuple((np.array(list(fork)) - np.min(list(fork), axis=0)).T)] = True
        within += 1 - euler_number(np.pad(box, 1), connectivity=3)
    return graph.number_of_edges() - graph.number_of_nodes() + nx.number_connected_components(graph) + within


def _tips(graph):
    return [next(iter(node)) for node, degree in graph.degree if degree == 1]


def _tube(shape, points, radius):
    """A thick line through ``points`` (z, y, x)."""
    line = np.ones(shape, bool)
    for start, end in itertools.pairwise(np.array(points, float)):
        count = 2 * int(np.abs(end - start).max()) + 1
        line[tuple(np.rint(np.linspace(start, end, count)).astype(int).T)] = False
    return ndimage.distance_transform_edt(line) <= radius


SHAPE, MIDDLE, ENDS = (15, 44, 44), (7, 22, 22), [(7, 22, 5), (5, 6, 36), (9, 38, 36)]


def _fork(radius):
    return np.any([_tube(SHAPE, (MIDDLE, end), radius) for end in ENDS], axis=0)


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("radius", [0, 1, 2, 3.5])
def test_a_fork_keeps_its_three_branches(radius, axes):
    mask = _fork(radius)
    graph = _branch_graph(skeletonise(mask.transpose(axes)))
    assert sorted(degree for _, degree in graph.degree) == [1, 1, 1, 3]
    (fork,) = (node for node, degree in graph.degree if degree == 3)
    np.testing.assert_allclose(np.mean(list(fork), axis=0), np.array(MIDDLE)[list(axes)], atol=1.5 + radius / 2)
    far = cdist(_tips(graph), np.array(ENDS)[:, list(axes)])
    assert (far.min(axis=0) <= radius + 1.5).all()
    lengths = sorted(length for *_, length in graph.edges.data("length"))
    np.testing.assert_allclose(lengths, [14, 16, 17], atol=3 + radius)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_a_ring_stays_one_loop_without_branches(radius, axis):
    angles = np.linspace(0, 2 * np.pi, 200)
    points = np.stack([np.full(200, 8), 24 + 15 * np.sin(angles), 24 + 15 * np.cos(angles)], axis=1)
    skeleton = skeletonise(np.moveaxis(_tube((17, 48, 48), points, radius), 0, axis))
    graph = _branch_graph(skeleton)
    assert (nx.number_connected_components(graph), _loops(graph), _tips(graph)) == (1, 1, [])
    flat = np.delete(np.argwhere(skeleton), axis, axis=1)
    np.testing.assert_allclose(np.linalg.norm(flat - 24, axis=1), 15, atol=1.5)


@pytest.mark.parametrize("seed", range(4))
def test_a_rough_fork_keeps_its_three_branches(seed):
    mask = _fork(2) | (_fork(3) & (np.random.default_rng(seed).random(SHAPE) < 0.4))
    skeleton = skeletonise(ndimage.binary_fill_holes(mask))
    assert nx.is_connected(_branch_graph(skeleton))
    assert (cdist(np.argwhere(skeleton), [MIDDLE, *ENDS]).min(axis=0) <= 4).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smooth", [1.2, 2.0])
def test_noise_keeps_its_loops(seed, smooth):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((32,) * 3), smooth)
    mask = ndimage.binary_fill_holes(noise > 0.1 / smooth)  # around a cavity thinning leaves a shell
    graph = _branch_graph(skeletonise(mask))
    count = ndimage.label(mask, np.ones((3, 3, 3)))[1]
    assert nx.number_connected_components(graph) == count
    assert _loops(graph) == count - euler_number(mask, connectivity=3) > 0
