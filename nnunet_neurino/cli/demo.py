"""From nothing to a traced neuron: generate, convert, plan, train, predict, trace, score, and a page about all of it.

Everything goes through the commands that you would type yourself; the page lists them. A demo that was interrupted goes
on where it was, and a finished one is only shown again. No data are downloaded and nothing outside the output folder is
written.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_neurino.demo.page import score_rows, write_page
from nnunet_neurino.demo.steps import run_steps
from nnunet_neurino.demo.workflow import DemoSettings, Workflow
from nnunet_neurino.errors import NeurinoError

EXAMPLE = "  neurino demo --output demo_output"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--output", metavar="DIR", type=Path, default=Path("demo_output"), help="folder (default: demo_output)")
    option("--device", choices=("cuda", "cpu"), help="where to train (default: cuda if there is a GPU, else cpu)")
    option("--seed", type=int, default=DemoSettings.seed, help="of the neurons (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo and print where its page is."""
    settings = DemoSettings(output=args.output.resolve(), device=_device(args.device), seed=args.seed)
    workflow = Workflow(settings)
    workflow.check_folder()
    workflow.check_disk()
    with _ending_tidily():
        seconds = run_steps(workflow.steps(), workflow.stamps)
        page = write_page(workflow, seconds)
    _print_table(workflow)
    print(f"\nThe page: {page}")
    return 0


@contextmanager
def _ending_tidily() -> Iterator[None]:
    """Let a kill or a closed terminal unwind the stack as Ctrl-C does, so that the programs we started end, too.

    Only meanwhile: a process that was forked from one with such a handler may hang when it is told to end.
    """

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, end) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _device(wanted: str | None) -> str:
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise NeurinoError("--device cuda: PyTorch sees no GPU here; leave the option out to train on the CPU")
    return wanted or ("cuda" if available else "cpu")


def _print_table(workflow: Workflow) -> None:
    rows = [[str(cell) for cell in row] for row in score_rows(workflow)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
