"""Length, counts, splits, merges and run length on cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_neurino.metrics import connectivity_scores, length_scores, tree_connectivity_scores, tree_counts
from nnunet_neurino.swc import Tree
from nnunet_neurino.swc.tree import join_trees


def line(x0: float, x1: float, y: float = 5.0, unit: str = "voxel") -> Tree:
    return Tree.build(np.array([[x0, y, 5], [x1, y, 5]], float), np.array([-1, 0]), unit=unit)  # type: ignore[arg-type]


def test_length_shares_are_those_of_the_cable() -> None:
    scores = length_scores(line(0, 60), line(20, 100), tolerance=2.0)
    assert scores.length_precision == pytest.approx(42 / 60)
    assert scores.length_recall == pytest.approx(42 / 80)
    assert scores.length_f1 == pytest.approx(2 * 0.7 * 0.525 / 1.225)


def test_density_of_nodes_does_not_matter() -> None:
    xyz = np.zeros((601, 3))
    xyz[:, 0], xyz[:, 1:] = np.linspace(0, 60, 601), 5
    dense = Tree.build(xyz, np.arange(601) - 1)
    assert length_scores(dense, line(20, 100)).length_f1 == pytest.approx(
        length_scores(line(0, 60), line(20, 100)).length_f1, abs=1e-3
    )


def test_tolerance_is_inclusive() -> None:
    assert length_scores(line(0, 60, y=7.0), line(0, 60)).length_f1 == 1.0
    assert length_scores(line(0, 60, y=7.01), line(0, 60)).length_f1 == 0.0


def test_trees_without_cable() -> None:
    lone, points = Tree.build(np.zeros((1, 3)), np.array([-1])), Tree.build(np.zeros((2, 3)), np.array([-1, 0]))
    for empty in (lone, points):
        scores = length_scores(empty, line(0, 9))
        assert (scores.length_precision, scores.length_recall, scores.length_f1) == (None, 0.0, 0.0)
        assert scores.reason == "the prediction has no cable"
    assert length_scores(lone, lone).length_f1 is None


def test_counts() -> None:
    #  0-1-2-3, 2-4, and a lone node 5: one tree, three branches (0..2, 2..3, 2..4), two tips
    xyz = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 0, 0], [2, 4, 0], [9, 9, 9]], float)
    counts = tree_counts(Tree.build(xyz, np.array([-1, 0, 1, 2, 2, -1])))
    assert (counts.trees, counts.branches, counts.tips, counts.length) == (1, 3, 2, 9.0)
    assert tree_counts(Tree.build(np.empty((0, 3)), np.empty(0, int))).trees == 0


@pytest.fixture
def two_fibres() -> tuple[np.ndarray, list[Tree]]:
    """Two fibres of 40 voxels, ten apart, and their mask."""
    mask = np.zeros((11, 21, 50), bool)
    trees = [line(5, 45, y=5), line(5, 45, y=15)]
    mask[4:7, 4:7, 4:47] = mask[4:7, 14:17, 4:47] = True
    return mask, trees


def test_perfect_segmentation(two_fibres: tuple[np.ndarray, list[Tree]]) -> None:
    mask, trees = two_fibres
    scores = connectivity_scores(mask, trees)
    assert (scores.splits, scores.merges, scores.omitted) == (0, 0, 0.0)
    assert scores.erl == pytest.approx(40.0)
    assert scores.nerl == pytest.approx(1.0)


def test_a_gap_splits(two_fibres: tuple[np.ndarray, list[Tree]]) -> None:
    mask, trees = two_fibres
    mask[4:7, 4:7, 24:27] = False  # nodes 24, 25, 26 of the first fibre are lost: edges 23-24 to 26-27
    scores = connectivity_scores(mask, trees)
    assert (scores.splits, scores.merges) == (1, 0)
    assert scores.omitted == pytest.approx(4 / 80)
    assert scores.erl == pytest.approx((18**2 + 18**2 + 40**2) / 80)


def test_a_bridge_merges(two_fibres: tuple[np.ndarray, list[Tree]]) -> None:
    mask, trees = two_fibres
    mask[5, 5:16, 25] = True
    scores = connectivity_scores(mask, trees)
    assert (scores.splits, scores.merges, scores.omitted) == (0, 1, 0.0)
    assert scores.erl == 0.0


def test_labels_of_instances_are_taken_as_they_are(two_fibres: tuple[np.ndarray, list[Tree]]) -> None:
    mask, trees = two_fibres
    labels = mask.astype(int)
    labels[:, 10:] *= 2
    labels[5, 5:10, 25] = 1
    labels[5, 10:16, 25] = 2  # touching, but told apart by their labels
    assert connectivity_scores(labels, trees).merges == 0


def test_truth_outside_the_image_is_undefined() -> None:
    scores = connectivity_scores(np.zeros((4, 4, 4), bool), line(100, 120))
    assert scores.erl is None
    assert scores.reason == "the truth has no cable inside the image"


def test_pieces_of_one_tree_are_neurons(two_fibres: tuple[np.ndarray, list[Tree]]) -> None:
    mask, trees = two_fibres
    joined = Tree.build(np.concatenate([t.xyz for t in trees]), np.array([-1, 0, -1, 2]))
    mask[5, 5:16, 25] = True
    assert connectivity_scores(mask, joined).merges == 1


def fibres(*spans: tuple[float, float, float]) -> Tree:
    """Straight fibres along x: (from, to, y)."""
    return join_trees([line(x0, x1, y=y) for x0, x1, y in spans])


def test_a_tree_is_perfect_against_itself() -> None:
    truth = fibres((5, 45, 5), (5, 45, 15))
    scores = tree_connectivity_scores(truth, truth)
    assert (scores.splits, scores.merges, scores.omitted, scores.nerl) == (0, 0, 0.0, 1.0)
    assert scores.erl == pytest.approx(40.0)


def test_a_break_splits_and_a_join_merges_trees() -> None:
    truth = fibres((5, 45, 5), (5, 45, 15))
    broken = tree_connectivity_scores(fibres((5, 24, 5), (26, 45, 5), (5, 45, 15)), truth)
    assert (broken.splits, broken.merges, broken.omitted) == (1, 0, 0.0)
    assert broken.erl == pytest.approx((22.5**2 + 17.5**2 + 40**2) / 80, rel=0.1)  # the tips reach 2 voxels further
    xyz = np.array([[5, 5, 5], [25, 5, 5], [45, 5, 5], [25, 15, 5], [5, 15, 5], [45, 15, 5]], float)
    joined = tree_connectivity_scores(Tree.build(xyz, np.array([-1, 0, 1, 1, 3, 3])), truth)
    assert (joined.splits, joined.merges, joined.erl) == (0, 1, 0.0)


def test_what_is_missed_is_omitted_and_crossing_neurons_are_not_merged() -> None:
    truth = join_trees([line(0, 60, y=20), Tree.build(np.array([[30, 0, 5], [30, 60, 5]], float), np.array([-1, 0]))])
    assert tree_connectivity_scores(truth, truth).merges == 0
    missed = tree_connectivity_scores(line(0, 60, y=20), truth)
    assert missed.merges == 0
    assert missed.omitted == pytest.approx(56 / 120, abs=0.02)  # 2 voxels on both sides are near the other fibre
    nothing = tree_connectivity_scores(Tree.build(np.empty((0, 3)), np.empty(0, int)), truth)
    assert (nothing.erl, nothing.omitted) == (0.0, 1.0)


def test_run_length_of_trees_does_not_depend_on_the_unit_or_the_nodes() -> None:
    truth, pred = fibres((5, 45, 5), (5, 45, 15)), fibres((5, 30, 5), (34, 45, 5), (5, 40, 15))
    voxels = tree_connectivity_scores(pred, truth)
    nanometres = [replace(tree, xyz=tree.xyz * 300.0, radii=tree.radii * 300.0) for tree in (pred, truth)]
    scaled = tree_connectivity_scores(*nanometres, tolerance=600.0)
    assert scaled.nerl == pytest.approx(voxels.nerl)
    assert scaled.erl == pytest.approx(300 * voxels.erl)
