"""A thousand damaged files through the functions of the folder; tests/package/test_fuzz.py has the commands."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import Tree, Unit, merge_touching, rasterise, read_swc, repair_radii, resample, to_voxels


def test_damaged_files_are_read_or_refused(fuzz: ModuleType, tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in range(1000):
            with fuzz.alarm():
                counts[fuzz.exercise(fuzz.damaged_swc(list(fuzz.SEEDS), case), tmp_path)] += 1
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


def test_numbers_near_the_largest_give_our_error_or_none() -> None:
    """Trees that damaged files never make: every number may be as large as a tree can hold."""
    rng = np.random.default_rng(0)
    numbers = [0, 1, -1, 1e-300, 1e9, 1e16, -1e16, 5e-324, 0.5, 30]
    work: list[Callable[[Tree], object]] = [
        lambda tree: rasterise(tree, (4, 5, 6), (2, 0.5, 0.5), "distance"),
        lambda tree: rasterise(tree, (4, 5, 6), (2, 0.5, 0.5)),
        lambda tree: resample(tree, 0.2),
        lambda tree: merge_touching(tree, 0.5),
        lambda tree: repair_radii(tree, scale=1e10),
        lambda tree: to_voxels(tree, (1e-5, 1, 1)),
    ]
    for k in range(60):
        parents = np.array([-1] + [int(rng.integers(-1, i)) for i in range(1, 5)])
        radii = np.abs(rng.choice(numbers, 5))
        radii[0] = 1e16 if k % 2 == 0 else radii[0]
        unit: Unit = "micrometre" if k % 3 else "voxel"
        xyz = rng.choice(numbers, (5, 3)) if k % 4 else rng.random((5, 3))
        tree = Tree.build(xyz, parents, radii, unit=unit)
        for one in work:
            with contextlib.suppress(NeurinoError), warnings.catch_warnings():
                warnings.simplefilter("error")
                one(tree)
