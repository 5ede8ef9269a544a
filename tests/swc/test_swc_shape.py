"""Merging, resampling, pruning and cropping keep what they promise to keep."""

from __future__ import annotations

import numpy as np
import pytest
from swc_references import random_tree

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import Tree, crop, merge_touching, prune, resample, sections, take


def edge_set(tree: Tree) -> list[tuple]:
    """Undirected edges as sorted pairs of positions, sorted."""
    ends = [sorted((tuple(tree.xyz[a]), tuple(tree.xyz[b]))) for a, b in tree.edges()]
    return sorted(map(tuple, ends))


def in_segments(tree: Tree, rng: np.random.Generator) -> Tree:
    """The tree as Vaa3D writes it: every section a piece of its own, in any order, half of them upside down."""
    xyz, parents, radii = [], [], []
    stretches = sections(tree)
    for k in rng.permutation(len(stretches)):
        rows = stretches[k][:: rng.choice([-1, 1])]
        parents += [-1, *range(len(xyz), len(xyz) + len(rows) - 1)]
        xyz += tree.xyz[rows].tolist()
        radii += tree.radii[rows].tolist()
    return Tree.build(xyz, parents, radii)


def test_merging_undoes_cutting_into_segments() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        tree = random_tree(rng, (40, 50, 60), int(rng.integers(2, 40)))
        tree = take(tree, np.arange(len(tree)), xyz=rng.normal(size=(len(tree), 3)))
        cut = in_segments(tree, rng)
        assert cut.n_pieces == len(sections(tree))
        merged = merge_touching(cut)
        assert merged.n_pieces == 1
        assert len(merged) == len(tree)
        assert edge_set(merged) == edge_set(tree)
        assert (merged.parents < np.arange(len(merged))).all()
        jittered = take(cut, np.arange(len(cut)), xyz=cut.xyz + rng.uniform(-1e-6, 1e-6, cut.xyz.shape))
        assert merge_touching(jittered).n_pieces == cut.n_pieces
        assert merge_touching(jittered, tolerance=1e-5).n_pieces == 1


def test_merging_closes_no_circle_and_loses_no_edge() -> None:
    # A ring of three arcs, and a branch that starts in the middle of one of them.
    corners = [[0, 0, 0], [4, 0, 0], [0, 4, 0]]
    xyz, parents = [], []
    for k in range(3):
        a, b = np.array(corners[k]), np.array(corners[(k + 1) % 3])
        parents += [-1, len(xyz), len(xyz) + 1]
        xyz += [a, (a + b) / 2, b]
    parents += [-1, len(xyz)]
    xyz += [[2, 0, 0], [2, 0, 9]]
    ring = Tree.build(np.array(xyz, dtype=float), parents)
    merged = merge_touching(ring)
    assert (ring.n_pieces, merged.n_pieces) == (4, 1)
    assert edge_set(merged) == edge_set(ring)
    assert len(merged) == len(ring) - 3
    assert merge_touching(merged) == merged


def test_merging_within_a_tolerance_moves_nobody_farther() -> None:
    # Nodes 0.4 apart in a row: each piece touches the next, within a piece nodes are nearer than the tolerance.
    dense = Tree.build([[0.4 * k, 0, 0] for k in range(10)] + [[4, 0.3, 0], [4, 5, 0]], [*range(-1, 9), -1, 10])
    merged = merge_touching(dense, tolerance=0.6)
    assert merged.n_pieces == 1
    assert len(merged) == len(dense) - 1
    assert np.abs(merged.length - dense.length) <= 0.6
    assert merge_touching(dense, tolerance=0.4).n_pieces == 2  # the nearest nodes are 0.5 apart


def test_merging_prefers_a_soma_as_root_and_leaves_apart_what_is_apart() -> None:
    tree = Tree.build(
        [[0, 0, 0], [5, 0, 0], [5, 0, 0], [5, 9, 0], [50, 0, 0], [60, 0, 0]],
        [-1, 0, -1, 2, -1, 4],
        types=[3, 3, 1, 1, 3, 3],
    )
    merged = merge_touching(tree)
    assert merged.n_pieces == 2
    # The spot (5, 0, 0) keeps the node of the stem; the piece hangs from the soma root that lay on it.
    assert sorted(merged.xyz[merged.roots].tolist()) == [[5, 0, 0], [50, 0, 0]]
    assert merged.findings[-1].mended == "joined to 2"


def test_resampling() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        tree = random_tree(rng, (40, 50, 60), int(rng.integers(1, 30)))
        step = float(rng.uniform(0.5, 9))
        fine = resample(tree, step)
        assert fine.n_pieces == tree.n_pieces
        assert (fine.parents < np.arange(len(fine))).all()
        assert fine.edge_lengths().max(initial=0) <= step * (1 + 1e-9)
        assert fine.length <= tree.length * (1 + 1e-12)
        ends = (tree.parents < 0) | (tree.n_children() != 1)
        kept = {tuple(p) for p in fine.xyz}
        assert {tuple(p) for p in tree.xyz[ends]} <= kept
        assert len(sections(fine)) == len(sections(tree))
        assert fine.radii.min() >= tree.radii.min() - 1e-12
        assert fine.radii.max() <= tree.radii.max() + 1e-12


def test_resampling_a_line_is_even_with_types_and_radii_between() -> None:
    line = Tree.build([[0, 0, 0], [1, 0, 0], [10, 0, 0]], [-1, 0, 1], radii=[1, 2, 11], types=[1, 2, 3])
    even = resample(line, 2.5)
    assert even.xyz[:, 0].tolist() == [0, 2.5, 5, 7.5, 10]
    assert even.radii.tolist() == [1, 3.5, 6, 8.5, 11]
    assert even.types.tolist() == [1, 3, 3, 3, 3]
    for step in (0, -1, float("nan"), 1e-9):
        with pytest.raises(NeurinoError):
            resample(line, step)


def test_pruning_by_hand() -> None:
    #  0 - 1 - 2 - 3 (stem), 1 - 4 (short), 2 - 5 - 6 (long enough), 3 - 7 and 3 - 8: both short, the longer stays
    xyz = [[0, 0, 0], [10, 0, 0], [20, 0, 0], [30, 0, 0], [10, 2, 0], [20, 2, 0], [20, 6, 0], [31, 0, 0], [30, 3, 0]]
    tree = Tree.build(xyz, [-1, 0, 1, 2, 1, 2, 5, 3, 3])
    pruned = prune(tree, 5)
    assert pruned.ids.tolist() == [1, 2, 3, 4, 6, 7, 9]
    assert prune(tree, 0) == tree
    assert prune(tree, 1000).xyz[:, 0].max() == 30
    assert prune(prune(tree, 5), 5) == pruned


def test_pruning_keeps_every_piece_and_its_longest_path() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        tree = random_tree(rng, (40, 50, 60), int(rng.integers(1, 40)))
        pruned = prune(tree, 30)
        assert pruned.n_pieces == tree.n_pieces
        assert set(map(tuple, edge_set(pruned))) <= set(map(tuple, edge_set(tree)))
        assert longest_path(pruned) == pytest.approx(longest_path(tree))


def longest_path(tree: Tree) -> float:
    down = np.zeros(len(tree))
    for row in range(len(tree)):
        if tree.parents[row] >= 0:
            down[row] = down[tree.parents[row]] + np.linalg.norm(tree.xyz[row] - tree.xyz[tree.parents[row]])
    return float(down.max())


def test_cropping_cuts_exactly_at_the_border() -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        tree = random_tree(rng, (20, 20, 20), int(rng.integers(1, 30)))
        low = rng.uniform(0, 9, 3)
        high = low + rng.uniform(1, 10, 3)
        part = crop(tree, low, high)
        assert ((part.xyz >= low) & (part.xyz <= high)).all()
        old = {tuple(p) for p in tree.xyz}
        for point in part.xyz:
            assert tuple(point) in old or (point == low).any() or (point == high).any()
        inside = ((tree.xyz >= low) & (tree.xyz <= high)).all(axis=1)
        assert {tuple(p) for p in tree.xyz[inside]} <= {tuple(p) for p in part.xyz}
        assert part.length == pytest.approx(length_inside(tree, low, high), abs=0.02 * len(tree))


def length_inside(tree: Tree, low: np.ndarray, high: np.ndarray) -> float:
    """Length within the box by dense sampling."""
    t = (np.arange(2000) + 0.5) / 2000
    total = 0.0
    for a, b in tree.edges():
        points = tree.xyz[a] + t[:, None] * (tree.xyz[b] - tree.xyz[a])
        share = ((points >= low) & (points <= high)).all(axis=1).mean()
        total += share * np.linalg.norm(tree.xyz[b] - tree.xyz[a])
    return total


def test_cropping_by_hand() -> None:
    tree = Tree.build(
        [[-4, 5, 5], [4, 5, 5], [4, 15, 5], [14, 15, 5]], [-1, 0, 1, 2], radii=[1, 3, 5, 5], types=[1, 2, 3, 4]
    )
    part = crop(tree, (0, 0, 0), (10, 10, 10))
    assert part.n_pieces == 1
    order = np.argsort(part.xyz[:, 0] + part.xyz[:, 1])
    assert part.xyz[order].tolist() == [[0, 5, 5], [4, 5, 5], [4, 10, 5]]
    assert part.radii[order].tolist() == [2, 3, 4]
    assert part.types[order].tolist() == [2, 2, 3]
    assert part.parents[order[0]] == -1
    through = crop(Tree.build([[-5, 5, 5], [15, 5, 5]], [-1, 0]), (0, 0, 0), (10, 10, 10))
    assert sorted(through.xyz[:, 0].tolist()) == [0, 10]
    assert through.n_pieces == 1
    touching = crop(Tree.build([[-5, 5, 5], [0, 5, 5]], [-1, 0]), (0, 0, 0), (10, 10, 10))
    assert touching.xyz.tolist() == [[0, 5, 5]]
    assert len(crop(tree, (100, 100, 100), (110, 110, 110))) == 0
    with pytest.raises(NeurinoError):
        crop(tree, (5, 5, 5), (0, 0, 0))
