"""Gaps and crossings by the number: how many are bridged, how many neurons are joined that should not be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from crossing_scenes import fibre_scene, fibres_joined, grown_scene, judge

from nnunet_neurino.metrics import tree_connectivity_scores
from nnunet_neurino.synth import GrowthSettings, generate, preset
from nnunet_neurino.tracing import TraceSettings, trace

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


def run_length(growth: GrowthSettings, seeds: range, settings: TraceSettings) -> float:
    """Mean normalised expected run length of generated stacks as the demo's, traced from their exact masks."""
    demo = replace(preset("demo", shape=(40, 96, 96), spacing=(1.0, 0.5, 0.5)), growth=growth)
    scores = []
    for seed in seeds:
        volume = generate(demo, seed)
        traced = trace(volume.mask > 0, (1.0, 0.5, 0.5), settings=settings)
        scores.append(tree_connectivity_scores(traced, volume.tree).nerl or 0.0)
    return float(np.mean(scores))


def test_single_neurons_are_left_whole() -> None:
    growth, seeds = replace(preset("demo").growth, neurons=(1, 1), crossings=(0, 0)), range(901, 921)
    joined = run_length(growth, seeds, TraceSettings(neurons=1))
    assert joined > 0.97
    assert run_length(growth, seeds, TraceSettings()) == joined


@pytest.mark.parametrize(
    ("clearance", "gaps", "allowed"), [(2.5, True, 1), (1.0, True, 6), (-1.0, False, 2), (-1.0, True, 8)]
)
def test_passing_neurites_are_not_joined(clearance: float, gaps: bool, allowed: int) -> None:
    joined = 0
    for seed in range(20):
        trees, mask = fibre_scene(seed, clearance, gaps)
        joined += fibres_joined(trees, trace(mask))
    assert joined <= allowed
