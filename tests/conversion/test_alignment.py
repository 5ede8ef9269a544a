"""The alignment check finds flips, counting from 1 and micrometres, and leaves alone what it cannot tell."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conversion_helpers import SHAPE, neuron, picture_of

from nnunet_neurino.conversion import check_alignment
from nnunet_neurino.conversion.evidence import doubt
from nnunet_neurino.conversion.placement import Placement
from nnunet_neurino.images import read_stack
from nnunet_neurino.swc import Tree, rasterise, read_swc

FLIPS = ["", "x", "y", "z", "xy", "xz", "yz", "xyz"]


def disturbed(tree: Tree, shape: tuple[int, ...], flips: str, first: int) -> Tree:
    """The tree as a file would hold it whose axes run the other way and whose first voxel has this number."""
    xyz = tree.xyz.copy()
    for axis, name in enumerate("xyz"):
        if name in flips:
            xyz[:, axis] = shape[2 - axis] - 1 - xyz[:, axis]
    return replace(tree, xyz=xyz + first)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


@pytest.mark.parametrize(("flips", "first"), list(itertools.product(FLIPS, (0, 1))))
def test_flips_and_counts_are_found_and_mended(flips: str, first: int):
    tree = neuron(3)
    image, stored = picture_of(tree), disturbed(tree, SHAPE, flips, first)
    alignment = check_alignment(image, stored)
    assert (alignment.best.flips, alignment.best.first) == (flips, first)
    assert alignment.clear
    assert alignment.differs == bool(flips or first)
    mended = alignment.best.apply(stored, SHAPE, None)
    assert np.allclose(mended.xyz, tree.xyz)
    assert dice(rasterise(mended, SHAPE), rasterise(tree, SHAPE)) > 0.99


def test_micrometres_are_told_from_voxels():
    spacing = (1.2, 0.4, 0.4)
    tree = neuron(4)
    image = picture_of(tree)
    stored = replace(tree, xyz=tree.xyz * spacing[::-1], radii=tree.radii * 0.4, unit="unknown")
    alignment = check_alignment(image, stored, spacing)
    assert alignment.best == Placement(micrometre=True)
    mended = alignment.best.apply(stored, SHAPE, spacing)
    assert np.allclose(mended.xyz, tree.xyz)
    assert np.allclose(mended.radii, tree.radii)
    # Declared, they need no proof: the stored placement is right.
    assert not check_alignment(image, replace(stored, unit="micrometre"), spacing).differs
    assert not check_alignment(image, stored, spacing, unit="micrometre").differs
    # And a tracing in voxels stays one.
    assert check_alignment(image, replace(tree, unit="unknown"), spacing).best == Placement()


@pytest.mark.parametrize("seed", range(6))
def test_an_image_without_the_neuron_decides_nothing(seed: int):
    noise = np.random.default_rng(seed).normal(100, 10, SHAPE).astype(np.float32)
    alignment = check_alignment(noise, neuron(seed))
    assert alignment.best == Placement()
    assert not alignment.clear
    assert abs(alignment.stored_contrast - 0.5) < 0.06


def test_a_symmetrical_neuron_decides_nothing():
    z, y = SHAPE[0] // 2, SHAPE[1] // 2
    line = Tree.build([[5, y - 0.5, z - 0.5], [SHAPE[2] - 6, y - 0.5, z - 0.5]], [-1, 0], radii=2)
    alignment = check_alignment(picture_of(line), line)
    assert not alignment.differs
    assert not alignment.clear


def test_two_flips_that_draw_the_same_are_not_told_apart():
    tree = neuron(3)
    mirrored = disturbed(tree, SHAPE, "x", 0)
    image = np.maximum(picture_of(tree), picture_of(mirrored))  # the neuron and its mirror image
    alignment = check_alignment(image, disturbed(tree, SHAPE, "y", 0))
    assert not alignment.differs
    assert alignment.misplaced
    assert alignment.runner_up in (Placement(flips="y"), Placement(flips="xy"))


@pytest.mark.parametrize("length", [2, 6, 15])
def test_doubt_is_honest_for_brightness_that_spreads(length: int):
    rng, wrong = np.random.default_rng(length), 0
    xyz = np.stack([np.arange(300), np.zeros(300), np.zeros(300)], axis=1)
    for _ in range(200):
        gain = np.convolve(rng.normal(size=300 + length - 1), np.ones(length), "valid")
        wrong += doubt(gain, xyz) < 0.05
    assert wrong <= 20


@pytest.mark.parametrize("nodes", [1, 2])
def test_tiny_and_absurd_tracings_do_no_harm(nodes: int):
    image = picture_of(neuron(0))
    for scale in (0.0, 1.0, 1e9, 1e15):
        tree = Tree.build(np.arange(3 * nodes).reshape(nodes, 3) * scale, np.arange(nodes) - 1)
        assert check_alignment(image, tree, (1, 0.5, 0.5)).stored == Placement()


def test_voxel_types_give_the_same_answer():
    tree = neuron(5)
    image = picture_of(tree)
    stored = disturbed(tree, SHAPE, "y", 1)
    answers = {check_alignment(image.astype(t), stored).best for t in ("u1", ">u2", "i2", "f4", "f8")}
    assert answers == {Placement(first=1, flips="y")}


# The same interneuron twice: its tracing lies half a voxel off along x, which looks like counting from 0
# where x is flipped as well. The flip itself is right.
_HALF_A_VOXEL_OFF = {"tuff_ds_intra_in40_tail", "tuff_raw_intra_in40_tail"}


@pytest.mark.parametrize(("flips", "first"), [("y", 0), ("y", 1), ("xz", 1)])  # all: benchmarks/alignment.py
def test_every_shared_pair(shared_data: Path, flips: str, first: int):
    folders = sorted((shared_data / "pairs").iterdir())
    named = 0
    for folder in folders:
        image = read_stack(folder / "image.tif").voxels
        truth = read_swc(folder / "tracing.swc")
        alignment = check_alignment(image, disturbed(truth, image.shape, flips, first))
        assert alignment.best.flips == flips if alignment.clear else not alignment.differs, folder.name
        if alignment.clear and ("x" not in flips or folder.name not in _HALF_A_VOXEL_OFF):
            assert alignment.best.first == first, folder.name
        named += alignment.clear
    assert named >= 0.8 * len(folders)


def test_published_y_up_files_become_the_tracing(shared_data: Path):
    for name in ("rivuletpy_fly_test", "rivuletpy_small_crop", "rivuletpy_small_app2"):
        folder = shared_data / "pairs" / name
        image = read_stack(folder / "image.tif").voxels
        alignment = check_alignment(image, read_swc(folder / "original.swc"))
        mended = alignment.best.apply(read_swc(folder / "original.swc"), image.shape, None)
        truth = rasterise(read_swc(folder / "tracing.swc"), image.shape)
        assert alignment.best.flips == ("" if name.endswith("app2") else "y")
        assert dice(rasterise(mended, image.shape), truth) >= 0.98
    answers = []
    for folder in sorted((shared_data / "pairs").glob("tuff_ds_*")):
        image = read_stack(folder / "image.tif").voxels
        alignment = check_alignment(image, read_swc(folder / "author_scaled_1based_yup.swc"))
        answers.append(alignment.best.flips if alignment.clear else "unsure")
    assert set(answers) <= {"y", "unsure"}
    assert answers.count("y") >= 0.8 * len(answers)
