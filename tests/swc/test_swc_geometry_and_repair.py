"""Units, flips, radii and types."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import (
    Tree,
    flip,
    flip_y,
    from_one_based,
    portable_types,
    repair_radii,
    share_inside,
    shift,
    to_micrometres,
    to_voxels,
)

TREE = Tree.build([[1, 2, 3], [4, 5, 6]], [-1, 0], radii=2, unit="voxel")


def test_units_there_and_back() -> None:
    physical = to_micrometres(TREE, (4, 2, 0.5))
    assert physical.xyz.tolist() == [[0.5, 4, 12], [2, 10, 24]]
    assert physical.radii.tolist() == [1, 1]
    assert to_voxels(physical, (4, 2, 0.5)) == TREE
    assert to_voxels(TREE, (4, 2, 0.5)) is TREE
    assert to_micrometres(physical, (1, 1, 1)) is physical
    unknown = replace(physical, unit="unknown")
    assert to_voxels(unknown, (4, 2, 0.5)) == TREE
    with pytest.raises(NeurinoError, match="spacing"):
        to_voxels(physical, (0, 1, 1))
    with pytest.raises(NeurinoError, match=r"beyond 1e\+16"):
        to_micrometres(shift(TREE, (1e12, 0, 0)), (1, 1, 1e5))


def test_flips_and_shifts() -> None:
    assert flip_y(TREE, height=10).xyz.tolist() == [[1, 7, 3], [4, 4, 6]]
    assert flip_y(flip_y(TREE, 10), 10) == TREE
    assert flip(TREE, 2, 7).xyz[:, 2].tolist() == [3, 0]
    assert from_one_based(TREE).xyz[0].tolist() == [0, 1, 2]
    physical = to_micrometres(TREE, (4, 2, 0.5))
    assert flip_y(physical, 10, spacing=2) == to_micrometres(flip_y(TREE, 10), (4, 2, 0.5))


def test_share_inside() -> None:
    assert share_inside(TREE, (7, 6, 5)) == 1
    assert share_inside(TREE, (5, 6, 5)) == 0.5
    assert share_inside(shift(TREE, (1, 0, 0)), (7, 6, 5)) == 1
    assert share_inside(shift(TREE, (1.01, 0, 0)), (7, 6, 5)) == 0.5
    assert share_inside(to_micrometres(TREE, (4, 2, 0.5)), (7, 6, 5), (4, 2, 0.5)) == 1


def test_radii_are_repaired() -> None:
    #   0 - 1 - 2, 0 - 3 - 4, and a piece 5 - 6 without any radius
    tree = Tree.build(np.zeros((7, 3)), [-1, 0, 1, 0, 3, -1, 5], radii=[0, 0, 4, 0, 0, 0, 0])
    repaired = repair_radii(tree, default=0.7)
    assert repaired.radii.tolist() == [4, 4, 4, 4, 4, 0.7, 0.7]
    assert repaired.findings[-1].mended
    assert repair_radii(tree, default=9, scale=0.5, maximum=3).radii.tolist() == [2, 2, 2, 2, 2, 3, 3]
    tree = Tree.build(np.zeros((4, 3)), [-1, 0, 1, 2], radii=[3, 0, 0, 5])
    assert repair_radii(tree).radii.tolist() == [3, 3, 3, 5]
    assert repair_radii(TREE, constant=1.25).radii.tolist() == [1.25, 1.25]
    assert repair_radii(tree, constant=1.25).radii.tolist() == [3, 3, 3, 5]
    assert repair_radii(TREE) == TREE
    assert repair_radii(TREE).findings == ()
    for wrong in ({"default": 0}, {"scale": -1}, {"minimum": 2, "maximum": 1}):
        with pytest.raises(NeurinoError, match="repair_radii"):
            repair_radii(TREE, **wrong)


def test_portable_types_change_no_geometry_and_few_types() -> None:
    tree = Tree.build(np.eye(6, 3), [-1, 0, 1, 2, 2, 4], types=[1, 3, 7, 3, 2, 274])
    portable = portable_types(tree)
    assert portable.types.tolist() == [1, 3, 3, 3, 0, 0]
    assert replace(portable, types=tree.types) == tree
