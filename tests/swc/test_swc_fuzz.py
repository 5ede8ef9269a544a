"""A thousand damaged files; benchmarks/fuzz_swc.py runs as many as one likes."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_swc.py"


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs a POSIX alarm clock")
def test_damaged_files_are_read_or_refused() -> None:
    spec = importlib.util.spec_from_file_location("fuzz_swc", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    counts, failures = fuzz.run(1000, list(fuzz.SEEDS))
    assert failures == []
    assert sum(counts.values()) == 1000
    assert min(counts["read"], counts["refused"]) > 100  # neither so tame nor so wild that nothing is tested
