"""Cross-sections of a mask, ordered by their walking distance from the middle: a graph that no flip can change.

Thinning a mask to voxels depends on how the volume lies: flip it and Lee's skeleton moves by up to a voxel and loses
other end pieces. A loss must not see that. Here each component is cut into slices of equal walking distance from its
root; where a slice falls into several pieces the neurite has branched. Every decision rests on integers that flips and
axis permutations leave alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from nnunet_neurino.skeleton import graph
from nnunet_neurino.skeleton.neighbours import HALF_NEIGHBOURHOOD, neighbour_pairs

_BOND = 4 - (HALF_NEIGHBOURHOOD**2).sum(axis=1)
"""A face in common binds more than an edge or a corner."""
_MOST_ENDS = 8
"""Beyond so many equally far ends of one component (a ball, not a neurite) they are not told apart."""


@dataclass(frozen=True)
class SectionGraph:
    """The cross-sections of a mask as a forest; sections are numbered from the roots outwards."""

    voxels: NDArray[np.int64]
    """All mask voxels (n, 3) in z, y, x, in C order of the volume."""
    section: NDArray[np.int64]
    """Section of each voxel (n,)."""
    core: NDArray[np.float64]
    """How deep inside the mask each voxel lies (n,): below 1 at the surface, above 1 inside."""
    parent: NDArray[np.int64]
    """The next section towards the root (k,), -1 at a root; always a smaller number."""
    also: NDArray[np.int64]
    """Sections and their further parents (m, 2): in a ring or between two roots, nothing tells some parents apart."""
    level: NDArray[np.int64]
    """Steps to the root (k,), counted in 26-neighbour steps."""
    n_children: NDArray[np.int64]
    """Sections that follow each one (k,): 0 at an end, 2 and more at a branching."""
    edge: NDArray[np.int64]
    """Unbranched run to which each section belongs (k,), from 0."""

    @property
    def n_sections(self) -> int:
        """Number of sections: the cable's length in steps."""
        return len(self.parent)

    @property
    def n_edges(self) -> int:
        """Number of unbranched runs."""
        return int(self.edge.max(initial=-1)) + 1

    @property
    def is_key(self) -> NDArray[np.bool_]:
        """Sections (k,) at an end or a branching."""
        return self.n_children != 1


def section_graph(mask: NDArray, components: NDArray | None = None) -> SectionGraph:
    """Cut every component of a mask into cross-sections.

    The root of a component is its voxel nearest to its centre of gravity, deep voxels weighing far more than those
    at the surface: the soma where there is one, else the middle.

    Args:
        mask: array (z, y, x); non-zero voxels are foreground.
        components: the mask's 26-component numbers (z, y, x) from 1, if they are known already.

    Returns:
        The forest of sections, the same (up to the order of its entries) for every orientation of the volume.
    """
    mask = np.asarray(mask) != 0
    voxels = np.argwhere(mask)
    n = len(voxels)
    if n == 0:
        none = np.zeros(0, np.int64)
        return SectionGraph(voxels, none, np.zeros(0), none, none.reshape(0, 2), none, none, none)
    pairs, steps = neighbour_pairs(voxels)
    links = graph.adjacency(n, pairs)
    if components is None:
        component = graph.components(n, pairs)
    else:
        component = components[mask].astype(np.int64) - 1
    neighbours = np.diff(links.indptr)
    depth = _steps_from(links, neighbours < 26)
    distance = _from_centre(voxels, component, (depth + 1) ** 4)
    root = distance == _least(distance, component)[component]
    # Slices of equal distance from the root itself would be shells around it; from the far ends they lie across.
    section = _slices(links, pairs, _farthest(_steps_from(links, root), component), component)
    section, parent, also, level = _forest(pairs, _BOND[steps], section, root, distance)
    section, parent, also, level = _without_bumps(section, parent, also, level)
    n_children = _count_children(parent, also)
    core = depth + neighbours / 26
    return SectionGraph(voxels, section, core, parent, also, level, n_children, _edges(parent, also, n_children))


def _slices(
    links: sparse.csr_matrix, pairs: NDArray, start: NDArray[np.bool_], component: NDArray
) -> NDArray[np.int64]:
    """Number of the slice of each voxel: connected voxels at the same number of steps from the same ends."""
    steps = _steps_from(links, start)
    within = pairs[steps[pairs[:, 0]] == steps[pairs[:, 1]]]
    ends = _nearest_ends(links, pairs, start, component, steps)
    return graph.components(len(steps), within[ends[within[:, 0]] == ends[within[:, 1]]])


def _nearest_ends(
    links: sparse.csr_matrix, pairs: NDArray, start: NDArray[np.bool_], component: NDArray, steps: NDArray
) -> NDArray[np.int64]:
    """Which of the equally far ends of its component are nearest to each voxel, as a set of bits.

    Slices that come from the two ends of a symmetric neurite meet in its middle and would be one there.
    """
    rows = np.flatnonzero(start)
    number = np.full(len(steps), -1, np.int64)
    number[rows] = np.arange(len(rows))
    end = graph.components(len(rows), number[pairs[start[pairs].all(1)]])
    owner = np.zeros(end.max() + 1, np.int64)
    owner[end] = component[rows]
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], owner[order])
    within = np.empty(len(owner), np.int64)
    within[order] = np.arange(len(owner)) - first  # each end's number among those of its component
    count = np.bincount(owner, minlength=component.max() + 1)
    few = (count > 1) & (count <= _MOST_ENDS)
    nearest = np.zeros(len(steps), np.int64)
    for k in range(int(count[few].max(initial=0))):
        mine = np.zeros(len(steps), bool)
        mine[rows[within[end] == k]] = True
        reached = few[component] & (count[component] > k)
        nearest[reached & (_steps_from(links, mine) == steps)] |= 1 << k
    return nearest


def _farthest(steps: NDArray, component: NDArray) -> NDArray[np.bool_]:
    most = np.zeros(component.max() + 1, np.int64)
    np.maximum.at(most, component, steps)
    return steps == most[component]


def _forest(
    pairs: NDArray, bond: NDArray, section: NDArray, root: NDArray[np.bool_], distance: NDArray
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Join sections that touch into trees that grow from the sections of the roots; number them outwards.

    Returns:
        section of each voxel, parent of each section, further parents (m, 2), level of each section.
    """
    n = int(section.max()) + 1
    size = np.bincount(section, minlength=n)
    touching = np.sort(section[pairs], axis=1)
    apart = touching[:, 0] != touching[:, 1]
    contact, which = np.unique(touching[apart, 0] * n + touching[apart, 1], return_inverse=True)
    strength = np.bincount(which.ravel(), bond[apart], len(contact)).astype(np.int64)
    contact = np.stack([contact // n, contact % n], 1)
    is_root = np.zeros(n, bool)
    is_root[section[root]] = True
    level = _steps_from(graph.adjacency(n, contact), is_root)
    between = level[contact[:, 0]] != level[contact[:, 1]]
    contact, strength = contact[between], strength[between]
    swap = level[contact[:, 0]] > level[contact[:, 1]]
    contact[swap] = contact[swap, ::-1]
    inner, outer = contact.T
    # The parent is the section towards the root with most contact; of equals the larger, then the more central one.
    merits = np.stack([-_least(distance, section)[inner], size[inner], strength])
    rising = np.lexsort([*merits, outer])
    inner, outer, merits = inner[rising], outer[rising], merits[:, rising]
    last = np.searchsorted(outer, outer, side="right") - 1
    equal = (merits == merits[:, last]).all(0)
    equal[last] = False
    parent = np.full(n, -1, np.int64)
    parent[outer[last]] = inner[last]
    order = np.argsort(level, kind="stable")
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    parent = np.where(parent < 0, -1, rank[parent])[order]
    also = rank[np.stack([outer[equal], inner[equal]], 1)]
    return rank[section], parent, also, level[order]


def _without_bumps(
    section: NDArray, parent: NDArray, also: NDArray, level: NDArray
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give sections that end at once beside a branch that goes on to their parents: no neurite is as short as that."""
    n_children = _count_children(parent, also)
    bump = (n_children == 0) & (parent >= 0) & (n_children[parent] > 1)
    bump[also[:, 0]] = False
    # Where all branches are as short, none is a bump.
    goes_on = np.zeros(len(parent), bool)
    goes_on[parent[(parent >= 0) & ~bump]] = True
    goes_on[also[:, 1]] = True
    bump &= goes_on[parent]
    number = np.cumsum(~bump) - 1
    moved = np.where(bump, number[parent], number)
    kept = parent[~bump]
    return moved[section], np.where(kept < 0, -1, number[kept]), number[also], level[~bump]


def _count_children(parent: NDArray, also: NDArray) -> NDArray[np.int64]:
    return np.bincount(np.concatenate([parent[parent >= 0], also[:, 1]]), minlength=len(parent))


def _steps_from(links: sparse.csr_matrix, start: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps (n,) from each voxel to the nearest voxel of ``start`` along the links; 0 where none can be reached."""
    return graph.depths(graph.search(links, np.flatnonzero(start))[1])


def _from_centre(voxels: NDArray, component: NDArray, weight: NDArray) -> NDArray[np.int64]:
    """How far each voxel is from its component's weighted centre, on a scale of the component's own.

    |x - moments / total|^2, up to a constant factor and summand, in integers: equal distances compare as equal.
    """
    total = np.zeros(component.max() + 1, np.int64)
    np.add.at(total, component, weight)
    moments = np.zeros((len(total), 3), np.int64)
    np.add.at(moments, component, voxels * weight[:, None])
    return (voxels * (total[component, None] * voxels - 2 * moments[component])).sum(1)


def _least(values: NDArray, group: NDArray) -> NDArray[np.int64]:
    least = np.full(int(group.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, group, values)
    return least


def _edges(parent: NDArray, also: NDArray, n_children: NDArray) -> NDArray[np.int64]:
    """Number the runs between key sections: a section continues its only parent's run if it is the only child."""
    before = np.where((parent >= 0) & (n_children[parent] == 1), parent, -1)
    before[also[:, 0]] = -1
    return np.unique(graph.tops(before), return_inverse=True)[1].reshape(-1).astype(np.int64)
