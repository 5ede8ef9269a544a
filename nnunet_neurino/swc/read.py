"""Reading SWC files as they are found in the wild."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.swc.mend import mend
from nnunet_neurino.swc.parse import parse_swc
from nnunet_neurino.swc.touching import merge_touching
from nnunet_neurino.swc.tree import Tree

SUFFIXES = (".swc", ".eswc")
MAX_NODES = 5_000_000  # read in about 10 s and 1.5 GB


def read_swc(
    path: str | os.PathLike[str],
    strict: bool = False,
    max_nodes: int = MAX_NODES,
    allow_empty: bool = False,
    break_circles: bool = False,
) -> Tree:
    """Read an SWC or eSWC file; what is broken is mended and listed in ``tree.findings`` (table in docs/swc.md).

    Args:
        path: the file; positions are kept as they are in it (x, y, z; no shift, no flip).
        strict: refuse a file that would have to be mended.
        max_nodes: refuse files with more nodes.
        allow_empty: give an empty tree for a file without nodes (a tracer that found nothing) instead of refusing.
        break_circles: where nodes are their own ancestors, make the first node of each circle a root instead of
            refusing; an edge is lost unless two nodes name each other.

    Returns:
        The tree, parents before children, with the file's ids.

    Raises:
        NeurinoError: the file is missing, empty, too large, not an SWC file, or broken beyond mending; one line with
            the file, the line and the remedy.
    """
    file = Path(path)
    table = parse_swc(file, max_nodes)
    if len(table.ids) == 0 and not allow_empty:
        raise NeurinoError(
            f"{file}: holds no nodes; expected lines of 7 columns (id type x y z radius parent); "
            "trace or download it again"
        )
    tree = mend(file, table, break_circles)
    if strict:
        for finding in tree.findings:
            if finding.mended:
                raise NeurinoError(f"{file}: {finding.what} (line {finding.line}); refused because reading is strict")
    return tree


def inspect_swc(path: str | os.PathLike[str]) -> tuple[Finding, ...]:
    """Everything odd about an SWC file, without converting it: the reader's findings and what only a look at the
    shape shows (touching pieces, nodes on the same spot). Raises NeurinoError where :func:`read_swc` does.
    """
    tree = read_swc(path)
    findings = list(tree.findings)
    lengths = tree.edge_lengths()
    if len(lengths) and (lengths == 0).any():
        findings.append(Finding(0, f"{int((lengths == 0).sum())} edges have no length"))
    if tree.n_pieces > 1:
        left = merge_touching(replace(tree, findings=())).n_pieces
        joined = f"; merge_touching leaves {left}" if left < tree.n_pieces else ", none of which touch"
        findings.append(Finding(0, f"{tree.n_pieces} pieces{joined}"))
    return tuple(findings)
