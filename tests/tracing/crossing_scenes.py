"""Scenes of neurons that cross, with and without gaps, and the count of what a tracing joins that it should not.

A *crossing* is a place where the masks of two neurons overlap or touch (nearer than a voxel), all such places within a
few voxels taken for one. It is *joined* if the tracing leads from one neuron to the other there: the nodes of the
tracing that lie on both neurons at once are on no side, and a connected stretch of them that continues for at least
``STUB`` voxels on each of the two joins them. A join far from every crossing counts as well: it is a false bridge.
A traced component belongs to the neuron that it carries most of; its cable on others is *foreign*.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from tracing_scenes import cut_gap, mask_of, piece_at

from nnunet_neurino.swc import Tree
from nnunet_neurino.synth import GrowthSettings, SynthSettings
from nnunet_neurino.synth.growth import grow_trees

# A neuron with a cell body whose few neurites are long, even and thick.
SMOOTH = {
    "soma_probability": 1.0,
    "stems": (4, 6),
    "branch_distance": 120.0,
    "wander": 0.35,
    "wiggle": 0.05,
    "radius": (1.6, 2.6),
    "min_radius": 1.0,
}
STUB = 6.0  # voxels: less of another neuron is inaccuracy, not a neuron
_TOUCHING = 1.0  # voxels between two surfaces whose masks may touch
_ONE_PLACE = 8.0  # contacts nearer to each other than this are one crossing
_UNSURE = 1.5  # a node that is so much nearer to the one neuron than to the other, or less, is on no side
_NEAR_CROSSING = 10.0

Place = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class Scene:
    """Neurons, the mask of all of them with gaps cut, and where: for each gap the place, direction, and both sides."""

    trees: tuple[Tree, ...]
    mask: NDArray[np.bool_]
    gaps: list[Place]


@dataclass(frozen=True)
class Outcome:
    """What became of a scene.

    Attributes:
        crossings, joined: number of crossings, and of those joined (with false bridges elsewhere).
        cable, foreign: length of the tracing that is plainly on one neuron, and of that in a tree of another neuron.
        gaps, bridged: number of gaps, and of those bridged.
        parts: number of traced components that carry a good part of each neuron, 1 if none was broken.
    """

    crossings: int
    joined: int
    cable: float
    foreign: float
    gaps: int
    bridged: int
    parts: tuple[int, ...]


def places_to_cut(tree: Tree, count: int, rng: np.random.Generator) -> list[Place]:
    """Random places at least 10 voxels apart, with the direction there and a place 6 nodes up and down the tree."""
    children = tree.n_children()
    only_child = np.full(len(tree), -1)
    for row, parent in enumerate(tree.parents.tolist()):
        if parent >= 0 and children[parent] == 1:
            only_child[parent] = row
    found: list[Place] = []
    for row in rng.permutation(len(tree)).tolist():
        up = down = row
        for _ in range(6):
            up = int(tree.parents[up]) if up >= 0 else -1
            down = int(only_child[down]) if down >= 0 else -1
        if up < 0 or down < 0 or tree.radii[row] > 3:
            continue
        if all(np.linalg.norm(tree.xyz[row] - other[0]) > 10 for other in found):
            found.append((tree.xyz[row], tree.xyz[tree.parents[row]] - tree.xyz[row], tree.xyz[up], tree.xyz[down]))
        if len(found) == count:
            break
    return found


def grown_scene(growth: GrowthSettings, shape: tuple[int, int, int], seed: int, gaps: int = 0) -> Scene:
    """Neurons as ``neurino synth`` grows them, with ``gaps`` gaps of 3 voxels in each."""
    trees = grow_trees(SynthSettings(shape=shape, growth=growth), np.random.default_rng(seed))
    return scene_of(trees, shape, seed, gaps)


def scene_of(trees: Sequence[Tree], shape: tuple[int, int, int], seed: int, gaps: int) -> Scene:
    """The scene of given neurons."""
    mask = mask_of(list(trees), shape)
    rng = np.random.default_rng(seed)
    places = [place for tree in trees for place in (places_to_cut(tree, gaps, rng) if gaps else ())]
    for at, along, _, _ in places:
        cut_gap(mask, tuple(at), tuple(along), 3.0)
    return Scene(tuple(trees), mask, places)


def passing_fibres(rng: np.random.Generator, clearance: float) -> list[Tree]:
    """Two winding fibres that pass the middle of the volume at 40 degrees or more, surfaces ``clearance`` apart."""
    directions = np.zeros((2, 3))
    while abs(directions[0] @ directions[1]) > np.cos(np.radians(40)) or not directions.any():
        directions = rng.normal(size=(2, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    across = np.cross(*directions)
    across /= np.linalg.norm(across)
    radii = rng.uniform(0.8, 2.0, 2)
    t = np.arange(-28.0, 29.0)
    trees = []
    for direction, radius, offset in zip(directions, radii, (0.0, radii.sum() + clearance), strict=True):
        wander = np.cumsum(rng.normal(0, 0.12, (len(t), 3)), axis=0)
        wander -= wander[len(t) // 2]
        path = 31.5 + across * offset + t[:, None] * direction + wander * np.minimum(1, np.abs(t) / 10)[:, None]
        trees.append(Tree.build(path, np.arange(len(t)) - 1, radii=radius))
    return trees


def fibre_scene(seed: int, clearance: float, gaps: bool) -> tuple[list[Tree], NDArray[np.bool_]]:
    """:func:`passing_fibres` and their mask, if wanted with a gap in each within 10 voxels of where they pass."""
    rng = np.random.default_rng(seed)
    trees = passing_fibres(rng, clearance)
    mask = mask_of(trees, (64, 64, 64))
    for tree in trees if gaps else ():
        at = int(rng.integers(18, 39))
        cut_gap(mask, tuple(tree.xyz[at]), tuple(tree.xyz[at + 1] - tree.xyz[at - 1]), 3.0)
    return trees, mask


def fibres_joined(trees: Sequence[Tree], traced: Tree) -> bool:
    """Whether any traced piece carries an end of each of two fibres."""
    one, other = ({piece_at(traced, tuple(tree.xyz[i])) for i in (4, -5)} for tree in trees)
    return bool(one & other)


def crossings_of(trees: Sequence[Tree]) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Every crossing: the numbers of its two neurons and its place x, y, z."""
    found = []
    for j in range(len(trees)):
        for i in range(j):
            tree = cKDTree(trees[j].xyz)
            distance, nearest = tree.query(trees[i].xyz, k=min(5, len(trees[j])))
            surface = (distance - trees[j].radii[nearest] - trees[i].radii[:, None]).min(axis=1)
            places = trees[i].xyz[surface < _TOUCHING]
            if len(places) > 1:
                cluster = fcluster(linkage(places, "single"), _ONE_PLACE, "distance")
            else:
                cluster = np.ones(len(places), dtype=int)
            found += [(i, j, places[cluster == c].mean(axis=0)) for c in np.unique(cluster)]
    return found


def judge(scene: Scene, trace: Callable[[NDArray[np.bool_]], Tree]) -> Outcome:
    """Trace a scene and count."""
    traced = trace(scene.mask)
    side = _sides(traced, scene.trees)
    cable = _cable(traced, traced.piece_labels(), side, len(scene.trees))
    crossings = crossings_of(scene.trees)
    at_crossing: set[int] = set()
    elsewhere = 0
    for i, j, place in _joins(traced, side):
        near = [
            (float(np.linalg.norm(place - where)), n) for n, (a, b, where) in enumerate(crossings) if (a, b) == (i, j)
        ]
        if near and min(near)[0] <= _NEAR_CROSSING:
            at_crossing.add(min(near)[1])
        else:
            elsewhere += 1
    return Outcome(
        crossings=len(crossings),
        joined=len(at_crossing) + elsewhere,
        cable=float(cable.sum()),
        foreign=float(cable.sum() - cable.max(axis=1).sum()),
        gaps=len(scene.gaps),
        bridged=sum(piece_at(traced, tuple(up)) == piece_at(traced, tuple(down)) for _, _, up, down in scene.gaps),
        parts=tuple((cable > 2 * STUB).sum(axis=0).tolist()),
    )


def _sides(traced: Tree, trees: Sequence[Tree]) -> NDArray[np.int64]:
    """The neuron on which each traced node lies, or -1 where that is not sure."""
    surface = []
    for tree in trees:
        distance, nearest = cKDTree(tree.xyz).query(traced.xyz, k=min(5, len(tree)))
        surface.append((distance - tree.radii[nearest]).min(axis=1))
    ranked = np.sort(np.stack(surface), axis=0)
    side = np.argmin(np.stack(surface), axis=0).astype(np.int64)
    if len(trees) > 1:
        side[(ranked[1] - ranked[0] <= _UNSURE) | (ranked[1] <= 0)] = -1  # the latter in a cell body
    return side


def _cable(traced: Tree, group: NDArray, side: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Cable (groups, neurons) of each group of nodes that lies on each neuron."""
    total = np.zeros((int(group.max()) + 1 if len(group) else 0, count))
    child, parent = traced.edges().T
    sure = (side[child] >= 0) & (side[child] == side[parent])
    np.add.at(total, (group[child[sure]], side[child[sure]]), traced.edge_lengths()[sure])
    return total


def _joins(traced: Tree, side: NDArray[np.int64]) -> list[tuple[int, int, NDArray[np.float64]]]:
    """Where the tracing leads from one neuron to another: both numbers, the smaller first, and the place."""
    n = len(traced)
    child, parent = traced.edges().T
    same = side[child] == side[parent]
    links = coo_array((np.ones(int(same.sum())), (child[same], parent[same])), shape=(n, n))
    runs, run = connected_components(links, directed=False)
    length = np.bincount(run[child[same]], traced.edge_lengths()[same], minlength=runs)
    run_side = np.full(runs, -1)
    run_side[run] = side
    long = (run_side >= 0) & (length >= STUB)
    around: dict[int, list[int]] = {}
    found = []
    for a, b in zip(child[~same].tolist(), parent[~same].tolist(), strict=True):
        for here, there in ((a, b), (b, a)):
            if side[here] < 0 and long[run[there]]:
                around.setdefault(int(run[here]), []).append(there)
        if long[run[a]] and long[run[b]]:
            i, j = sorted((int(side[a]), int(side[b])))
            found.append((i, j, traced.xyz[[a, b]].mean(axis=0)))
    for nodes in around.values():
        on = sorted(set(side[nodes].tolist()))
        found += [(i, j, traced.xyz[nodes].mean(axis=0)) for at, j in enumerate(on) for i in on[:at]]
    return found
