"""Damaged files of every format are read or refused in one line: never another exception, never a hang."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import read_stack

# Raise for a long run: NEURINO_MUTATIONS=20000 pytest tests/images/test_mutations.py
MUTATIONS = int(os.environ.get("NEURINO_MUTATIONS", "120"))


@pytest.mark.parametrize(
    "name", ["zlib.tif", "plain.tif", "lzw.tif", "ome.ome.tif", "a.nii", "a.nrrd", "a.mha", "a.v3draw", "a.v3dpbd"]
)
def test_mutated_files(fuzz: ModuleType, tmp_path: Path, voxels: np.ndarray, name: str):
    whole = fuzz.stack_seeds(tmp_path, voxels)[name]
    rng = np.random.default_rng(sum(name.encode()))
    path, read, refused = tmp_path / f"mutated-{name}", 0, 0
    messages: list[str] = []
    assert np.array_equal(read_stack(tmp_path / name).voxels, voxels.astype(np.uint8) if "lzw" in name else voxels)
    for i in range(MUTATIONS):
        # Half of the damage goes into the header, where it matters most.
        data = fuzz.damaged_bytes(whole[:400], rng) + whole[400:] if i % 2 else fuzz.damaged_bytes(whole, rng)
        path.write_bytes(data)
        try:
            stack = read_stack(path, max_bytes=2**26)
            np.asarray(stack.channels[..., :2])
            read += 1
        except NeurinoError as error:
            refused += 1
            messages.append(str(error))
    assert not [m for m in messages if "\n" in m or str(path) not in m]
    assert read + refused == MUTATIONS
    assert refused > 0
