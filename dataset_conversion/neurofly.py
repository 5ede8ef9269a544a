"""NeuroFly samples -> an nnU-Net raw data set.

Two kinds of samples are published. Those called *_labeled hold pairs of small image stacks and skeleton masks
(img_NAME.tif, mask_NAME.tif): give their folder. The others are one large stack with a graph in an SQLite file: give
the stack with --graph; the graph is written as SWC beside the data set and converted with it. NeuroFly counts
coordinates in the order of the stored axes; --coordinates xyz says otherwise.

examples:
  python dataset_conversion/neurofly.py mouse_labeled --dataset-id 814 --output nnUNet_raw
  python dataset_conversion/neurofly.py fmost.tif --graph fmost.db --block 64 64 64 --dataset-id 815 --output nnUNet_raw

"""

from __future__ import annotations

import argparse
import re
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from common import Source, parser_for, run
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components

from nnunet_neurino.conversion import Case, find_cases
from nnunet_neurino.conversion.names import case_name, stem_of
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import Tree, read_swc, write_swc

SOURCE = Source(
    "https://zenodo.org/records/13328867",
    "NeuroFly: a framework for single neuron reconstruction at whole-brain scale, 2024, doi:10.5281/zenodo.13328867",
    "CC-BY-4.0 (as deposited)",
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def read_graph(path: Path, array_order: bool = True) -> Tree:
    """Read NeuroFly's nodes and edges as a tree (a spanning forest; edges that close circles are pieces of their own).

    Args:
        path: the SQLite file; it is opened for reading only.
        array_order: coordinates count along the stored axes z, y, x, not x, y, z.
    """
    if not path.is_file():
        raise NeurinoError(f"{path}: no such file")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            columns = {row[1] for row in base.execute("PRAGMA table_info(nodes)")}
            target = {row[1] for row in base.execute("PRAGMA table_info(edges)")} & {"des", "dst"}
            if "nid" not in columns or not target or not ({"x", "y", "z"} <= columns or "coord" in columns):
                raise NeurinoError(f"{path}: no NeuroFly graph (tables nodes and edges); export it as SWC instead")
            where = "x || ' ' || y || ' ' || z" if {"x", "y", "z"} <= columns else "coord"
            shown = " WHERE status != 0" if "status" in columns else ""
            nodes = base.execute(f"SELECT nid, {where} FROM nodes{shown} ORDER BY nid").fetchall()
            edges = base.execute(f"SELECT src, {target.pop()} FROM edges").fetchall()
    except sqlite3.Error as error:
        raise NeurinoError(f"{path}: not a readable SQLite file ({error}); download it again") from None
    rows = {nid: row for row, (nid, _) in enumerate(nodes)}
    numbers = [_NUMBER.findall(t.decode() if isinstance(t, bytes) else str(t)) for _, t in nodes]
    if not nodes or any(len(n) != 3 for n in numbers):
        raise NeurinoError(f"{path}: nodes without three coordinates; export the graph as SWC instead")
    xyz = np.array(numbers, dtype=np.float64)
    known = [(rows[a], rows[b]) for a, b in edges if a in rows and b in rows and a != b]
    return _spanning(xyz[:, ::-1] if array_order else xyz, np.array(known, dtype=np.int64).reshape(-1, 2))


def _spanning(xyz: np.ndarray, edges: np.ndarray) -> Tree:
    n = len(xyz)
    graph = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n)).tocsr()
    _, piece = connected_components(graph, directed=False)
    parents = np.full(n, -1)
    for root in np.unique(piece, return_index=True)[1]:
        order, before = breadth_first_order(graph, int(root), directed=False)
        parents[order[1:]] = before[order[1:]]
    a, b = edges[:, 0], edges[:, 1]
    left = np.unique(np.sort(edges[(parents[a] != b) & (parents[b] != a)], axis=1), axis=0)
    m = len(left)
    more = np.concatenate([xyz[left[:, 0]], xyz[left[:, 1]]])
    return Tree.build(
        np.concatenate([xyz, more]), np.concatenate([parents, np.full(m, -1), np.arange(n, n + m)]), radii=1.0
    )


def cases_of(args: argparse.Namespace) -> tuple[list[Case], list[str]]:
    """Pairs of a folder, or one stack with its graph."""
    if args.graph is None:
        return find_cases(args.data, masks=args.data / "masks" if (args.data / "masks").is_dir() else args.data)
    if args.output is None:
        raise NeurinoError("--graph needs --output: the tracing is written there")
    name = case_name(stem_of(args.data))
    tracing = args.output / "neurofly_graphs" / f"{name}.swc"
    tree = read_graph(args.graph, args.coordinates == "array")
    if not tracing.is_file() or read_swc(tracing) != tree:  # a file written anew would be converted anew
        write_swc(tree, tracing)
    return [Case(name, (args.data,), tracing=tracing)], []


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    defaults = {"spacing": (1, 1, 1), "unit": "voxel", "mode": "distance_binary"}
    parser = parser_for(__doc__ or "", SOURCE, "NeuroFly", **defaults)
    parser.add_argument("data", type=Path, help="folder of a labelled sample, or one image stack")
    parser.add_argument("--graph", type=Path, metavar="DB", help="SQLite file with the graph of that stack")
    parser.add_argument(
        "--coordinates", choices=("array", "xyz"), default="array", help="order in the graph (default: array: z y x)"
    )
    return run(parser, SOURCE, cases_of, argv)


if __name__ == "__main__":
    sys.exit(main())
