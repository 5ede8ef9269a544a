"""Each neuron of a tracing to a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunet_neurino.swc import Tree, take, write_swc


def write_pieces(tree: Tree, path: Path) -> list[Path]:
    """Write every connected piece to ``<stem>_<number>.swc`` beside ``path``, in the order of the roots."""
    labels = tree.piece_labels()
    width = len(str(max(tree.n_pieces, 1)))
    written = []
    for piece in range(tree.n_pieces):
        target = path.with_name(f"{path.stem}_{piece + 1:0{width}d}.swc")
        write_swc(take(tree, np.flatnonzero(labels == piece)), target)
        written.append(target)
    return written
