"""Gaps and crossings by the number: how many are bridged, how many neurons are joined that should not be."""

from __future__ import annotations

import numpy as np
import pytest
from tracing_scenes import cut_gap, mask_of, piece_at

from nnunet_neurino.swc import Tree
from nnunet_neurino.synth import GrowthSettings, SynthSettings, generate
from nnunet_neurino.tracing import trace

SHAPE = (64, 64, 64)


def places_to_cut(
    tree: Tree, count: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Random places at least 10 voxels apart, with the direction there and a place 6 nodes up and down the tree."""
    children = tree.n_children()
    only_child = np.full(len(tree), -1)
    for row, parent in enumerate(tree.parents.tolist()):
        if parent >= 0 and children[parent] == 1:
            only_child[parent] = row
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
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


def test_nine_of_ten_gaps_of_three_voxels_are_bridged() -> None:
    bridged: list[bool] = []
    growth = GrowthSettings(neurons=(1, 1), crossings=(0, 0), touches=(0, 0), clearance=2.5)
    for seed in range(8):
        volume = generate(SynthSettings(shape=(64, 80, 80), growth=growth), seed)
        gaps = places_to_cut(volume.tree, 8, np.random.default_rng(seed))
        mask = volume.mask > 0
        for at, along, _, _ in gaps:
            cut_gap(mask, tuple(at), tuple(along), 3.0)
        tree = trace(mask)
        bridged += [piece_at(tree, tuple(up)) == piece_at(tree, tuple(down)) for _, _, up, down in gaps]
    assert len(bridged) > 40
    assert np.mean(bridged) >= 0.9


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


@pytest.mark.parametrize(("clearance", "gaps", "allowed"), [(2.5, True, 1), (1.0, True, 1), (-1.0, False, 2)])
def test_passing_neurites_are_not_joined(clearance: float, gaps: bool, allowed: int) -> None:
    joined = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        trees = passing_fibres(rng, clearance)
        mask = mask_of(trees, SHAPE)
        for tree in trees if gaps else ():  # a gap beside the crossing makes it harder
            at = int(rng.integers(18, 39))
            cut_gap(mask, tuple(tree.xyz[at]), tuple(tree.xyz[at + 1] - tree.xyz[at - 1]), 3.0)
        traced = trace(mask)
        ends = [{piece_at(traced, tuple(tree.xyz[i])) for i in (4, -5)} for tree in trees]
        joined += bool(ends[0] & ends[1])
    assert joined <= allowed
