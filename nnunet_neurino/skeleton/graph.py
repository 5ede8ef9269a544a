"""The graph of a skeleton as arrays: nodes where it ends or branches, edges as paths of voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csgraph

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.skeleton.adjacency import drop_shortcuts, neighbour_pairs, sparse_adjacency
from nnunet_neurino.skeleton.thinning import skeletonise


@dataclass(frozen=True)
class SkeletonGraph:
    """A skeleton as a graph of arrays. Everything is in z, y, x.

    Nodes are the ends (one neighbour), the branchings (three and more; touching branching voxels are one node), lone
    voxels, and one arbitrary voxel of each closed ring. Edges are the paths between them. The path of edge ``i`` is
    ``voxels[path(i)]``: from a voxel of node ``edges[i, 0]`` to one of node ``edges[i, 1]``, both included.
    """

    voxels: NDArray[np.int64]
    """All skeleton voxels (n, 3), in C order of the volume."""
    degree: NDArray[np.int64]
    """Neighbours of each voxel along the skeleton (n,); a diagonal that only cuts a corner does not count."""
    component: NDArray[np.int64]
    """Number of the connected component (26 neighbours) of each voxel (n,), from 0."""
    node: NDArray[np.int64]
    """Number of the node to which each voxel belongs (n,), -1 for the voxels inside an edge."""
    nodes: NDArray[np.float64]
    """Node positions (k, 3) in voxels: the mean of the node's voxels."""
    edges: NDArray[np.int64]
    """The two nodes (m, 2) of each edge; the same node twice for a ring or a loop."""
    edge_lengths: NDArray[np.float64]
    """Length of each edge (m,) along its path and to the nodes' positions, in the unit of ``spacing``."""
    path_voxels: NDArray[np.int64]
    """Rows of ``voxels`` of all paths, one after the other."""
    path_starts: NDArray[np.int64]
    """Where each path starts in ``path_voxels`` (m + 1,)."""
    n_components: int
    """Number of connected components (26 neighbours)."""
    spacing: tuple[float, float, float]
    """Voxel size (z, y, x)."""
    shape: tuple[int, int, int]
    """Shape (z, y, x) of the volume."""

    @property
    def n_nodes(self) -> int:
        """Number of nodes."""
        return len(self.nodes)

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.edges)

    @property
    def node_degree(self) -> NDArray[np.int64]:
        """Edge ends at each node (k,): 1 for an end, 3 and more for a branching, 0 for a lone voxel."""
        return np.bincount(self.edges.ravel(), minlength=self.n_nodes)

    @property
    def node_component(self) -> NDArray[np.int64]:
        """Component of each node (k,)."""
        of = np.zeros(self.n_nodes, np.int64)
        inside = self.node >= 0
        of[self.node[inside]] = self.component[inside]
        return of

    @property
    def length(self) -> float:
        """Total length of all edges, in the unit of ``spacing``."""
        return float(self.edge_lengths.sum())

    def path(self, edge: int) -> NDArray[np.int64]:
        """Rows of ``voxels`` along one edge, both ends included."""
        return self.path_voxels[self.path_starts[edge] : self.path_starts[edge + 1]]

    def to_mask(self) -> NDArray[np.bool_]:
        """The skeleton as a boolean volume (z, y, x)."""
        mask = np.zeros(self.shape, bool)
        mask[tuple(self.voxels.T)] = True
        return mask


def skeleton_graph(mask: NDArray, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> SkeletonGraph:
    """Thin a mask and return the graph of its skeleton.

    Args:
        mask: array (z, y, x); non-zero voxels are foreground.
        spacing: voxel size (z, y, x); lengths come out in its unit.

    Returns:
        The graph; every 26-component of the mask has a component in it.

    Example:
        >>> import numpy as np
        >>> line = np.zeros((5, 5, 12), bool)
        >>> line[2, 2, 1:11] = True
        >>> graph = skeleton_graph(line, spacing=(2.0, 1.0, 0.5))
        >>> graph.n_nodes, graph.n_edges, graph.length
        (2, 1, 4.5)
    """
    return graph_of_skeleton(skeletonise(mask), spacing)


def graph_of_skeleton(skeleton: NDArray, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> SkeletonGraph:
    """Graph of a skeleton that is one voxel wide already: as :func:`skeleton_graph`, without the thinning."""
    skeleton = np.asarray(skeleton) != 0
    size = tuple(float(s) for s in spacing)
    if skeleton.ndim != 3 or len(size) != 3 or not all(np.isfinite(size)) or min(size) <= 0:
        raise NeurinoError(
            f"skeleton_graph: expected a mask (z, y, x) and three positive voxel sizes, got shape {skeleton.shape} "
            f"and spacing {size}; pass one volume and its spacing"
        )
    voxels = np.argwhere(skeleton)
    n = len(voxels)
    pairs, steps = neighbour_pairs(voxels, skeleton.shape)
    keep = drop_shortcuts(n, pairs, steps)
    pairs, steps = pairs[keep], steps[keep]
    n_components, component = _components(n, pairs)
    degree = np.bincount(pairs.ravel(), minlength=n)
    is_node = degree != 2
    ringed = np.ones(n_components, bool)
    ringed[component[is_node]] = False
    is_node[np.unique(component, return_index=True)[1][ringed]] = True

    node = np.full(n, -1, np.int64)
    between_nodes = is_node[pairs].all(1)
    branching = degree > 2
    merged = between_nodes & branching[pairs].all(1)
    rows = np.flatnonzero(is_node)
    number = np.cumsum(is_node) - 1
    n_nodes, node[rows] = _components(len(rows), number[pairs[merged]])
    size_of_node = np.bincount(node[rows], minlength=n_nodes)
    nodes = np.stack([np.bincount(node[rows], voxels[rows, a], n_nodes) for a in range(3)], 1) / size_of_node[:, None]

    paths, starts = _paths(n, pairs, is_node, pairs[between_nodes & ~merged])
    ends = np.stack([paths[starts[:-1]], paths[starts[1:] - 1]], 1)
    edges = node[ends]
    scale = np.array(size)
    walked = np.concatenate([[0.0], np.linalg.norm(np.diff(voxels[paths], axis=0) * scale, axis=1), [0.0]])
    walked[starts] = 0.0
    travelled = np.cumsum(walked)
    lengths = travelled[starts[1:] - 1] - travelled[starts[:-1]] if len(edges) else np.zeros(0)
    lengths = lengths + np.linalg.norm((voxels[ends] - nodes[edges]) * scale, axis=2).sum(1)
    return SkeletonGraph(
        voxels, degree, component, node, nodes, edges, lengths, paths, starts, n_components,
        (size[0], size[1], size[2]), skeleton.shape,
    )  # fmt: skip


def _components(n: int, pairs: NDArray) -> tuple[int, NDArray[np.int64]]:
    if n == 0:
        return 0, np.zeros(0, np.int64)
    count, labels = csgraph.connected_components(sparse_adjacency(n, pairs), directed=False)
    return int(count), labels.astype(np.int64)


def _paths(n: int, pairs: NDArray, is_node: NDArray, direct: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All paths between node voxels, one after the other, and where each starts; ``direct`` pairs are paths of two."""
    inside = np.flatnonzero(~is_node)
    number = np.full(n, -1, np.int64)
    number[inside] = np.arange(len(inside))
    within = number[pairs]
    chain_pairs = within[(within >= 0).all(1)]
    # Every voxel inside an edge has two neighbours; those that are nodes, in the order of `pairs`:
    one_inside = (within >= 0).sum(1) == 1
    contact = np.where(within[one_inside] >= 0, within[one_inside], 0).max(1)
    outer = np.where(within[one_inside] < 0, pairs[one_inside], 0).max(1)
    order = np.argsort(contact, kind="stable")
    contact, outer = contact[order], outer[order]

    # From a virtual voxel joined to one end of each chain, depth-first order walks the chains one by one.
    n_chains, chain = _components(len(inside), chain_pairs)
    if n_chains == 0:
        return direct.ravel(), np.arange(0, 2 * len(direct) + 1, 2)
    _, first = np.unique(chain[contact], return_index=True)
    root = len(inside)
    spokes = np.stack([np.full(n_chains, root), contact[first]], 1)
    matrix = sparse_adjacency(root + 1, np.concatenate([chain_pairs, spokes]))
    walk = csgraph.depth_first_order(matrix, root, directed=False, return_predecessors=False)[1:]
    starts = np.flatnonzero(np.concatenate([[True], chain[walk[1:]] != chain[walk[:-1]]]))
    stops = np.append(starts[1:], len(walk)) - 1
    # A chain of one voxel has its two contacts side by side: take the first before, the last behind.
    before = outer[np.searchsorted(contact, walk[starts], side="left")]
    behind = outer[np.searchsorted(contact, walk[stops], side="right") - 1]
    walked = np.insert(inside[walk], np.concatenate([stops + 1, starts]), np.concatenate([behind, before]))
    lengths = np.concatenate([stops - starts + 3, np.full(len(direct), 2)])
    return np.concatenate([walked, direct.ravel()]), np.concatenate([[0], np.cumsum(lengths)])
