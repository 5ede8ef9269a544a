"""Pairs of ends: as good as the best of all pairings where that can be counted."""

from __future__ import annotations

import numpy as np

from nnunet_neurino.tracing.gaps.pairing import best_pairs


def best_of_all(ends: list[int], merit: dict[tuple[int, int], float]) -> float:
    """The greatest merit of any pairing that uses every end."""
    if not ends:
        return 0.0
    first, *rest = ends
    options = [(first, other) for other in rest if (first, other) in merit]
    return max(
        (merit[pair] + best_of_all([e for e in rest if e != pair[1]], merit) for pair in options), default=-np.inf
    )


def test_two_good_pairs_beat_the_best_one() -> None:
    assert set(best_pairs({(0, 1): -1.0, (2, 3): -9.0, (0, 2): -2.0, (1, 3): -2.0})) == {(0, 2), (1, 3)}
    assert set(best_pairs({(0, 1): -1.0, (0, 2): -1.2, (1, 3): -1.2})) == {(0, 1)}


def test_four_ends_are_paired_as_well_as_can_be() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        merit = {(a, b): float(rng.uniform(-10, 0)) for a in range(4) for b in range(a + 1, 4)}
        pairs = best_pairs(merit)
        assert len({end for pair in pairs for end in pair}) == 4
        assert np.isclose(sum(merit[pair] for pair in pairs), best_of_all([0, 1, 2, 3], merit))
        assert [merit[pair] for pair in pairs] == sorted((merit[pair] for pair in pairs), reverse=True)
