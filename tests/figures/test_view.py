"""``neurino view``: one case, folders, broken files, pictures."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_neurino.cli.main import main
from nnunet_neurino.figures import load_case, match_cases
from nnunet_neurino.images import write_tiff
from nnunet_neurino.swc import write_swc
from nnunet_neurino.synth import SynthVolume


@pytest.fixture
def folders(tmp_path: Path, volume: SynthVolume) -> Path:
    for number in (1, 2, 10):
        write_tiff(tmp_path / "images" / f"n{number}_0000.tif", volume.image, volume.spacing)
        write_tiff(tmp_path / "truth" / f"n{number}.tif", volume.mask, volume.spacing)
        write_tiff(tmp_path / "prediction" / f"n{number}.tif", volume.mask * 0.9 * np.float32(1), None)
        (tmp_path / "trees").mkdir(exist_ok=True)
        write_swc(volume.tree, tmp_path / "trees" / f"n{number}.swc")
    return tmp_path


def command(folder: Path, *roles: str) -> list[str]:
    options = {"image": "images", "truth": "truth", "prediction": "prediction", "tree": "trees"}
    return ["view", *(part for role in roles for part in (f"--{role}", str(folder / options[role])))]


def test_folders_become_one_page_with_all_cases_in_natural_order(folders: Path) -> None:
    page = folders / "out" / "page.html"
    assert main([*command(folders, "image", "truth", "prediction", "tree"), "-o", str(page), "--title", "A & B"]) == 0
    text = page.read_text()
    assert text.count("<img ") == 3
    assert [text.index(f">{name}</h2>") for name in ("n1", "n2", "n10")] == sorted(
        text.index(f">{name}</h2>") for name in ("n1", "n2", "n10")
    )
    assert "A &amp; B" in text
    assert "12 x 40 x 48 voxels (z, y, x), voxel size 2 x 0.5 x 0.5" in text


def test_four_digits_that_number_the_cases_are_no_channel(tmp_path: Path) -> None:
    def names(**folders: str) -> dict[str, list[str]]:
        for role, stems in folders.items():
            (tmp_path / role).mkdir(exist_ok=True)
            for old in (tmp_path / role).iterdir():
                old.unlink()
            for stem in stems.split():
                (tmp_path / role / f"{stem}{'.swc' if role == 'tree' else '.tif'}").touch()
        return {name: sorted(files) for name, files in match_cases({r: tmp_path / r for r in folders}).items()}

    both = ["image", "truth"]
    assert names(image="n_0000 n_0001 n_0002", truth="n_0000 n_0001") == {
        "n_0000": both,
        "n_0001": both,
        "n_0002": ["image"],
    }
    assert names(image="n_0001_0000 n_0002_0000", truth="n_0001 n_0002") == {"n_0001": both, "n_0002": both}
    assert names(truth="n_0001 n_0002", tree="n_0001 n_0002") == {
        "n_0001": ["tree", "truth"],
        "n_0002": ["tree", "truth"],
    }
    assert list(names(image="a_0000 a_0001 b_0000 b_0001")) == ["a", "b"]
    assert list(names(image="a_0000")) == ["a"]
    assert list(names(image="n_0000 n_0001 n_0010")) == ["n_0000", "n_0001", "n_0010"]
    assert list(names(image="1\N{SUPERSCRIPT TWO}2 x")) == ["1\N{SUPERSCRIPT TWO}2", "x"]


def test_eight_bit_probabilities_empty_trees_and_numbered_records(tmp_path: Path, volume: SynthVolume) -> None:
    probability = np.where(volume.mask, 200, 40).astype(np.uint8)
    write_tiff(tmp_path / "p_0001.tif", probability, None)
    (tmp_path / "p_0001.json").write_text(json.dumps({"spacing": [4, 0.5, 0.5]}))
    (tmp_path / "t.swc").write_text("# nothing was found\n")
    files = {"prediction": tmp_path / "p_0001.tif", "tree": tmp_path / "t.swc"}
    case = load_case("a", files)
    assert (case.prediction == volume.mask.astype(bool)).all()
    assert case.spacing == (4.0, 0.5, 0.5)
    assert load_case("a", files, threshold=0.1).prediction.all()
    words = [part for role, path in files.items() for part in (f"--{role}", str(path))]
    assert main(["view", *words, "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().count("<img ") == 1


def test_one_case_as_a_picture(folders: Path) -> None:
    target = folders / "one.png"
    image, tree = folders / "images" / "n1_0000.tif", folders / "trees" / "n1.swc"
    assert main(["view", "--image", str(image), "--truth", str(tree), "-o", str(target)]) == 0
    picture = Image.open(target)
    picture.load()
    assert picture.width > 900


def test_a_broken_case_does_not_stop_the_others(folders: Path, capsys) -> None:
    (folders / "truth" / "n2.tif").write_text("broken")
    (folders / "truth" / "n10.tif").unlink()
    page = folders / "page.html"
    assert main([*command(folders, "image", "truth", "tree"), "-o", str(page)]) == 1
    error = capsys.readouterr().err
    assert "n2.tif" in error
    assert "n10: not there: --truth" in error
    assert page.read_text().count("<img ") == 2


def test_images_without_anything_beside_them_are_left_out(folders: Path, capsys) -> None:
    (folders / "truth" / "n10.tif").unlink()
    page = folders / "page.html"
    assert main([*command(folders, "image", "truth"), "-o", str(page)]) == 0
    assert "1 of 3 images" in capsys.readouterr().err
    assert page.read_text().count("<img ") == 2


def test_training_log_on_the_page_and_alone(folders: Path) -> None:
    fold = folders / "model" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "training_log_2026_11_21_00_10_00.txt").write_text("x: Epoch 0 \nx: train_loss -0.5 \nx: val_loss -0.4 \n")
    page = folders / "page.html"
    assert main([*command(folders, "image"), "--training", str(fold), "-o", str(page)]) == 0
    assert page.read_text().count("<img ") == 4
    assert main(["view", "--training", str(fold), "-o", str(folders / "curve.png")]) == 0
    assert Image.open(io.BytesIO((folders / "curve.png").read_bytes())).width > 900


def test_probability_maps_spacing_and_channels(tmp_path: Path, volume: SynthVolume) -> None:
    two = np.stack([np.zeros_like(volume.image), volume.image])
    write_tiff(tmp_path / "two.tif", two, None)
    (tmp_path / "two.json").write_text(json.dumps({"spacing": [4, 0.5, 0.5]}))
    probability = np.where(volume.mask, 0.4, 0.2).astype(np.float32)
    write_tiff(tmp_path / "p.tif", probability, None)
    files = {"image": tmp_path / "two.tif", "prediction": tmp_path / "p.tif"}
    case = load_case("a", files, channel=1, threshold=0.3)
    assert case.spacing == (4.0, 0.5, 0.5)  # nnU-Net's file beside the stack
    assert (case.image == volume.image).all()
    assert (case.prediction == volume.mask.astype(bool)).all()
    assert not load_case("a", files).prediction.any()
    assert load_case("a", files, spacing=(1.0, 1.0, 1.0)).spacing == (1.0, 1.0, 1.0)
    assert list(match_cases(files)) == ["two"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "x.pdf", "--image", "."], "ends in .html or .png"),
        (["-o", "x.html"], "nothing to look at"),
        (["-o", "x.html", "--image", "nowhere.tif"], "nowhere.tif: no such file"),
        (["-o", "x.html", "--features", "m", "--truth", "t"], "--features needs --image"),
        (["-o", "x.html", "--tolerance", "-1", "--image", "."], "--tolerance -1"),
        (["-o", "x.html", "--tolerance", "nan", "--image", "."], "--tolerance nan"),
        (["-o", "x.html", "--training", "."], "no training_log"),
    ],
)
def test_wrong_options_give_one_line(tmp_path: Path, monkeypatch, capsys, options: list[str], words: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["view", *options]) == 1
    error = capsys.readouterr().err.strip()
    assert words in error
    assert "\n" not in error
    assert not list(tmp_path.glob("x.*"))


def test_a_tree_in_unsaid_micrometres_is_suspected(tmp_path: Path, volume: SynthVolume, capsys) -> None:
    write_tiff(tmp_path / "a.tif", volume.image, (0.2, 0.1, 0.1))
    far = replace(volume.tree, xyz=volume.tree.xyz + np.array([60, 50, 20]))
    write_swc(replace(far, unit="unknown"), tmp_path / "far.swc")
    command = ["view", "--image", str(tmp_path / "a.tif"), "-o", str(tmp_path / "page.html")]
    assert main([*command, "--tree", str(tmp_path / "far.swc")]) == 0
    error = capsys.readouterr().err
    assert f"a: {len(far)} of {len(far)} nodes of the traced tree lie outside the image\n" in error
    assert "nodes of the traced tree" in (tmp_path / "page.html").read_text()
    write_tiff(tmp_path / "a.tif", volume.image, (8, 4, 4))
    micrometres = volume.tree.xyz * np.array([4, 4, 8])
    write_swc(replace(volume.tree, xyz=micrometres, unit="unknown"), tmp_path / "um.swc")
    assert main([*command, "--tree", str(tmp_path / "um.swc")]) == 0
    assert "would lie inside if they were micrometres" in capsys.readouterr().err
    write_swc(replace(volume.tree, unit="unknown"), tmp_path / "right.swc")
    assert main([*command, "--tree", str(tmp_path / "right.swc")]) == 0
    assert capsys.readouterr().err == ""


def test_contradicting_voxel_sizes_are_refused(tmp_path: Path, volume: SynthVolume, capsys) -> None:
    write_tiff(tmp_path / "a.tif", volume.image, (2, 0.5, 0.5))
    write_tiff(tmp_path / "b.tif", volume.mask, (1, 1, 1))
    command = ["view", "--image", str(tmp_path / "a.tif"), "--truth", str(tmp_path / "b.tif")]
    command += ["-o", str(tmp_path / "page.html")]
    assert main(command) == 1
    assert "1 1 1 (z y x, micrometres)" in capsys.readouterr().err
    assert main([*command, "--spacing", "2", "0.5", "0.5"]) == 0


def test_wrong_kinds_of_files_give_one_line(folders: Path, capsys) -> None:
    image, mask, tree = folders / "images" / "n1_0000.tif", folders / "truth" / "n1.tif", folders / "trees" / "n1.swc"
    out = ["-o", str(folders / "x.html")]
    for options, words in (
        (["--image", tree], "expected an image stack"),
        (["--image", image, "--tree", mask], "expected an SWC file"),
        (["--image", image, "--truth", folders / "truth"], "files only or folders only"),
        (["--image", image, "--channel", "3"], "--channel 3"),
        (["--image", image, "--prediction", tree, "--tree", tree], "two predicted trees"),
        (["--image", folders / "images", *out[:1], folders / "x.png"], "3 pictures do not fit"),
    ):
        assert main(["view", *map(str, options), *(out if "-o" not in options else [])]) == 1, options
        error = capsys.readouterr().err.strip()
        assert words in error
        assert "\n" not in error
    assert not list(folders.glob("x.*"))
