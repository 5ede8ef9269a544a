"""Whole conversions: what is written and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conversion_helpers import OPTIONS, SHAPE, Make, convert, files_of, neuron, picture_of, report_of

from nnunet_neurino.cli.main import main
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import read_stack, write_tiff
from nnunet_neurino.swc import Tree, rasterise, read_swc, write_swc


def test_layout_and_content(make_pairs: Make, tmp_path: Path):
    data = make_pairs(3)
    write_tiff(data / "new.tif", picture_of(neuron(9)))
    assert convert(data, tmp_path / "raw") == 0
    folder = tmp_path / "raw" / "Dataset007_T"
    names = {p for p in files_of(folder) if not p.startswith("conversion/")}
    cases = [f"cell{i}" for i in range(3)]
    expected = {f"imagesTr/{c}_0000.tif" for c in cases} | {f"labelsTr/{c}.tif" for c in cases}
    expected |= {f"{kind}Tr/{c}.json" for c in cases for kind in ("images", "labels")}
    expected |= {"imagesTs/new_0000.tif", "imagesTs/new.json", "dataset.json", "splits_final.json"}
    assert names == expected | {"conversion_report.json", "contact_sheet.png"}
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["overwrite_image_reader_writer"] == "Tiff3DIO"
    assert dataset["numTraining"] == 3
    assert dataset["labels"] == {"background": 0, "neuron": 1}
    assert dataset["channel_names"] == {"0": "microscopy"}
    for i, case in enumerate(cases):
        assert json.loads((folder / "labelsTr" / f"{case}.json").read_text()) == {"spacing": [1.0, 0.5, 0.5]}
        label = tifffile.imread(folder / "labelsTr" / f"{case}.tif")
        tree = read_swc(data / f"{case}.swc")
        assert np.array_equal(label, rasterise(tree, SHAPE, (1, 0.5, 0.5)))
        assert np.array_equal(tifffile.imread(folder / "imagesTr" / f"{case}_0000.tif"), picture_of(neuron(i), i))
    splits = json.loads((folder / "splits_final.json").read_text())
    assert sorted(c for s in splits for c in s["val"]) == cases
    report = report_of(tmp_path / "raw")
    assert [c["case"] for c in report["cases"]] == [*cases, "new"]
    assert report["cases"][0]["foreground"][0] == pytest.approx(
        tifffile.imread(folder / "labelsTr" / "cell0.tif").mean(), abs=1e-8
    )
    assert report["cases"][0]["alignment"]["clear"]


def test_y_up_is_told_and_mended_only_when_asked(make_pairs: Make, tmp_path: Path, capsys: pytest.CaptureFixture):
    def y_up(tree: Tree) -> Tree:
        return replace(tree, xyz=tree.xyz * (1, -1, 1) + (0, SHAPE[1] - 1, 0))

    truth = make_pairs(2, "truth")
    data = make_pairs(2, "yup", y_up)
    assert convert(truth, tmp_path / "a") == 0
    capsys.readouterr()
    assert convert(data, tmp_path / "b") == 1
    told = capsys.readouterr().out
    assert told.count("WARNING: the tracing fits the image better y flipped") == 2
    assert "2 tracings fit better elsewhere (cell0, cell1)" in told
    assert convert(data, tmp_path / "kept", "--keep-orientation") == 0
    assert convert(data, tmp_path / "c", "--fix-orientation") == 0
    for case in ("cell0", "cell1"):
        right, wrong, mended = (
            tifffile.imread(tmp_path / name / "Dataset007_T" / "labelsTr" / f"{case}.tif") > 0 for name in "abc"
        )
        assert 2 * (right & mended).sum() / (right.sum() + mended.sum()) > 0.98
        assert 2 * (right & wrong).sum() / (right.sum() + wrong.sum()) < 0.5
    assert {c["alignment"]["applied"] for c in report_of(tmp_path / "c")["cases"]} == {"y flipped"}


def test_a_bad_case_is_told_and_the_others_are_converted(
    make_pairs: Make, tmp_path: Path, capsys: pytest.CaptureFixture
):
    data = make_pairs(8)
    (data / "cell0.tif").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (data / "cell1.swc").write_bytes(b"")
    far = neuron(2)
    write_swc(replace(far, xyz=far.xyz + 1000), data / "cell2.swc")
    holes = picture_of(neuron(3)).astype(np.float32)
    holes[4, 5, 6] = np.nan
    write_tiff(data / "cell3.tif", holes)
    write_tiff(data / "cell4.tif", np.zeros(SHAPE, np.uint8))
    write_tiff(data / "cell5.tif", np.stack([picture_of(neuron(5))] * 2))
    (data / "cell6.swc").write_bytes(bytes(range(256)))
    assert convert(data, tmp_path / "raw") == 1
    report = report_of(tmp_path / "raw")
    reasons = {c["case"]: c["refused"] for c in report["cases"] if "refused" in c}
    words = ["git lfs pull", "no nodes|empty", "outside the image", "z 4, y 5, x 6 is nan", "every voxel", "2 channels"]
    assert set(reasons) == {f"cell{i}" for i in range(7)}
    for i, word in enumerate(words):
        assert any(w in reasons[f"cell{i}"] for w in word.split("|")), reasons[f"cell{i}"]
    assert report["converted"] == 1
    names = [p.name for p in (tmp_path / "raw" / "Dataset007_T" / "labelsTr").glob("*.tif")]
    assert names == ["cell7.tif"]
    assert capsys.readouterr().out.count("REFUSED") == 7
    # Mended, they are converted on request, and the result is that of a data set that was right at once.
    again = make_pairs(8)
    assert convert(again, tmp_path / "raw") == 1  # finished: not touched without being told
    assert convert(again, tmp_path / "raw", "--resume") == 0
    assert convert(again, tmp_path / "fresh") == 0
    assert files_of(tmp_path / "raw") == files_of(tmp_path / "fresh")


def test_an_empty_label_is_never_silent(make_pairs: Make, tmp_path: Path):
    data = make_pairs(1)
    masks = tmp_path / "masks"
    write_tiff(masks / "cell0.tif", np.zeros(SHAPE, bool))
    options = ["convert", "--images", data, "--masks", masks, "--dataset-id", 7, "--name", "T", "--spacing", 1, 1, 1]
    assert main([str(o) for o in (*options, "--output", tmp_path / "raw")]) == 1
    assert "the label is empty" in report_of(tmp_path / "raw")["cases"][0]["refused"]
    assert main([str(o) for o in (*options, "--output", tmp_path / "kept", "--allow-empty")]) == 0
    write_tiff(masks / "cell0.tif", np.ones((3, 4, 5), np.uint8))
    assert main([str(o) for o in (*options, "--output", tmp_path / "size")]) == 1
    assert "3x4x5" in report_of(tmp_path / "size")["cases"][0]["refused"]


def test_blocks_cut_what_the_whole_shows(make_pairs: Make, tmp_path: Path):
    data = make_pairs(2)
    assert convert(data, tmp_path / "whole") == 0
    cut = ["--block", 10, 32, 32, "--overlap", 2, 8, 8, "--min-foreground", 0.002]
    assert convert(data, tmp_path / "cut", *cut) == 0
    whole, blocks = tmp_path / "whole" / "Dataset007_T", tmp_path / "cut" / "Dataset007_T"
    report = report_of(tmp_path / "cut")
    kept = 0
    for case in report["cases"]:
        label = tifffile.imread(whole / "labelsTr" / f"{case['case']}.tif")
        image = tifffile.imread(whole / "imagesTr" / f"{case['case']}_0000.tif")
        for name, share in zip(case["written"], case["foreground"], strict=True):
            z, y, x = (
                int(v) for v in name.rpartition("_")[2].replace("z", "").replace("y", " ").replace("x", " ").split()
            )
            box = np.s_[z : z + 10, y : y + 32, x : x + 32]
            part = tifffile.imread(blocks / "labelsTr" / f"{name}.tif")
            assert np.array_equal(part, label[box])
            assert np.array_equal(tifffile.imread(blocks / "imagesTr" / f"{name}_0000.tif"), image[box])
            assert part.mean() == pytest.approx(share, abs=1e-8)
            assert share >= 0.002
            kept += 1
        assert case["blocks_dropped"] > 0
    # Blocks of one neuron are never on both sides.
    for split in json.loads((blocks / "splits_final.json").read_text()):
        assert not {c[:5] for c in split["train"]} & {c[:5] for c in split["val"]}
        assert len(split["train"]) + len(split["val"]) == kept


def test_nifti_and_channels_and_preprocessed_splits(make_pairs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = make_pairs(2)
    for i in range(2):
        both = np.stack([picture_of(neuron(i), i), picture_of(neuron(i), i + 50)])
        write_tiff(data / f"cell{i}.tif", both, (2, 0.7, 0.7))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    arguments = ["convert", "--images", data, "--tracings", data, "--dataset-id", 7, "--name", "T", "--format", "nifti"]
    assert main([str(a) for a in (*arguments, "--channel-names", "signal", "noise")]) == 0
    folder = tmp_path / "raw" / "Dataset007_T"
    stack = read_stack(folder / "imagesTr" / "cell0_0001.nii.gz")
    assert stack.spacing == pytest.approx((2, 0.7, 0.7))
    assert np.array_equal(stack.voxels, picture_of(neuron(0), 50))
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["channel_names"] == {"0": "signal", "1": "noise"}
    assert dataset["overwrite_image_reader_writer"] == "SimpleITKIO"
    splits = (tmp_path / "preprocessed" / "Dataset007_T" / "splits_final.json").read_bytes()
    assert splits == (folder / "splits_final.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--dataset-id", 1000], "--dataset-id"),
        (["--name", "a b"], "--name"),
        (["--spacing", 0, 1, 1], "voxel size"),
        (["--overlap", 1, 1, 1], "--block"),
        (["--block", 4, 4, 4, "--overlap", 4, 0, 0], "--overlap"),
        (["--block", 4, 4, 4, "--min-foreground", 1], "--min-foreground"),
        (["--specimen", "("], "--specimen"),
        (["--folds", 1], "--folds"),
        (["--workers", 0], "--workers"),
        (["--radius", -1], "--radius"),
        (["--radius", "inf"], "--radius"),
        (["--tube-radius", -1], "--tube-radius"),
        (["--minimum-radius", "nan"], "--minimum-radius"),
    ],
)
def test_options_that_cannot_work(
    make_pairs: Make, tmp_path: Path, options: list, word: str, capsys: pytest.CaptureFixture
):
    assert convert(make_pairs(1), tmp_path / "raw", *options) == 1
    assert word in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()


def test_unknown_voxel_size_is_asked_for(make_pairs: Make, tmp_path: Path):
    data = make_pairs(1)
    arguments = ["convert", "--images", data, "--tracings", data, "--dataset-id", 7, "--name", "T"]
    assert main([str(a) for a in (*arguments, "--output", tmp_path / "raw")]) == 1
    assert "--spacing Z Y X" in report_of(tmp_path / "raw")["cases"][0]["refused"]


def test_an_image_of_two_specimens_is_refused(make_pairs: Make, tmp_path: Path):
    data = make_pairs(2)
    shutil.copy(data / "cell0.swc", data / "again.swc")
    rows = "one,cell0.tif,cell0.swc,{}\ntwo,cell0.tif,again.swc,{}\nthree,cell1.tif,cell1.swc,\n"
    table = data / "pairs.csv"
    for specimens, status in ((("", ""), 1), (("fly", "fly"), 0)):
        table.write_text("case,image,tracing,specimen\n" + rows.format(*specimens))
        arguments = ("convert", "--pairs", table, *OPTIONS, "--output", tmp_path / "raw", "--overwrite")
        assert main([str(a) for a in arguments]) == status
        refused = {c["case"]: c["refused"] for c in report_of(tmp_path / "raw")["cases"] if "refused" in c}
        assert set(refused) == ({"one", "two"} if status else set())
        assert all("one specimen" in reason for reason in refused.values())


def test_values_that_float32_cannot_hold_are_refused_or_told(tmp_path: Path):
    voxels = np.random.default_rng(0).integers(0, 9, (4, 8, 8))
    for name, stack in (("large", voxels * 1e300), ("low", (voxels - 2**31).astype(np.int32)), ("fine", voxels / 9)):
        write_tiff(tmp_path / "i" / f"{name}.tif", stack)
    assert main([str(a) for a in ("convert", "--images", tmp_path / "i", *OPTIONS, "--output", tmp_path / "raw")]) == 1
    records = {c["case"]: c for c in report_of(tmp_path / "raw")["cases"]}
    assert "float32" in records["large"]["refused"]
    assert records["low"]["image_findings"] == ["int32 values above 16,777,216 -> rounded to float32"]
    assert records["fine"]["image_findings"] == []


def test_the_users_axes_hold_for_masks_too(tmp_path: Path):
    rng = np.random.default_rng(0)
    image, mask = rng.random((6, 6, 6), dtype=np.float32), rng.random((6, 6, 6)) > 0.8
    write_tiff(tmp_path / "i" / "a.tif", image.T)  # a cube: no other shape betrays the order of the axes
    write_tiff(tmp_path / "m" / "a.tif", mask.T)
    folders = ("--images", tmp_path / "i", "--masks", tmp_path / "m")
    assert main([str(a) for a in ("convert", *folders, *OPTIONS, "--axes", "XYZ", "--output", tmp_path / "raw")]) == 0
    folder = next((tmp_path / "raw").iterdir())
    np.testing.assert_array_equal(tifffile.imread(folder / "imagesTr" / "a_0000.tif"), image)
    np.testing.assert_array_equal(tifffile.imread(folder / "labelsTr" / "a.tif"), mask)


def test_every_shared_pair_converts(shared_data: Path, tmp_path: Path):
    data = tmp_path / "pairs"
    for folder in sorted((shared_data / "pairs").iterdir()):
        (data / folder.name).mkdir(parents=True)
        for name in ("image.tif", "tracing.swc"):
            (data / folder.name / name).symlink_to(folder / name)
    rule = r"^(rivuletpy|app2py|tuff_(?:ds|raw)_i4_2|tuff_(?:ds|raw)_intra_in40|.+)"
    assert convert(data, tmp_path / "raw", "--specimen", rule) == 0
    report = report_of(tmp_path / "raw")
    assert report["converted"] == len(list(data.iterdir())) >= 15
    alignments = [c["alignment"] for c in report["cases"]]
    assert all(a["best"] == "as stored" and not a["misplaced"] for a in alignments)
    assert sum(a["clear"] for a in alignments) >= 0.8 * len(alignments)
    assert all(c["foreground"][0] > 0 for c in report["cases"])


def test_python_callers_get_our_error_only(tmp_path: Path):
    from nnunet_neurino.conversion import ConvertSettings, convert_dataset

    (tmp_path / "Dataset001_a").write_text("a file")
    with pytest.raises(NeurinoError, match="is a file"):
        convert_dataset([], ConvertSettings(1, "a"), tmp_path)
