"""Look at this installation the way nnU-Net will, and name the remedy for each thing that is wrong.

Prints one line a check: "ok", "note" (works, but you may want to know) or "PROBLEM" with what to do about it. The exit
status is 1 when there is a problem.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap

from nnunet_neurino.diagnosis import CHECKS, Level, Result

EXAMPLE = "  neurino doctor\n  neurino doctor --quick    without the checks that start nnU-Net (about 10 s)"

_MARK = {Level.OK: "ok", Level.NOTE: "note", Level.PROBLEM: "PROBLEM"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="leave out the checks that start nnU-Net (default: off)")


def run(args: argparse.Namespace) -> int:
    """Run the checks, print each as it comes, and return 1 if anything is wrong."""
    worst = Level.OK
    for check in CHECKS:
        if args.quick and check.slow:
            continue
        for result in check.look():
            worst = max(worst, result.level)
            _print(result)
    problems = "everything nnU-Net needs is in place" if worst < Level.PROBLEM else "see the lines marked PROBLEM"
    print(f"\n{problems}")
    return 1 if worst >= Level.PROBLEM else 0


def _print(result: Result) -> None:
    width = min(shutil.get_terminal_size().columns, 120)
    indent = " " * 9
    text = f"{_MARK[result.level]:<8} {result.subject}: {result.detail}"
    print(textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))
    if result.remedy:
        remedy = f"{indent}-> {result.remedy}"
        print(textwrap.fill(remedy, width, subsequent_indent=indent + "   ", break_long_words=False))
    sys.stdout.flush()
