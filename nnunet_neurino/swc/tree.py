"""The one neuron type of the package: a forest of nodes on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nnunet_neurino.findings import Finding
from nnunet_neurino.skeleton.graph import depths, tops

Unit = Literal["voxel", "micrometre", "unknown"]
UNITS: tuple[Unit, ...] = ("voxel", "micrometre", "unknown")
#: SWC's structure identifiers that every program agrees on.
UNDEFINED, SOMA, AXON, DENDRITE, APICAL = 0, 1, 2, 3, 4
#: No position or radius is beyond this, so that squares and sums of them stay numbers.
FARTHEST = 1e16


@dataclass(frozen=True, eq=False)
class Tree:
    """A neuron: nodes with a radius, each with at most one parent; several roots are allowed (a forest).

    The arrays are copied, checked and read-only; make a changed tree with :func:`dataclasses.replace`. Trees that
    :func:`~nnunet_neurino.swc.read_swc` or any function of this folder returns have parents before children.

    Two trees are equal when their nodes (type, position, radius, parent) and units are exactly equal in
    parents-first order. Ids are names and findings are history: neither takes part.
    """

    ids: np.ndarray  # (n,) int64, unique names of the nodes (in the file they came from)
    types: np.ndarray  # (n,) int64, SWC structure identifiers (1 soma, 2 axon, 3 dendrite, 4 apical dendrite)
    xyz: np.ndarray  # (n, 3) float64, in x, y, z, up to 1e16 from 0. A whole number is the centre of a voxel
    radii: np.ndarray  # (n,) float64, from 0 to 1e16, in ``unit`` (in voxels: of the x axis)
    parents: np.ndarray  # (n,) int64, ROW INDEX of the parent, -1 for a root
    unit: Unit = "unknown"  # "voxel", "micrometre", or "unknown" (treated as voxels)
    findings: tuple[Finding, ...] = field(default=())  # what the reader and the menders found and did

    def __post_init__(self) -> None:
        n = len(self.ids)
        for name, dtype, shape in (
            ("ids", np.int64, (n,)),
            ("types", np.int64, (n,)),
            ("xyz", np.float64, (n, 3)),
            ("radii", np.float64, (n,)),
            ("parents", np.int64, (n,)),
        ):
            array = np.array(getattr(self, name), dtype=dtype)
            if n == 0 and array.size == 0:
                array = array.reshape(shape)
            if array.shape != shape:
                raise ValueError(f"Tree.{name}: expected shape {shape}, got {array.shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "findings", tuple(self.findings))
        if self.unit not in UNITS:
            raise ValueError(f"Tree.unit: expected one of {UNITS}, got {self.unit!r}")
        if not ((np.abs(self.xyz) <= FARTHEST).all() and (self.radii <= FARTHEST).all()):
            raise ValueError(f"Tree: positions and radii must be numbers up to {FARTHEST:g}")
        if (self.radii < 0).any():
            raise ValueError("Tree.radii: must not be negative")
        if has_repeats(self.ids):
            raise ValueError("Tree.ids: must be unique")
        if n and (self.parents.min() < -1 or self.parents.max() >= n):
            raise ValueError(f"Tree.parents: expected row indices from -1 to {n - 1}")
        if len(circle_nodes(self.parents)):
            raise ValueError("Tree.parents: contains a cycle")

    @classmethod
    def build(
        cls,
        xyz: np.ndarray,
        parents: np.ndarray,
        radii: np.ndarray | float = 1.0,
        types: np.ndarray | int = UNDEFINED,
        unit: Unit = "voxel",
    ) -> Tree:
        """Make a tree with ids 1..n from positions (n, 3) in x, y, z and parent row indices (-1 for a root).

        Examples:
            >>> tree = Tree.build([[0, 0, 0], [3, 4, 0]], [-1, 0], radii=2)
            >>> tree.n_nodes, tree.n_pieces, tree.length
            (2, 1, 5.0)
        """
        n = len(xyz)
        return cls(
            ids=np.arange(1, n + 1),
            types=np.broadcast_to(types, (n,)),
            xyz=xyz,
            radii=np.broadcast_to(radii, (n,)),
            parents=parents,
            unit=unit,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree):
            return NotImplemented
        if len(self) != len(other) or self.unit != other.unit:
            return False
        a, b = parents_first(self), parents_first(other)
        return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("types", "xyz", "radii", "parents"))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Tree({self.n_nodes} nodes, {self.n_pieces} pieces, length {self.length:.6g} in unit {self.unit!r}, "
            f"{len(self.findings)} findings)"
        )

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.ids)

    @property
    def roots(self) -> np.ndarray:
        """Row indices of the roots."""
        return np.flatnonzero(self.parents < 0)

    @property
    def n_pieces(self) -> int:
        """Number of connected pieces, which is the number of roots (touching segments count as several)."""
        return int((self.parents < 0).sum())

    def edges(self) -> np.ndarray:
        """Row indices (m, 2) of child and parent of every edge."""
        children = np.flatnonzero(self.parents >= 0)
        return np.stack([children, self.parents[children]], axis=1)

    def edge_lengths(self) -> np.ndarray:
        """Euclidean length (m,) of every edge of :meth:`edges`, in the tree's unit."""
        edges = self.edges()
        return np.linalg.norm(self.xyz[edges[:, 0]] - self.xyz[edges[:, 1]], axis=1)

    @property
    def length(self) -> float:
        """Total length of all edges, in the tree's unit."""
        return float(self.edge_lengths().sum())

    def piece_labels(self) -> np.ndarray:
        """Piece (n,) of every node, numbered from 0 in the order of the roots."""
        top = tops(self.parents)
        number = np.full(len(self), -1, dtype=np.int64)
        number[self.roots] = np.arange(self.n_pieces)
        return number[top]

    def n_children(self) -> np.ndarray:
        """Number of children (n,) of every node."""
        return np.bincount(self.parents[self.parents >= 0], minlength=len(self))


def has_repeats(ids: np.ndarray) -> bool:
    """Whether a number is twice in ``ids``."""
    steps = np.diff(ids)
    return not (steps > 0).all() and bool((np.diff(np.sort(ids)) == 0).any())


def circle_nodes(parents: np.ndarray) -> np.ndarray:
    """Rows, ascending, of the nodes that are their own ancestors (self-parents are circles)."""
    if len(parents) == 0 or (parents < np.arange(len(parents))).all():
        return np.zeros(0, dtype=np.int64)
    top = tops(parents)
    return np.unique(top[parents[top] >= 0])


def take(tree: Tree, rows: np.ndarray, **changes: object) -> Tree:
    """The tree of ``rows`` in that order; nodes whose parent is not among them become roots.

    ``changes`` replace fields afterwards (for example ``findings``).
    """
    new_row = np.full(len(tree) + 1, -1, dtype=np.int64)  # the last entry serves parent -1
    new_row[rows] = np.arange(len(rows))
    fields: dict[str, object] = {
        "ids": tree.ids[rows],
        "types": tree.types[rows],
        "xyz": tree.xyz[rows],
        "radii": tree.radii[rows],
        "parents": new_row[tree.parents[rows]],
        "unit": tree.unit,
        "findings": tree.findings,
    }
    return Tree(**{**fields, **changes})  # type: ignore[arg-type]


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


def parents_first_order(parents: np.ndarray) -> np.ndarray:
    """Order of rows in which every parent comes before its children.

    The order is untouched where it already is so; else rows are sorted by depth, keeping their order within a depth.
    """
    if (parents < np.arange(len(parents))).all():
        return np.arange(len(parents))
    return np.argsort(depths(parents), kind="stable")


def parents_first(tree: Tree) -> Tree:
    """The same tree with every parent before its children."""
    if (tree.parents < np.arange(len(tree))).all():
        return tree
    return take(tree, parents_first_order(tree.parents))
