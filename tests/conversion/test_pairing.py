"""Images and tracings are paired by name rules or a table; what is ambiguous is refused, never guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from nnunet_neurino.conversion import find_cases, read_pairs
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import write_tiff


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    folder.mkdir(exist_ok=True)
    return folder


def pairs(tmp_path: Path, images: list[str], tracings: list[str]) -> tuple[dict[str, str | None], dict[str, str]]:
    """Tracing of each case that can be converted ("" for test cases), and the problems of the others."""
    cases, _ = find_cases(touch(tmp_path / "i", *images), touch(tmp_path / "t", *tracings))
    good = {c.name: c.tracing.name if c.tracing else "" for c in cases if not c.problem}
    return good, {c.name: c.problem for c in cases if c.problem}


@pytest.mark.parametrize(
    ("image", "tracing", "name"),
    [
        ("a.tif", "a.swc", "a"),
        ("a.TIF", "A.SWC", "a"),
        ("a.v3dpbd", "a.v3dpbd.swc", "a"),
        ("a.v3draw", "a.v3draw_x5_app2.swc", "a"),
        ("a.ome.tif", "a.eswc", "a"),
        ("a.nii.gz", "a.swc", "a"),
        ("a_image.tif", "a_gold.swc", "a_image"),
        ("cell 7.tif", "cell 7_manual.swc", "cell_7"),
        ("a.tif", "a-stamped.swc", "a"),
        ("a_ch1.tif", "a.swc", "a_ch1"),
        ("fly1/image.tif", "fly1/tracing.swc", "image"),
        ("fly1/stack.tif", "fly1/whatever.swc", "stack"),
        ("deep/a.tif", "a.swc", "a"),
        ("a_0000.tif", "a.swc", "a"),
    ],
)
def test_names_that_belong_together(tmp_path: Path, image: str, tracing: str, name: str):
    good, problems = pairs(tmp_path, [image], [tracing])
    assert good == {name: Path(tracing).name}
    assert problems == {}


def test_the_best_rule_wins_and_longer_names_go_first(tmp_path: Path):
    images = ["cell1.tif", "cell1_2.tif", "cell12.tif"]
    good, problems = pairs(tmp_path, images, ["cell1_2_app2.swc", "cell12.swc", "cell1.swc"])
    assert good == {"cell1": "cell1.swc", "cell1_2": "cell1_2_app2.swc", "cell12": "cell12.swc"}
    assert problems == {}


def test_folders_name_cases_whose_files_are_all_alike(tmp_path: Path):
    names = [f"fly{i}/image.tif" for i in range(3)]
    good, _ = pairs(tmp_path, names, [n.replace("image.tif", "tracing.swc") for n in names])
    assert list(good) == ["fly0", "fly1", "fly2"]


def test_left_over_images_are_test_cases_but_not_beside_left_over_tracings(tmp_path: Path):
    good, problems = pairs(tmp_path, ["a.tif", "b.tif"], ["a.swc"])
    assert (good, problems) == ({"a": "a.swc", "b": ""}, {})
    good, problems = pairs(tmp_path, [], ["zebra.swc"])
    assert good == {"a": "a.swc"}
    assert set(problems) == {"b", "zebra.swc_unpaired"}
    assert "--pairs" in problems["b"]


def test_unused_tracings_are_told(tmp_path: Path):
    folder = touch(tmp_path / "d", "a.tif", "a.swc", "auto_other.swc")
    cases, notes = find_cases(folder, folder)
    assert [(c.name, c.problem) for c in cases] == [("a", "")]
    assert len(notes) == 1
    assert "auto_other.swc" in notes[0]


@pytest.mark.parametrize(
    ("images", "tracings", "word"),
    [
        (["a.tif"], ["a.swc", "a.eswc"], "2 tracings fit"),
        (["a.tif", "a.v3draw"], ["a.swc"], "fits other images"),
        (["a.tif"], ["a_one.swc", "a_two.swc"], "2 tracings fit"),
        (["a b.tif", "a_b.tif"], ["a b.swc", "a_b.swc"], "case identifier"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path: Path, images: list[str], tracings: list[str], word: str):
    good, problems = pairs(tmp_path, images, tracings)
    assert good == {}
    assert all(word in problem for problem in problems.values())
    assert len(problems) == len(images)


def test_channels_are_grouped(tmp_path: Path):
    folder = touch(tmp_path / "d", "a_0000.tif", "a_0001.tif", "a.swc", "b_0001.tif", "b_0001.swc")
    cases, _ = find_cases(folder, folder)
    assert {c.name: len(c.images) for c in cases} == {"a": 2, "b_0001": 1}
    assert [p.name for p in cases[0].images] == ["a_0000.tif", "a_0001.tif"]


def test_numbered_volumes_with_partners_of_their_own_are_no_channels(tmp_path: Path):
    names = [f"a_{i:04d}" for i in range(4)]
    images = touch(tmp_path / "i", *(f"{n}.tif" for n in names))
    cases, _ = find_cases(images, touch(tmp_path / "t", *(f"{n}.swc" for n in names[:3])))
    assert {c.name: c.tracing.stem if c.tracing else "" for c in cases} == {**{n: n for n in names[:3]}, "a_0003": ""}
    cases, _ = find_cases(images, masks=touch(tmp_path / "m", *(f"{n}.tif" for n in names)))
    assert {c.name: c.mask.stem for c in cases if c.mask} == {n: n for n in names}
    # A tracing named like the first channel's file belongs to all channels.
    cases, _ = find_cases(images, touch(tmp_path / "one", "a_0000.swc"))
    assert [(c.name, len(c.images), bool(c.tracing)) for c in cases] == [("a", 4, True)]


def test_masks(tmp_path: Path):
    cases, _ = find_cases(touch(tmp_path / "i", "a.tif", "b.tif"), masks=touch(tmp_path / "m", "a_mask.tif", "b.tif"))
    assert {c.name: c.mask.name for c in cases if c.mask} == {"a": "a_mask.tif", "b": "b.tif"}


def test_missing_and_empty_folders_are_refused(tmp_path: Path):
    empty, full = touch(tmp_path / "e"), touch(tmp_path / "f", "a.tif")
    with pytest.raises(NeurinoError, match="no image stacks"):
        find_cases(empty, full)
    with pytest.raises(NeurinoError, match="no tracings"):
        find_cases(full, empty)
    with pytest.raises(NeurinoError, match="no such folder"):
        find_cases(tmp_path / "nowhere", full)


def test_a_table(tmp_path: Path):
    table = tmp_path / "pairs.csv"
    table.write_text(
        "\ufeffcase,Image,tracing,specimen,set\n"
        "one,i/a.tif,t/b.swc,mouse1,train\n"
        "two,i/c0.tif;i/c1.tif,t/c.swc,mouse1,\n"
        ",i/d.tif,,,\n"
        "five,i/e.tif,t/e.swc,,test\n",
        encoding="utf-8",
    )
    cases = {c.name: c for c in read_pairs(table)}
    assert set(cases) == {"one", "two", "d", "five"}
    assert not [c.problem for c in cases.values() if c.problem]
    assert cases["one"].tracing == tmp_path / "t" / "b.swc"
    assert len(cases["two"].images) == 2
    assert (cases["one"].specimen, cases["two"].specimen) == ("mouse1", "mouse1")
    assert [n for n, c in cases.items() if c.test] == ["d", "five"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "columns none"),
        ("picture,tracing\na,b\n", "columns picture"),
        ("image,tracing\n", "no rows"),
        ("image,colour\na.tif,red\n", "expected image"),
        ("image;tracing\na.tif;a.swc\n", "separated by commas"),
        ("image,tracing,image\na.tif,a.swc,b.tif\n", "each once"),
        ("image,tracing\n,\n\n", "no rows"),
        ("image,tracing\na\0.tif,a.swc\n", "NUL"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, word: str):
    table = tmp_path / "pairs.csv"
    table.write_text(text)
    with pytest.raises(NeurinoError, match=word):
        read_pairs(table)
    table.write_bytes(b"\xff\xfe\x00image")
    with pytest.raises(NeurinoError, match="CSV"):
        read_pairs(table)


def test_rows_that_are_refused(tmp_path: Path):
    table = tmp_path / "pairs.csv"
    table.write_text(
        "case,image,tracing,mask,set\na,,x.swc,,\nb,b.tif,b.swc,m.tif,\nc,c.tif,,,train\nd,d.tif,d.swc,,maybe\n"
        "e,e.tif,same.swc,,\nf,f.tif,same.swc,,\ng,g.tif,g.swc,,\nG,h.tif,h.swc,,\ngood,z.tif,z.swc,,\n"
        ",,,,\r\n\r\ni,a,comma.tif,i.swc,,train\n",
        newline="",
    )
    cases = read_pairs(table)
    assert [c.name for c in cases if not c.problem] == ["good"]
    assert len(cases) == 10
    assert "line 13: more cells" in next(c.problem for c in cases if c.name == "i")


def test_numbered_stacks_are_no_slices_and_slices_are_one_stack(tmp_path: Path):
    plane = np.random.default_rng(0).integers(0, 255, (6, 7), dtype=np.uint8)
    for i in range(3):
        write_tiff(tmp_path / "i" / "mouse1" / f"cell{i}.tif", np.stack([plane] * 4))
        (tmp_path / "i" / "neuron").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "i" / "neuron" / f"z{i}.tif", plane)
    touch(tmp_path / "t", *[f"cell{i}.swc" for i in range(3)], "neuron.swc")
    cases, _ = find_cases(tmp_path / "i", tmp_path / "t")
    assert [(c.name, c.problem) for c in cases] == [("cell0", ""), ("cell1", ""), ("cell2", ""), ("neuron", "")]
    assert cases[3].images == (tmp_path / "i" / "neuron",)
    assert cases[3].tracing == tmp_path / "t" / "neuron.swc"
    with pytest.raises(NeurinoError, match="the folder above"):
        find_cases(tmp_path / "i" / "neuron", tmp_path / "t")
