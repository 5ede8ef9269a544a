"""How many CPU threads PyTorch should use here and now."""

from __future__ import annotations

import os
import time

import torch


def use_fastest_thread_count() -> int:
    """Set PyTorch's threads to ``OMP_NUM_THREADS`` where it is set, else to one or all cores, whichever is faster.

    On a machine that others use, two threads for two cores can be ten times slower than one: they wait for each
    other. Whether that is so is not known in advance, so a short piece of typical work is timed (well under a second).
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        torch.set_num_threads(int(asked))
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seconds = {n: _seconds(n) for n in {1, cores}}
    fastest = min(seconds, key=lambda n: seconds[n])
    torch.set_num_threads(fastest)
    return fastest


def _seconds(n_threads: int) -> float:
    """Time of a few convolutions and matrix products with ``n_threads``: the median of five."""
    torch.set_num_threads(n_threads)
    volume = torch.ones(1, 16, 16, 48, 48)
    kernel = torch.ones(16, 16, 3, 3, 3)
    rows, columns = torch.ones(4096, 96), torch.ones(96, 384)
    times = []
    with torch.no_grad():
        for _ in range(6):
            start = time.perf_counter()
            torch.nn.functional.conv3d(volume, kernel, padding=1)
            for _ in range(4):
                torch.nn.functional.gelu(rows @ columns)
            times.append(time.perf_counter() - start)
    return sorted(times[1:])[2]
