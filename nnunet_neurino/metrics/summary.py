"""Means with bootstrap intervals over cases, and the paired comparison of two methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 5000
_SEED = 0


@dataclass(frozen=True)
class Mean:
    """Mean of a score over cases, and its 95 % percentile bootstrap interval (``None`` with fewer than two cases)."""

    mean: float | None  # over the cases where the score is defined; ``None`` if there are none
    low: float | None
    high: float | None
    n: int  # number of cases where it is defined
    n_undefined: int  # number of cases where it is not


@dataclass(frozen=True)
class Paired:
    """Paired comparison of two methods in one score, over the cases where both are defined.

    The interval is the 95 % bootstrap interval of the difference; ``None`` with fewer than two cases.
    """

    difference: float | None  # mean of first minus second; ``None`` if there are no such cases
    low: float | None
    high: float | None
    p: float | None  # two-sided Wilcoxon signed-rank test; ``None`` where it says nothing (see ``reason``)
    n: int  # number of cases
    reason: str | None = None  # why ``p`` is missing


def mean_with_interval(values: Sequence[float | None]) -> Mean:
    """Mean and 95 % bootstrap interval; the same values always give the same interval."""
    defined = np.array([v for v in values if v is not None], dtype=np.float64)
    if not len(defined):
        return Mean(None, None, None, 0, len(values))
    low, high = _interval(defined)
    return Mean(float(defined.mean()), low, high, len(defined), len(values) - len(defined))


def compare(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> Paired:
    """Compare two methods on the cases (keys) that both have."""
    pairs = [(first[case], second[case]) for case in first if case in second]
    both = np.array([(a, b) for a, b in pairs if a is not None and b is not None], dtype=np.float64).reshape(-1, 2)
    difference = both[:, 0] - both[:, 1]
    n = len(difference)
    if not n:
        return Paired(None, None, None, None, 0, "no case has the score in both")
    low, high = _interval(difference)
    p, reason = _wilcoxon(difference)
    return Paired(float(difference.mean()), low, high, p, n, reason)


def _wilcoxon(difference: np.ndarray) -> tuple[float | None, str | None]:
    if not difference.any():
        return None, "all differences are 0"
    if np.count_nonzero(difference) < 6:
        return None, "fewer than 6 cases differ: no result could reach p < 0.05"
    from scipy import stats  # takes half a second to load

    return float(stats.wilcoxon(difference).pvalue), None


def _interval(values: np.ndarray) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    draws = np.random.default_rng(_SEED).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
