"""Converting several cases at a time, in processes that end with their parent."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from nnunet_neurino.conversion.case import convert_case
from nnunet_neurino.conversion.record import Record, Refusal
from nnunet_neurino.conversion.settings import Case, ConvertSettings
from nnunet_neurino.errors import NeurinoError


def convert_cases(
    cases: Sequence[Case], settings: ConvertSettings, folder: Path, workers: int
) -> Iterator[Record | Refusal]:
    """Convert ``cases`` into the data set ``folder`` and yield what became of each, in the order they are done."""
    if workers <= 1 or len(cases) <= 1:
        yield from (convert_case(case, settings, folder) for case in cases)
        return
    # Started afresh, not forked: image libraries run threads of their own.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(cases)), mp_context=context, initializer=_obey_the_parent) as pool:
        jobs = [pool.submit(convert_case, case, settings, folder) for case in cases]
        try:
            yield from (job.result() for job in as_completed(jobs))
        except BrokenProcessPool:
            raise NeurinoError(
                "a worker was ended by the system, most likely for want of memory; run the same command again with "
                "fewer --workers: it goes on"
            ) from None
        finally:
            for job in jobs:
                job.cancel()


def default_workers(n_cases: int) -> int:
    """Up to four, and no more than there are processors or cases."""
    return max(1, min(4, os.cpu_count() or 1, n_cases))


def _obey_the_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and ends with it, also when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
