"""A thousand damaged files; benchmarks/fuzz_swc.py runs as many as one likes."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import Tree, read_swc

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


number = st.one_of(
    st.integers(-3, 9).map(str),
    st.floats().map(repr),
    st.sampled_from(["1.0", "1e0", "+2", "NA", "nan", "1,5", "x", "#", "", "1e999", "9" * 25]),
)
row = st.lists(number, min_size=5, max_size=9).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.lists(row, max_size=8).map(lambda rows: "\n".join(rows).encode())))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.swc"
    path.write_bytes(content)
    try:
        tree = read_swc(path, break_circles=True)
    except NeurinoError:
        return
    assert isinstance(tree, Tree)
    assert len(tree) > 0
    assert 1 <= tree.n_pieces <= len(tree)
