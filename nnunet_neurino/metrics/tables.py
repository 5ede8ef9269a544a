"""Tables for people: cases and means, two methods side by side, and the layout of the papers' tables."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.metrics.case import CaseScores
from nnunet_neurino.metrics.dataset import DatasetScores
from nnunet_neurino.metrics.scores import SCORES, SHOWN
from nnunet_neurino.metrics.summary import compare, mean_with_interval

_NONE = "-"
_BETTER = {score.name: score.better for score in SCORES}
# Scores of the papers' tables: factor and decimals.
_PUBLISHED = {"f1": (100.0, 2), "hd95": (1.0, 2), "esa": (1.0, 2), "dsa": (1.0, 2), "pds": (1.0, 3)}
_Results = dict[str, dict[str, float | None]]  # scores of a method: data set, score


def case_table(scores: CaseScores) -> str:
    """All defined scores of one case with their meaning, then why the others are undefined."""
    rows = [(s.name, _number(scores.scores[s.name]), s.meaning) for s in SCORES if scores.scores[s.name] is not None]
    lines = [_grid([("score", "value", "meaning"), *rows], left=(0, 2))]
    lines += [f"undefined ({kind}): {reason}" for kind, reason in scores.reasons.items()]
    return "\n".join(lines)


def dataset_table(result: DatasetScores) -> str:
    """A row a case, then the mean and its 95 % bootstrap interval; only columns that some case has."""
    names = [name for name in SHOWN if any(v is not None for v in result.column(name).values())]
    rows = [("case", *names)]
    rows += [(case, *(_number(scores.scores[n]) for n in names)) for case, scores in result.cases.items()]
    means = [mean_with_interval(list(result.column(name).values())) for name in names]
    rows.append(("mean", *(_number(m.mean) for m in means)))
    rows.append(("95 % low", *(_number(m.low) for m in means)))
    rows.append(("95 % high", *(_number(m.high) for m in means)))
    if any(m.n_undefined for m in means):
        rows.append(("undefined", *(str(m.n_undefined) for m in means)))
    return _grid(rows, rule_before=len(result.cases) + 1)


def comparison_table(first: DatasetScores, second: DatasetScores, names: tuple[str, str]) -> str:
    """Both means, the paired difference with its interval, and the Wilcoxon test, a row a score."""
    rows: list[tuple[str, ...]] = [("score", *names, "difference", "95 % low", "95 % high", "Wilcoxon p", "cases")]
    for score in SHOWN:
        a, b = first.column(score), second.column(score)
        paired = compare(a, b)
        if not paired.n:
            continue
        common = [case for case in a if case in b and a[case] is not None and b[case] is not None]
        means = [mean_with_interval([side[case] for case in common]).mean for side in (a, b)]
        interval = (paired.difference, paired.low, paired.high, paired.p)
        rows.append((score, *map(_number, means), *map(_number, interval), str(paired.n)))
    return _grid(rows)


def papers_tables(folder: Path) -> str:
    """The layout of the papers' tables (NeurINO's 6 and 7) from a folder METHOD/DATASET/scores.json.

    Raises:
        NeurinoError: there is no such file, or one cannot be read.
    """
    found: dict[str, _Results] = {}
    datasets: list[str] = []
    for path in sorted(folder.glob("*/*/scores.json")):
        method, dataset = path.parent.parent.name, path.parent.name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found.setdefault(method, {})[dataset] = {k: _score(content.get(k)) for k in _PUBLISHED}
        except (ValueError, TypeError, AttributeError) as error:
            raise NeurinoError(f"{path}: not a scores.json of neurino evaluate ({error}); make it again") from error
        if dataset not in datasets:
            datasets.append(dataset)
    if not found:
        raise NeurinoError(
            f"{folder}: no METHOD/DATASET/scores.json; make them with neurino evaluate PRED TRUTH --output DIR"
        )
    return "\n".join(
        [
            "Segmentation: F1 (%) / HD95 (voxels, both directions pooled); * best",
            _method_table(found, datasets, ("f1", "hd95")),
            "",
            "Tracing: ESA / DSA (voxels) / PDS (0 to 1), both directions; * best",
            _method_table(found, datasets, ("esa", "dsa", "pds")),
        ]
    )


def _score(value: object) -> float | None:
    """A score as it stands in a scores.json: a finite number or null."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no score")
    return float(value)


def _method_table(found: dict[str, _Results], datasets: Sequence[str], scores: Sequence[str]) -> str:
    def cell(results: _Results, dataset: str, score: str) -> str:
        value = results.get(dataset, {}).get(score)
        if value is None:
            return _NONE
        factor, places = _PUBLISHED[score]
        others = (v for one in found.values() if (v := one.get(dataset, {}).get(score)) is not None)
        best = max(others) if _BETTER[score] == "higher" else min(others)
        return f"{factor * value:.{places}f}" + ("*" if value == best else "")

    rows = [("method", *datasets)]
    for method, results in found.items():
        cells = ("/".join(cell(results, dataset, score) for score in scores) for dataset in datasets)
        rows.append((method, *cells))
    return _grid(rows)


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:d}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1 else f"{value:.3f}"


def _grid(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,), rule_before: int | None = None) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        if number in (1, rule_before):
            lines.append("  ".join("-" * width for width in widths))
        cells = (c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
