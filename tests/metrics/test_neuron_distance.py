"""ESA, DSA and PDS: against the stored pairs, a plain-loop implementation, and cases worked out by hand."""

from __future__ import annotations

import json
import math
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.metrics import length_scores, neuron_distance
from nnunet_neurino.swc import Tree

STORED = {
    "esa": "esa",
    "dsa": "dsa",
    "pds": "pds",
    "esa_truth_to_pred": "esa12",
    "esa_pred_to_truth": "esa21",
    "dsa_truth_to_pred": "dsa12",
    "dsa_pred_to_truth": "dsa21",
    "pds_truth_to_pred": "pds12",
    "pds_pred_to_truth": "pds21",
    "max_distance": "dist_max",
    "n_points_truth": "n_points1",
    "n_points_pred": "n_points2",
}


def test_equals_the_stored_pairs(shared_data: Path) -> None:
    folder = shared_data / "tree_pairs" / "neuron_distance"
    expected = json.loads((folder / "expected.json").read_text())["pairs"]
    assert expected
    for name, values in expected.items():
        scores = neuron_distance(folder / f"{name}_pred.swc", folder / f"{name}_gt.swc")
        for ours, theirs in STORED.items():
            assert getattr(scores, ours) == pytest.approx(values["spec"][theirs], abs=1e-6), (name, ours)


def plain_loops(a: Tree, b: Tree, threshold: float = 2.0) -> tuple[float, float, float, int]:
    """Directed ESA, DSA, PDS and number of samples from ``a`` to ``b``, by the definition and nothing else."""
    distances = []
    for row, parent in enumerate(a.parents):
        if parent < 0:
            continue
        child_xyz, parent_xyz = a.xyz[row], a.xyz[parent]
        n = int(1.5 + math.dist(child_xyz, parent_xyz))
        for i in range(n):
            share = i / (n - 1) if n > 1 else 0.0
            point = [c + share * (p - c) for c, p in zip(child_xyz, parent_xyz, strict=True)]
            distances.append(min(to_segment(point, b.xyz[r], b.xyz[p]) for r, p in enumerate(b.parents) if p >= 0))
    far = [d for d in distances if d >= threshold]
    mean_far = sum(far) / len(far) if far else 0.0
    return sum(distances) / len(distances), mean_far, len(far) / len(distances), len(distances)


def to_segment(point: list[float], start: np.ndarray, end: np.ndarray) -> float:
    length = math.dist(start, end)
    if length == 0:
        return math.dist(point, start)
    along = sum((p - s) * (e - s) for p, s, e in zip(point, start, end, strict=True)) / length**2
    along = min(max(along, 0.0), 1.0)
    return math.dist(point, [s + along * (e - s) for s, e in zip(start, end, strict=True)])


def random_tree(rng: np.random.Generator, n: int, spread: float) -> Tree:
    """Segments of 0 to many units, some of length 0, some lone nodes, several roots."""
    parents = [-1] + [int(rng.integers(-1, i)) if rng.random() < 0.2 else i - 1 for i in range(1, n)]
    xyz = np.cumsum(rng.normal(0, spread, (n, 3)), axis=0)
    for row in np.flatnonzero(rng.random(n) < 0.1):
        if parents[row] >= 0:
            xyz[row] = xyz[parents[row]]
    return Tree.build(xyz, np.array(parents))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("spread", [0.2, 2.0, 30.0])
def test_equals_plain_loops(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    pred, truth = random_tree(rng, 25, spread), random_tree(rng, 18, spread)
    if seed % 2:
        pred = Tree.build(pred.xyz + 200.0, pred.parents)
    scores = neuron_distance(pred, truth)
    forth, back = plain_loops(pred, truth), plain_loops(truth, pred)
    assert scores.esa_pred_to_truth == pytest.approx(forth[0], rel=1e-12, abs=1e-12)
    assert scores.esa_truth_to_pred == pytest.approx(back[0], rel=1e-12, abs=1e-12)
    assert scores.dsa_pred_to_truth == pytest.approx(forth[1], rel=1e-12, abs=1e-12)
    assert scores.pds_truth_to_pred == pytest.approx(back[2], rel=1e-12, abs=1e-12)
    assert (scores.n_points_pred, scores.n_points_truth) == (forth[3], back[3])
    different = [d for _, d, share, _ in (forth, back) if share > 0]
    assert scores.dsa == pytest.approx(sum(different) / len(different) if different else 0.0)
    assert scores.pds == pytest.approx((forth[2] + back[2]) / 2)


def line(y: float, x1: float = 10.0) -> Tree:
    return Tree.build(np.array([[0, y, 0], [x1, y, 0]], dtype=float), np.array([-1, 0]))


def test_threshold_is_inclusive() -> None:
    exact = neuron_distance(line(2.0), line(0.0))
    assert (exact.esa, exact.dsa, exact.pds) == (2.0, 2.0, 1.0)
    below = neuron_distance(line(1.9999), line(0.0))
    assert (below.dsa, below.pds) == (0.0, 0.0)
    # Rounding of rotated coordinates must not decide: the same pair, turned out of the axes.
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turned = [Tree.build(tree.xyz @ turn + 123.4, tree.parents) for tree in (line(2.0), line(0.0))]
    assert neuron_distance(*turned).pds == 1.0


def test_sampling_of_short_and_zero_length_edges() -> None:
    # 0.4 long: the child alone; 0 long: the child alone; 1 long: both ends; 1.5 long: three points.
    xyz = np.array([[0, 0, 0], [0.4, 0, 0], [0.4, 0, 0], [1.4, 0, 0], [2.9, 0, 0]], dtype=float)
    tree = Tree.build(xyz, np.array([-1, 0, 1, 2, 3]))
    assert neuron_distance(tree, tree).n_points_pred == 1 + 1 + 2 + 3


def test_touching_segments_and_lone_nodes_change_nothing() -> None:
    whole = Tree.build(np.array([[0, 0, 0], [5, 0, 0], [9, 0, 0], [5, 7, 0]], dtype=float), np.array([-1, 0, 1, 1]))
    segments = Tree.build(
        np.array([[0, 0, 0], [5, 0, 0], [9, 0, 0], [5, 0, 0], [5, 7, 0], [80, 80, 80]], dtype=float),
        np.array([-1, 0, 1, -1, 3, -1]),
    )
    other = line(1.0)
    assert neuron_distance(segments, other) == neuron_distance(whole, other)
    assert neuron_distance(segments, whole).esa == 0


def test_node_with_unknown_parent_is_a_root(tmp_path: Path) -> None:
    cropped = tmp_path / "cropped.swc"
    cropped.write_text("97389 0 0 0 0 1 4\n97390 0 10 0 0 1 97389\n97400 0 50 50 50 1 12\n97401 0 50 59 50 1 97400\n")
    clean = Tree.build(np.array([[0, 0, 0], [10, 0, 0], [50, 50, 50], [50, 59, 50]], float), np.array([-1, 0, -1, 2]))
    scores = neuron_distance(cropped, clean)
    assert (scores.esa, scores.pds, scores.n_points_pred) == (pytest.approx(0.0, abs=1e-12), 0.0, 21)


@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_tree_without_an_edge_has_no_scores(nodes: int) -> None:
    lone = Tree.build(np.zeros((nodes, 3)), np.full(nodes, -1))
    scores = neuron_distance(lone, line(0.0))
    assert scores.esa is None
    assert scores.dsa is None
    assert scores.pds is None
    assert scores.max_distance is None
    assert scores.reason == f"the prediction has no edge ({nodes} nodes)"
    assert "truth" in str(neuron_distance(line(0.0), lone).reason)


def test_units_are_not_mixed() -> None:
    voxels, micrometres = line(0.0), Tree.build(line(0.0).xyz, line(0.0).parents, unit="micrometre")
    with pytest.raises(NeurinoError, match=r"prediction is in voxels.*truth in micrometres"):
        neuron_distance(voxels, micrometres)
    assert neuron_distance(micrometres, micrometres).esa == 0


def test_nothing_is_nearer_than_the_index_says() -> None:
    """Points far away need many candidates before the nearest segment is proven."""
    rng = np.random.default_rng(3)
    truth = Tree.build(rng.normal(0, 1, (120, 3)) * [20, 1, 1], np.arange(120) - 1)
    pred = Tree.build(truth.xyz[:3] + np.array([0, 300, 0]), np.arange(3) - 1)
    assert neuron_distance(pred, truth).esa_pred_to_truth == pytest.approx(plain_loops(pred, truth)[0], rel=1e-12)


@pytest.mark.parametrize("far", [1e6, 1e9, 1e16])
def test_one_coordinate_far_off_takes_neither_memory_nor_time(far: float) -> None:
    rng = np.random.default_rng(1)
    tree = Tree.build(np.cumsum(rng.normal(0, 1, (2000, 3)), axis=0), np.arange(2000) - 1)
    xyz = tree.xyz.copy()
    xyz[-1, 1] = far
    wrong = Tree.build(xyz, tree.parents)
    tracemalloc.start()
    started = time.process_time()
    scores = neuron_distance(wrong, tree)
    assert time.process_time() - started < 10
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
    # All but a few samples are on the edge that leads there, half of it further off than the middle.
    assert scores.esa_pred_to_truth == pytest.approx(far / 2, rel=0.02)
    assert scores.esa_truth_to_pred < 0.01
    assert scores.n_points_pred == pytest.approx(far, rel=0.02)


def test_samples_that_are_kept_stand_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    xyz = np.cumsum(rng.normal(0, 60, (1500, 3)), axis=0)
    parents = np.arange(1500) - 1
    truth, pred = Tree.build(xyz, parents), Tree.build(xyz + rng.normal(0, 20, xyz.shape), parents)
    every = neuron_distance(pred, truth, 40)
    assert every.n_points_pred > 100_000
    monkeypatch.setattr(sys.modules[neuron_distance.__module__], "_MOST_BETWEEN", 10_000)
    some = neuron_distance(pred, truth, 40)
    assert (some.n_points_pred, some.n_points_truth) == (every.n_points_pred, every.n_points_truth)
    for name, accuracy in (("esa", 0.01), ("dsa", 0.01), ("pds", 0.03)):
        assert getattr(some, name) == pytest.approx(getattr(every, name), rel=accuracy), name


def test_a_tree_in_nanometres_is_its_own_equal() -> None:
    xyz = np.cumsum(np.random.default_rng(2).normal(0, 3000, (3000, 3)), axis=0)
    tree = Tree.build(xyz, np.arange(3000) - 1)
    tracemalloc.start()
    scores = neuron_distance(tree, tree)
    assert (scores.esa, scores.dsa, scores.pds) == (pytest.approx(0, abs=1e-6), 0, 0)
    assert scores.n_points_pred > 10e6
    assert scores.n_points_pred == pytest.approx(tree.length, rel=1e-3)
    assert length_scores(tree, tree, 2000).length_f1 == pytest.approx(1, abs=1e-6)
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()
