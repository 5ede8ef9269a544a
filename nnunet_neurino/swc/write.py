"""Writing SWC files that every program opens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import atomic_path
from nnunet_neurino.swc.tree import SOMA, Tree, parents_first, take

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
    try:
        with atomic_path(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"# {line}\n" for line in head)
            for start in range(0, len(tree), _ROWS_A_BLOCK):
                file.writelines(_lines(tree, slice(start, start + _ROWS_A_BLOCK)))
    except OSError as error:
        raise NeurinoError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from None


def write_pieces(tree: Tree, path: Path) -> list[Path]:
    """Write every connected piece to ``<stem>_<number>.swc`` beside ``path``, in the order of the roots.

    Each root is marked as the cell body, so that programs that expect one per file open it.
    """
    labels = tree.piece_labels()
    width = len(str(max(tree.n_pieces, 1)))
    written = []
    for piece in range(tree.n_pieces):
        target = path.with_name(f"{path.stem}_{piece + 1:0{width}d}.swc")
        neuron = take(tree, np.flatnonzero(labels == piece))
        write_swc(replace(neuron, types=np.where(neuron.parents < 0, SOMA, neuron.types)), target)
        written.append(target)
    return written


def _lines(tree: Tree, rows: slice) -> Iterator[str]:
    """Rows of a tree with parents first as lines of a file."""
    ids = range(rows.start + 1, len(tree) + 1)
    parents = np.where(tree.parents[rows] < 0, -1, tree.parents[rows] + 1)
    columns = zip(
        ids,
        tree.types[rows].tolist(),
        tree.xyz[rows].tolist(),
        tree.radii[rows].tolist(),
        parents.tolist(),
        strict=False,  # ids run on
    )
    for number, kind, (x, y, z), radius, parent in columns:
        yield f"{number} {kind} {x!r} {y!r} {z!r} {radius!r} {parent}\n"
