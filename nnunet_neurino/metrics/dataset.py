"""A folder of predictions against a folder of truths: find the pairs, score each, go on after a broken one."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.metrics.case import CaseOptions, CaseScores, Tracer, score_case
from nnunet_neurino.metrics.scores import NAMES, SCORES
from nnunet_neurino.metrics.subject import case_of, is_scorable, load
from nnunet_neurino.metrics.summary import compare, mean_with_interval


@dataclass(frozen=True)
class Pair:
    """A case: its name, the prediction and the truth; ``None`` where the file is missing."""

    case: str
    pred: Path | None
    truth: Path | None


@dataclass(frozen=True)
class DatasetScores:
    """Scores of all cases of a data set."""

    cases: dict[str, CaseScores]  # scores of each case that could be scored
    failed: dict[str, str]  # for each other case, why not

    def column(self, name: str) -> dict[str, float | None]:
        """One score of every scored case."""
        return {case: scores.scores[name] for case, scores in self.cases.items()}


def find_pairs(pred: Path, truth: Path) -> list[Pair]:
    """Pair the files of two folders by their names without endings; a case of only one folder is a broken one.

    Raises:
        NeurinoError: a folder has nothing to score, or two files for one case.
    """
    sides = []
    for folder in (pred, truth):
        files: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            if not is_scorable(path):
                continue
            case = case_of(path)
            if case in files:
                raise NeurinoError(f"{folder}: {files[case].name} and {path.name} are one case; keep one of them")
            files[case] = path
        if not files:
            raise NeurinoError(
                f"{folder}: no mask or SWC file; expected one a case, such as case_000.tif or case_000.swc"
            )
        sides.append(files)
    ours, theirs = sides
    return [Pair(case, ours.get(case), theirs.get(case)) for case in sorted({*ours, *theirs})]


def score_pairs(
    pairs: Iterable[Pair], tracer: Tracer, options: CaseOptions, spacing: Sequence[float] | None = None
) -> DatasetScores:
    """Score every pair; what cannot be scored is noted and the others are scored."""
    cases: dict[str, CaseScores] = {}
    failed: dict[str, str] = {}
    for pair in pairs:
        if pair.pred is None or pair.truth is None:
            there, missing = ("truth", "prediction") if pair.pred is None else ("prediction", "truth")
            failed[pair.case] = f"there is a {there} but no {missing} of that name"
            continue
        try:
            cases[pair.case] = score_files(pair.pred, pair.truth, tracer, options, spacing)
        except NeurinoError as error:
            failed[pair.case] = str(error)
        except (OSError, MemoryError) as error:
            failed[pair.case] = f"{pair.pred} or {pair.truth}: {error or type(error).__name__}"
    return DatasetScores(cases, failed)


def score_files(
    pred: Path, truth: Path, tracer: Tracer, options: CaseOptions, spacing: Sequence[float] | None = None
) -> CaseScores:
    """Score one file against another; errors name the files."""
    subjects = load(pred, spacing), load(truth, spacing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the tracer's remarks on a mask that the loader has noted
            return score_case(*subjects, tracer, options)
    except NeurinoError as error:
        raise NeurinoError(f"{pred} against {truth}: {error}") from error


def as_json(result: DatasetScores) -> dict[str, Any]:
    """The content of scores.json: means under the scores' names, then intervals, cases, failures and definitions."""
    means = {name: mean_with_interval(list(result.column(name).values())) for name in NAMES}
    return {
        **{name: mean.mean for name, mean in means.items()},
        "summary": {name: asdict(mean) for name, mean in means.items()},
        "cases": {case: case_json(scores) for case, scores in result.cases.items()},
        "failed": result.failed,
        "definitions": {score.name: score.meaning for score in SCORES},
    }


def case_json(scores: CaseScores) -> dict[str, Any]:
    """One case for JSON: the scores under their names, then reasons, notes and the unit of the tree scores."""
    return {**scores.scores, "reasons": scores.reasons, "notes": list(scores.notes), "tree_unit": scores.unit}


def as_csv(result: DatasetScores) -> str:
    """The content of scores.csv: a row a case; undefined scores are empty, failed cases have their message."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", *NAMES, "failed"])
    for case, scores in result.cases.items():
        values = [scores.scores[name] for name in NAMES]
        writer.writerow([case, *("" if v is None else f"{v:.9g}" for v in values), ""])
    for case, message in result.failed.items():
        writer.writerow([case, *[""] * len(NAMES), message])
    return text.getvalue()


def comparison_json(first: DatasetScores, second: DatasetScores) -> dict[str, Any]:
    """Difference, interval and test of every score between two methods, over the cases that both have."""
    return {name: asdict(compare(first.column(name), second.column(name))) for name in NAMES}
