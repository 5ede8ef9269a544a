"""Pairs of ends: as good as the best of all pairings, which are counted out."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_neurino.tracing.gaps.pairing import best_pairs


def best_of_all(merit: dict[tuple[int, int], float], least: float) -> float:
    """The most by which the pairs of any pairing are better than ``least`` in all."""
    if not merit:
        return 0.0
    (first, value), *rest = merit.items()
    free = {pair: other for pair, other in rest if not set(pair) & set(first)}
    return max(best_of_all(dict(rest), least), value - least + best_of_all(free, least))


def test_two_good_pairs_beat_the_best_one() -> None:
    assert set(best_pairs({(0, 1): -1.0, (2, 3): -9.0, (0, 2): -2.0, (1, 3): -2.0}, -10.0)) == {(0, 2), (1, 3)}
    assert set(best_pairs({(0, 1): -1.0, (0, 2): -1.2, (1, 3): -1.2}, -1.3)) == {(0, 1)}


def test_ends_that_no_pair_is_good_enough_for_stay_alone() -> None:
    assert best_pairs({(0, 1): -3.0, (2, 3): -5.0}, -4.0) == [(0, 1)]
    assert best_pairs({}, 0.0) == []


@pytest.mark.parametrize("ends", [4, 6, 9])
def test_no_pairing_is_better(ends: int) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        possible = [(a, b) for a in range(ends) for b in range(a + 1, ends)]
        some = rng.permutation(possible)[:15].tolist()
        merit = {(a, b): float(rng.uniform(-10, 0)) for a, b in some}
        pairs = best_pairs(merit, -8.0)
        assert len({end for pair in pairs for end in pair}) == 2 * len(pairs)
        assert np.isclose(sum(merit[pair] + 8.0 for pair in pairs), best_of_all(merit, -8.0))
        assert [merit[pair] for pair in pairs] == sorted((merit[pair] for pair in pairs), reverse=True)
