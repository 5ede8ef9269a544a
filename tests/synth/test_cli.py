"""``neurino synth``: the folder layout, going on after an interruption, --from-swc, and refusals."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest

from nnunet_neurino.cli.main import main
from nnunet_neurino.images import read_stack
from nnunet_neurino.swc import Tree, rasterise, read_swc, write_swc

SHAPE = ["--shape", "12", "24", "28"]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_layout_spacing_and_agreement_of_tracing_and_mask(tmp_path: Path) -> None:
    command = ["synth", "-o", str(tmp_path), "--count", "2", *SHAPE, "--spacing", "2", "0.5", "0.5"]
    assert main([*command, "--preset", "demo"]) == 0
    assert sorted(digests(tmp_path)) == [
        "images/case_000.tif",
        "images/case_001.tif",
        "masks/case_000.tif",
        "masks/case_001.tif",
        "synth.json",
        "tracings/case_000.swc",
        "tracings/case_001.swc",
    ]
    image = read_stack(tmp_path / "images" / "case_001.tif")
    mask = read_stack(tmp_path / "masks" / "case_001.tif")
    assert image.voxels.shape == mask.voxels.shape == (12, 24, 28)
    assert image.spacing == pytest.approx((2, 0.5, 0.5))
    tree = read_swc(tmp_path / "tracings" / "case_001.swc")
    again = rasterise(tree, (12, 24, 28), spacing=(2, 0.5, 0.5))
    assert (again == mask.voxels.astype(bool)).all()


def test_same_seed_same_files_and_a_case_does_not_depend_on_the_count(tmp_path: Path) -> None:
    for name, count in (("a", "3"), ("b", "3"), ("c", "1")):
        assert main(["synth", "-o", str(tmp_path / name), "--count", count, "--seed", "5", *SHAPE]) == 0
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert {name: a[name] for name in c} == c
    assert a["images/case_000.tif"] != a["images/case_001.tif"]


def test_goes_on_where_it_was_interrupted_and_refuses_other_options(tmp_path: Path, capsys) -> None:
    command = ["synth", "-o", str(tmp_path), "--count", "3", *SHAPE]
    assert main(command) == 0
    whole = digests(tmp_path)
    (tmp_path / "images" / "case_001.tif").unlink()
    kept = (tmp_path / "images" / "case_002.tif").stat().st_mtime_ns
    assert main(command) == 0
    assert digests(tmp_path) == whole
    assert (tmp_path / "images" / "case_002.tif").stat().st_mtime_ns == kept
    assert main([*command, "--preset", "faint"]) == 1
    assert "made with other options" in capsys.readouterr().err
    assert digests(tmp_path) == whole


def test_from_swc_takes_a_picture_of_the_tracing(tmp_path: Path) -> None:
    xyz = np.stack([np.arange(40) + 100.0, np.full(40, 50.0), np.full(40, 7.0)], axis=1)
    write_swc(Tree.build(xyz, np.arange(40) - 1, radii=2.0, types=2), tmp_path / "mine.swc")
    command = ["synth", "-o", str(tmp_path / "out"), "--from-swc", str(tmp_path / "mine.swc"), "--preset", "demo"]
    assert main(command) == 0
    image = read_stack(tmp_path / "out" / "images" / "case_000.tif").voxels.astype(float)
    mask = read_stack(tmp_path / "out" / "masks" / "case_000.tif").voxels.astype(bool)
    assert image.shape == mask.shape
    assert image[mask].mean() > 2 * image[~mask].mean()
    # A straight tube of radius 2 and its round ends.
    assert mask.sum() == pytest.approx(np.pi * 4 * 39 + 4 / 3 * np.pi * 8, rel=0.05)
    moved = read_swc(tmp_path / "out" / "tracings" / "case_000.swc")
    assert moved.xyz - moved.xyz[0] == pytest.approx(xyz - xyz[0])


def test_from_swc_larger_than_the_shape_is_cut(tmp_path: Path) -> None:
    xyz = np.stack([np.arange(90.0), np.full(90, 3.0), np.full(90, 3.0)], axis=1)
    write_swc(Tree.build(xyz, np.arange(90) - 1, radii=1.0, types=2), tmp_path / "mine.swc")
    for shape, kept in ((("9", "9", "95"), 89.0), (("9", "9", "30"), 29.0)):
        out = tmp_path / shape[2]
        assert main(["synth", "-o", str(out), "--from-swc", str(tmp_path / "mine.swc"), "--shape", *shape]) == 0
        tree = read_swc(out / "tracings" / "case_000.swc")
        assert tree.length == pytest.approx(kept, abs=0.6)
        assert (tree.xyz >= 0).all()
        assert (tree.xyz <= [int(shape[2]) - 1, 8, 8]).all()
        if kept == 89.0:
            assert tree.xyz == pytest.approx(xyz)  # it fits and stays where it is
        mask = read_stack(out / "masks" / "case_000.tif").voxels
        assert mask[:, :, int(shape[2]) // 2].any()


def test_from_swc_in_micrometres_follows_the_spacing(tmp_path: Path) -> None:
    xyz = np.array([[0.0, 0.0, 0.0], [20.0, 0.0, 0.0], [20.0, 0.0, 10.0]])
    write_swc(Tree.build(xyz, [-1, 0, 1], radii=1.0, types=2, unit="micrometre"), tmp_path / "mine.swc")
    command = ["synth", "-o", str(tmp_path / "out"), "--from-swc", str(tmp_path / "mine.swc"), "--unit", "micrometre"]
    assert main([*command, "--spacing", "2", "0.5", "0.5"]) == 0
    moved = read_swc(tmp_path / "out" / "tracings" / "case_000.swc")
    assert np.ptp(moved.xyz, axis=0) == pytest.approx([40, 0, 5])
    assert moved.radii == pytest.approx([2, 2, 2])


def test_blob_writes_images_and_masks_only(tmp_path: Path) -> None:
    assert main(["synth", "-o", str(tmp_path), "--kind", "blob", "--count", "1", "--shape", "24", "24", "24"]) == 0
    assert sorted(digests(tmp_path)) == ["images/case_000.tif", "masks/case_000.tif", "synth.json"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--count", "0"], "--count 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--preset", "stm"], "preset 'stm' is unknown"),
        (["--shape", "2", "9", "9"], "at least 4 voxels"),
        (["--shape", "90000", "90000", "90000"], "GiB of memory"),
        (["--spacing", "1", "0", "1"], "all above 0"),
        (["--spacing", "1000", "1", "1"], "factor of 300"),
        (["--spacing", "inf", "1", "1", "--kind", "blob"], "all above 0"),
        (["--spacing", "1", "nan", "1", "--kind", "blob"], "all above 0"),
        (["--from-swc", "nowhere.swc"], "nowhere.swc: no such file"),
        (["--kind", "blob", "--from-swc", __file__], "exclude each other"),
    ],
)
def test_wrong_options_give_one_line(tmp_path: Path, capsys, options: list[str], words: str) -> None:
    assert main(["synth", "-o", str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error
    assert not list((tmp_path / "out").rglob("*.tif"))


@pytest.mark.parametrize("shape", [[], ["--shape", "16", "20", "24"]])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1 1 0 0 0 1 -1\n2 3 1e308 -1.7e308 5 1 1\n", "no stack reaches"),
        ("# in micrometers\n1 1 900 900 900 1500 -1\n2 3 901 900 900 1 1\n", "radii up to 1.5e+06"),
        ("# in micrometers\n1 1 5 5 5 1 -1\n2 3 6 5 1e307 1 1\n", "no stack reaches"),
    ],
)
def test_from_swc_with_absurd_numbers_gives_one_line(
    tmp_path: Path, capsys, rows: str, words: str, shape: list
) -> None:
    (tmp_path / "far.swc").write_text(rows)
    options = ["--from-swc", str(tmp_path / "far.swc"), "--spacing", "1e-3", "1e-3", "1e-3", *shape]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["synth", "-o", str(tmp_path / "out"), *options]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "far.swc" in error
    assert words in error


def test_from_swc_far_apart_needs_a_shape(tmp_path: Path, capsys) -> None:
    (tmp_path / "far.swc").write_text("1 1 0 0 0 1 -1\n2 3 8e8 5 5 1 1\n")
    command = ["synth", "--from-swc", str(tmp_path / "far.swc")]
    assert main([*command, "-o", str(tmp_path / "a")]) == 1
    assert "give --shape" in capsys.readouterr().err
    assert main([*command, "-o", str(tmp_path / "b"), "--shape", "16", "20", "24"]) == 0


def test_from_swc_that_is_no_swc(tmp_path: Path, capsys) -> None:
    wrong = tmp_path / "wrong.swc"
    wrong.write_text("this is not a neuron\n")
    assert main(["synth", "-o", str(tmp_path / "out"), "--from-swc", str(wrong)]) == 1
    assert "wrong.swc" in capsys.readouterr().err
    empty = tmp_path / "empty.swc"
    empty.write_text("# nothing\n")
    assert main(["synth", "-o", str(tmp_path / "out2"), "--from-swc", str(empty)]) == 1
    assert "empty.swc" in capsys.readouterr().err
