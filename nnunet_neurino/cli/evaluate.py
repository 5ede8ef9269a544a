"""Score predictions against truths: masks with masks, SWC trees with SWC trees, or one with the other.

PRED and TRUTH are two files, or two folders with files of the same names. A mask that meets a tree is traced first.
Prints a table. For folders also writes scores.json and scores.csv (means with 95 % bootstrap intervals; into PRED,
or into --output). Undefined scores are null and counted, with the reason. A broken case is reported, the others are
scored, and the exit status is 1. Tree distances are in the unit of the trees (voxels, unless both files are in
micrometres). With --versus, a second method is scored on the same truths and compared case by case. With
--table papers, PRED is a folder METHOD/DATASET/scores.json and the layout of the papers' tables is printed.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_neurino.cli.options import ZYX
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import write_json, write_text
from nnunet_neurino.metrics import dataset, tables
from nnunet_neurino.metrics.case import CaseOptions
from nnunet_neurino.tracing import TRACERS, trace_with

EXAMPLE = """  neurino synth -o synthetic --count 2 --shape 32 64 64
  neurino trace synthetic/masks/case_000.tif -o traced.swc
  neurino evaluate traced.swc synthetic/tracings/case_000.swc --json scores.json
  neurino evaluate synthetic/masks synthetic/tracings --output scores"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("pred", metavar="PRED", type=Path, help="predicted mask or SWC file, or a folder of them")
    option("truth", metavar="TRUTH", type=Path, nargs="?", help="true mask or SWC file, or a folder of them")
    option("--json", metavar="FILE", type=Path, help="write all scores to this file (default: none)")
    text = "folder for scores.json, and scores.csv for folders (default: PRED for folders, none for files)"
    option("--output", metavar="DIR", type=Path, help=text)
    text = "voxel size in micrometres (default: the files'); brings trees in micrometres into voxels"
    option("--spacing", type=float, **ZYX, help=text)
    text = "distance from which on DSA and PDS count a place as different, in the trees' unit (default: 2)"
    option("--threshold", metavar="D", type=float, default=2.0, help=text)
    text = "distance up to which cable is right in the length scores, in the trees' unit (default: 2)"
    option("--tolerance", metavar="D", type=float, default=2.0, help=text)
    option("--trace", action="store_true", help="trace two masks as well and score their trees (default: no)")
    option("--tracer", choices=TRACERS, default="neurino", help="what traces masks (default: neurino, our own)")
    option("--versus", metavar="DIR", type=Path, help="folder of a second method's predictions to compare")
    text = "print the papers' layout from PRED/METHOD/DATASET/scores.json"
    option("--table", choices=["papers", "seeds"], metavar="papers", help=text)


def run(args: argparse.Namespace) -> int:
    """Run ``neurino evaluate``; 0, or 1 when a case could not be scored."""
    if args.table:
        _needs_folder(args.pred)
        print(tables.papers_tables(args.pred))
        return 0
    if args.truth is None:
        raise NeurinoError("TRUTH is missing: give two files or folders, or --table papers with a folder of results")
    for path in filter(None, (args.pred, args.truth, args.versus)):
        if not path.exists():
            raise NeurinoError(f"{path}: no such file or folder; expected masks or SWC files")
    for folder in filter(None, (args.output, args.versus)):
        if folder.exists():
            _needs_folder(folder)
    options = CaseOptions(args.threshold, args.tolerance, args.trace)
    if args.pred.is_dir() != args.truth.is_dir():
        raise NeurinoError(f"{args.pred} and {args.truth}: expected two files or two folders, not one of each")
    if args.pred.is_dir():
        return _folders(args, options)
    return _files(args, options)


def _files(args: argparse.Namespace, options: CaseOptions) -> int:
    if args.versus:
        raise NeurinoError("--versus compares folders; give folders of predictions and truths")
    scores = dataset.score_files(args.pred, args.truth, partial(trace_with, args.tracer), options, args.spacing)
    for note in scores.notes:
        print(f"note: {note}", file=sys.stderr)
    print(tables.case_table(scores))
    _write_json(dataset.case_json(scores), args.json, args.output)
    return 0


def _folders(args: argparse.Namespace, options: CaseOptions) -> int:
    result = _score_folder(args.pred, args, options)
    content = dataset.as_json(result)
    print(tables.dataset_table(result))
    failed = _report_failures(result, args.pred)
    if args.versus:
        other = _score_folder(args.versus, args, options)
        content["versus"] = {"folder": str(args.versus), "paired": dataset.comparison_json(result, other)}
        print(f"\n{args.pred} minus {args.versus}, case by case")
        print(tables.comparison_table(result, other, (args.pred.name, args.versus.name)))
        failed |= _report_failures(other, args.versus)
    folder = args.output or args.pred
    _write_json(content, args.json, folder)
    write_text(folder / "scores.csv", dataset.as_csv(result))
    print(f"\nwritten: {folder / 'scores.json'}, {folder / 'scores.csv'}")
    return 1 if failed else 0


def _score_folder(folder: Path, args: argparse.Namespace, options: CaseOptions) -> dataset.DatasetScores:
    pairs = dataset.find_pairs(folder, args.truth)
    progress = tqdm(pairs, desc=folder.name, unit="case", disable=None)
    return dataset.score_pairs(progress, partial(trace_with, args.tracer), options, args.spacing)


def _report_failures(result: dataset.DatasetScores, folder: Path) -> bool:
    for case, scores in result.cases.items():
        for note in scores.notes:
            if any(word in note for word in ("micrometre", "outside", "probabilit", "prediction fits")):
                print(f"note: {case}: {note}", file=sys.stderr)
    for case, message in result.failed.items():
        print(f"not scored: {folder.name}/{case}: {message}", file=sys.stderr)
    return bool(result.failed)


def _write_json(content: dict[str, Any], file: Path | None, folder: Path | None) -> None:
    """Write the scores to each place where they are wanted."""
    for path in {path for path in (file, folder and folder / "scores.json") if path}:
        write_json(path, content)


def _needs_folder(path: Path) -> None:
    if not path.is_dir():
        raise NeurinoError(f"{path}: not a folder, which was expected; give the name of one")
