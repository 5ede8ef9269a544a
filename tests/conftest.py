"""Fixtures for the whole test suite."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("nnUNet_def_n_proc", "1")  # nnU-Net reads it when it is imported


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Every test, with the fixtures made for it, draws the same numbers in whatever order and company it runs.

    ``NEURINO_TEST_SEED`` gives other numbers: what holds for one seed only is no property of the code.
    """
    seed = int(os.environ.get("NEURINO_TEST_SEED", "0"))
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - nnU-Net and its augmentation draw from this one
    torch.manual_seed(seed)


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


@pytest.fixture(scope="session")
def fuzz() -> ModuleType:
    """benchmarks/fuzz.py: damaged files, and the commands to give them to."""
    pytest.importorskip("resource", reason="needs a POSIX system")
    spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[1] / "benchmarks" / "fuzz.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module
