"""Bootstrap intervals and paired tests against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nnunet_neurino.metrics.summary import compare, mean_with_interval


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=40)
    ours = mean_with_interval(list(values))
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=1).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)
    assert mean_with_interval(list(values)) == ours


def test_undefined_values_are_counted_not_averaged() -> None:
    mean = mean_with_interval([1.0, None, 3.0, None])
    assert (mean.mean, mean.n, mean.n_undefined) == (2.0, 2, 2)
    nothing = mean_with_interval([None, None])
    assert (nothing.mean, nothing.low, nothing.n_undefined) == (None, None, 2)
    assert mean_with_interval([4.0]).low is None


def test_comparison_uses_common_cases() -> None:
    rng = np.random.default_rng(2)
    first = {str(i): float(v) for i, v in enumerate(rng.random(12))}
    second: dict[str, float | None] = {str(i): float(v) for i, v in enumerate(rng.random(14))}
    second["3"] = None
    paired = compare(first, second)
    difference = np.array([first[k] - second[k] for k in first if second[k] is not None])  # type: ignore[operator]
    assert paired.n == 11
    assert paired.difference == pytest.approx(difference.mean())
    assert paired.p == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert paired.low is not None
    assert paired.high is not None
    assert paired.low < difference.mean() < paired.high


def test_comparison_that_says_nothing_gives_the_reason() -> None:
    same = {str(i): float(i) for i in range(9)}
    assert compare(same, same).reason == "all differences are 0"
    assert compare({"a": 1.0}, {"b": 1.0}).reason == "no case has the score in both"
    few = compare({"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 4.0})
    assert few.p is None
    assert "fewer than 6" in str(few.reason)
