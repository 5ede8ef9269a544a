"""How much of a tree's cable is right: length precision, recall and F1 at a tolerance, and plain counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_neurino.metrics.scores import harmonic_mean
from nnunet_neurino.metrics.segments import SegmentIndex, cut, tree_segments
from nnunet_neurino.swc import Tree

_STEP = 0.5  # pieces of cable are judged by their middle; their length in units of the tree
_MOST_PIECES = 200_000


@dataclass(frozen=True)
class LengthScores:
    """Length scores; ``None`` where undefined, explained in ``reason``."""

    length_precision: float | None  # share of the predicted cable near the truth; undefined without cable
    length_recall: float | None  # share of the true cable near the prediction; undefined without cable
    length_f1: float | None  # their harmonic mean; 0 when one tree has no cable, undefined when neither has
    tolerance: float  # what is near, in the unit of the trees
    reason: str | None = None  # why something is undefined


@dataclass(frozen=True)
class TreeCounts:
    """Size of a forest."""

    trees: int  # connected pieces that have cable
    branches: int  # unbranched stretches between roots, branch points and tips
    tips: int  # nodes without children, lone nodes left out
    length: float  # total cable in the unit of the tree


def length_scores(pred: Tree, truth: Tree, tolerance: float = 2.0) -> LengthScores:
    """Length precision, recall and F1 of ``pred`` at ``tolerance`` (in the unit of the trees)."""
    precision, recall = _share_near(pred, truth, tolerance), _share_near(truth, pred, tolerance)
    missing = [name for name, share in (("prediction", precision), ("truth", recall)) if share is None]
    reason = " and ".join(f"the {name} has no cable" for name in missing) or None
    return LengthScores(precision, recall, harmonic_mean(precision, recall), tolerance, reason)


def _share_near(tree: Tree, target: Tree, tolerance: float) -> float | None:
    """Share of the cable of ``tree`` whose pieces' middles are within ``tolerance`` of ``target``."""
    starts, ends, _ = cut(*tree_segments(tree), longest=max(_STEP, tree.length / _MOST_PIECES))
    lengths = np.linalg.norm(ends - starts, axis=1)
    total = float(lengths.sum())
    if not total > 0:
        return None
    goal = tree_segments(target)
    if not len(goal[0]):
        return 0.0
    distance = SegmentIndex(*goal).distance(0.5 * (starts + ends))
    return float(lengths[distance <= tolerance + 1e-10].sum()) / total


def tree_counts(tree: Tree) -> TreeCounts:
    """Number of trees, branches and tips, and the total length."""
    edges = tree.edges()
    if not len(edges):
        return TreeCounts(0, 0, 0, 0.0)
    children = np.bincount(edges[:, 1], minlength=len(tree))
    is_root = tree.parents < 0
    connected = ~is_root | (children > 0)
    # A branch ends at its lower node: a tip, or a node with two or more children; roots start branches only.
    ends_branch = ~is_root & (children != 1)
    return TreeCounts(
        trees=int(np.count_nonzero(is_root & connected)),
        branches=int(np.count_nonzero(ends_branch)),
        tips=int(np.count_nonzero((children == 0) & connected)),
        length=tree.length,
    )
