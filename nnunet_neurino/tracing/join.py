"""Several trees as one with several roots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_neurino.swc import Tree


def join_trees(trees: Sequence[Tree]) -> Tree:
    """Put trees of one unit one behind the other; ids are numbered anew from 1."""
    if not trees:
        return Tree.build(np.empty((0, 3)), np.empty(0, dtype=np.int64))
    starts = np.cumsum([0, *(len(tree) for tree in trees)])
    parents = [np.where(t.parents < 0, -1, t.parents + s) for t, s in zip(trees, starts[:-1], strict=True)]
    return Tree(
        np.arange(1, starts[-1] + 1),
        np.concatenate([tree.types for tree in trees]),
        np.concatenate([tree.xyz for tree in trees]),
        np.concatenate([tree.radii for tree in trees]),
        np.concatenate(parents),
        trees[0].unit,
        tuple(finding for tree in trees for finding in tree.findings),
    )
