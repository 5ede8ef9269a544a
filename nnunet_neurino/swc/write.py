"""Writing SWC files that every program opens."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from nnunet_neurino.files import atomic_path
from nnunet_neurino.swc.tree import Tree, parents_first

_ROWS_A_BLOCK = 100_000


def write_swc(tree: Tree, path: str | os.PathLike[str], comments: Sequence[str] = ()) -> None:
    """Write a tree: ids 1..n, parents before children, single blanks, ``\\n``, numbers that read back exactly.

    Args:
        tree: the neuron; its unit is written as a comment that :func:`~nnunet_neurino.swc.read_swc` understands.
        path: the file, written whole or not at all.
        comments: more lines for the head, without ``#``.
    """
    tree = parents_first(tree)
    head = [line for comment in comments for line in comment.splitlines()]
    if tree.unit != "unknown":
        head.append(f"unit: {tree.unit}")
    head.append("id type x y z radius parent")
    ids = np.arange(1, len(tree) + 1)
    parents = np.where(tree.parents < 0, -1, tree.parents + 1)
    with atomic_path(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"# {line}\n" for line in head)
        for start in range(0, len(tree), _ROWS_A_BLOCK):
            block = slice(start, start + _ROWS_A_BLOCK)
            x, y, z = tree.xyz[block].T.tolist()
            columns = (
                ids[block].tolist(),
                tree.types[block].tolist(),
                x,
                y,
                z,
                tree.radii[block].tolist(),
                parents[block].tolist(),
            )
            file.writelines(
                f"{i} {kind} {x!r} {y!r} {z!r} {radius!r} {parent}\n"
                for i, kind, x, y, z, radius, parent in zip(*columns, strict=True)
            )
