"""Fixtures for the whole test suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def _find_shared() -> Path | None:
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "data" / "README.md").is_file():
            return folder / "shared"
    return None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' folder of real data and fixtures; the test is skipped where it is absent."""
    folder = _find_shared()
    if folder is None:
        pytest.skip("the developers' folder shared/ (real neuron data) is not on this machine")
    return folder


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """Real neuron data: ``pairs``, ``quirks``, ``swc_only``, ``tree_pairs``; see its README."""
    return shared / "data"
