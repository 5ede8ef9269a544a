"""Folders of small neurons in noisy images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conversion_helpers import neuron, picture_of

from nnunet_neurino.images import write_tiff
from nnunet_neurino.swc import Tree, write_swc


@pytest.fixture
def make_pairs(tmp_path: Path) -> Callable[..., Path]:
    """Write pairs cell0.tif + cell0.swc, ... into a folder; returns the folder."""

    def make(count: int = 3, folder: str = "data", change: Callable[[Tree], Tree] | None = None) -> Path:
        where = tmp_path / folder
        where.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            tree = neuron(i)
            write_tiff(where / f"cell{i}.tif", picture_of(tree, i))
            write_swc(change(tree) if change else tree, where / f"cell{i}.swc")
        return where

    return make
