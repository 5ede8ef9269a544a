"""How much of a tree's cable is right: length precision, recall and F1 at a tolerance, and plain counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_neurino.metrics.segments import SegmentIndex, cut, tree_segments
from nnunet_neurino.swc import Tree

_STEP = 0.5  # pieces of cable are judged by their middle; their length in units of the tree
_MOST_PIECES = 200_000


@dataclass(frozen=True)
class LengthScores:
    """Length scores; ``None`` where undefined, explained in ``reason``.

    Attributes:
        length_precision: share of the predicted cable within ``tolerance`` of the truth; undefined without cable.
        length_recall: share of the true cable within ``tolerance`` of the prediction; undefined without cable.
        length_f1: their harmonic mean; 0 when one tree has no cable, undefined when neither has.
        tolerance: in the unit of the trees.
        reason: why something is undefined, or ``None``.
    """

    length_precision: float | None
    length_recall: float | None
    length_f1: float | None
    tolerance: float
    reason: str | None = None


@dataclass(frozen=True)
class TreeCounts:
    """Size of a forest.

    Attributes:
        trees: connected pieces that have cable.
        branches: unbranched stretches between roots, branch points and tips.
        tips: nodes without children, lone nodes left out.
        length: total cable in the unit of the tree.
    """

    trees: int
    branches: int
    tips: int
    length: float


def length_scores(pred: Tree, truth: Tree, tolerance: float = 2.0) -> LengthScores:
    """Length precision, recall and F1 of ``pred`` at ``tolerance`` (in the unit of the trees)."""
    precision, recall = _share_near(pred, truth, tolerance), _share_near(truth, pred, tolerance)
    missing = [name for name, share in (("prediction", precision), ("truth", recall)) if share is None]
    f1: float | None = None
    if len(missing) < 2:
        f1 = 2 * precision * recall / (precision + recall) if precision and recall else 0.0
    reason = " and ".join(f"the {name} has no cable" for name in missing) or None
    return LengthScores(precision, recall, f1, tolerance, reason)


def _share_near(tree: Tree, target: Tree, tolerance: float) -> float | None:
    """Share of the cable of ``tree`` whose pieces' middles are within ``tolerance`` of ``target``."""
    own = tree_segments(tree)
    cable = float(np.linalg.norm(own[0] - own[1], axis=1).sum())
    starts, ends, _ = cut(*own, longest=max(_STEP, cable / _MOST_PIECES))
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
    starts, ends = tree_segments(tree)
    return TreeCounts(
        trees=int(np.count_nonzero(is_root & connected)),
        branches=int(np.count_nonzero(ends_branch)),
        tips=int(np.count_nonzero((children == 0) & connected)),
        length=float(np.linalg.norm(starts - ends, axis=1).sum()),
    )
