"""Each neuron of a tracing to a file of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_neurino.swc import Tree, take, write_swc
from nnunet_neurino.swc.tree import SOMA


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
