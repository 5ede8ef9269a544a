"""Gaps and crossings by the number: how many are bridged, how many neurons are joined that should not be."""

from __future__ import annotations

import numpy as np
import pytest
from crossing_scenes import grown_scene, judge
from tracing_scenes import cut_gap, mask_of, piece_at

from nnunet_neurino.swc import Tree
from nnunet_neurino.synth import GrowthSettings
from nnunet_neurino.tracing import trace

SHAPE = (64, 64, 64)


ONE = {"neurons": (1, 1), "touches": (0, 0), "clearance": 2.5}


def test_nine_of_ten_gaps_of_three_voxels_are_bridged() -> None:
    growth = GrowthSettings(crossings=(0, 0), **ONE)
    outcomes = [judge(grown_scene(growth, (64, 80, 80), seed, gaps=8), trace) for seed in range(12)]
    gaps = sum(outcome.gaps for outcome in outcomes)
    assert gaps > 60
    assert sum(outcome.bridged for outcome in outcomes) >= 0.9 * gaps


def test_neurons_that_do_not_touch_are_hardly_ever_joined() -> None:
    growth = GrowthSettings(neurons=(2, 2), crossings=(0, 0), touches=(0, 0), clearance=2.5)
    joined = {0: 0, 20: 0}
    for seed in range(10):
        for gaps in joined:
            scene = grown_scene(growth, (96, 96, 96), seed, gaps)
            outcome = judge(scene, trace)
            joined[gaps] += 0 if outcome.crossings else outcome.joined > 0
            assert gaps or max(outcome.parts) == 1
    assert joined[0] <= 1
    assert joined[20] <= 3


def test_fibres_through_neurons_are_taken_apart_more_often_than_not() -> None:
    growth = GrowthSettings(crossings=(1, 1), **ONE)
    outcomes = [judge(grown_scene(growth, (64, 80, 80), seed), trace) for seed in range(16)]
    crossings = sum(outcome.crossings for outcome in outcomes)
    assert crossings >= 16
    assert sum(outcome.joined for outcome in outcomes) <= 0.55 * crossings


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
