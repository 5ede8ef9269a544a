"""A tracing of a larger volume is put onto the part that was cut out, and never onto an image that is not its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conversion_helpers import SHAPE, neuron, picture_of

from nnunet_neurino.cli.main import main
from nnunet_neurino.conversion import check_alignment
from nnunet_neurino.images import read_stack, write_tiff
from nnunet_neurino.swc import rasterise, read_swc, write_swc

AWAY = np.array([300, -40, 7])


@pytest.mark.parametrize("flips", ["", "y", "xz"])
@pytest.mark.parametrize("reduce", [False, True])
def test_the_cut_is_found(flips: str, reduce: bool, monkeypatch: pytest.MonkeyPatch):
    if reduce:  # a coarse search grid, as for large images
        monkeypatch.setattr("nnunet_neurino.conversion.offset._MOST_IMAGE", 20_000)
    tree = neuron(1)
    stored = tree.xyz.copy()
    for axis, name in enumerate("xyz"):
        if name in flips:
            stored[:, axis] = SHAPE[2 - axis] - 1 - stored[:, axis]
    stored += AWAY
    alignment = check_alignment(picture_of(tree), replace(tree, xyz=stored))
    assert alignment.best.flips == flips
    assert alignment.inside < 0.1
    assert np.allclose(alignment.best.apply(replace(tree, xyz=stored), SHAPE, None).xyz, tree.xyz)


def test_nothing_is_found_in_other_images():
    tree = neuron(1)
    away = replace(tree, xyz=tree.xyz + AWAY)
    noise = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
    assert not check_alignment(noise, away).differs
    assert not check_alignment(picture_of(neuron(5)), away).differs
    huge = replace(tree, xyz=tree.xyz * 1e5)
    assert not check_alignment(picture_of(tree), huge).differs


def test_conversion_tells_and_applies(tmp_path: Path):
    tree, data = neuron(2), tmp_path / "data"
    write_tiff(data / "a.tif", picture_of(tree))
    write_swc(replace(tree, xyz=tree.xyz + AWAY), data / "a.swc")
    options = ["--images", data, "--tracings", data, "--dataset-id", 7, "--name", "T", "--spacing", 1, 1, 1]
    command = ["convert", *map(str, options), "--output"]
    assert main([*command, str(tmp_path / "told")]) == 1
    text = (tmp_path / "told" / "Dataset007_T" / "conversion_report.json").read_text()
    assert "shifted by x -300, y 40, z -7 voxels: --fix-orientation" in text
    assert main([*command, str(tmp_path / "mended"), "--fix-orientation"]) == 0
    label = read_stack(tmp_path / "mended" / "Dataset007_T" / "labelsTr" / "a.tif").voxels
    assert np.array_equal(label, rasterise(tree, SHAPE))


@pytest.mark.parametrize(
    ("name", "file", "flips"),
    [
        ("tuff_raw_i4_2", "original_uncropped_yup.swc", "y"),
        ("pyneutube_fmost_crop", "original_uncropped.swc", ""),
    ],
)
def test_published_tracings_of_larger_volumes(shared_data: Path, name: str, file: str, flips: str):
    folder = shared_data / "pairs" / name
    image, stored = read_stack(folder / "image.tif").voxels, read_swc(folder / file)
    best = check_alignment(image, stored).best
    assert best.flips == flips
    a = rasterise(best.apply(stored, image.shape, None), image.shape)
    b = rasterise(read_swc(folder / "tracing.swc"), image.shape)
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) >= 0.98
