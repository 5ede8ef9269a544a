"""The tolerant reader: what is mended, what is refused, and that it says so."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import Tree, inspect_swc, read_swc, text

PLAIN = "1 1 0 0 0 1 -1\n2 3 3 4 0 0.5 1\n3 3 3 4 12 0.25 2\n"


@pytest.fixture
def read(tmp_path: Path):
    """Read SWC text or bytes given as a string."""

    def read_text(content: str | bytes, **options: object) -> Tree:
        path = tmp_path / "neuron.swc"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_swc(path, **options)

    return read_text


def mended(tree: Tree) -> list[tuple[int, str]]:
    return [(finding.line, finding.mended) for finding in tree.findings if finding.mended]


def test_plain_file(read) -> None:
    tree = read(PLAIN, strict=True)
    assert tree.ids.tolist() == [1, 2, 3]
    assert tree.types.tolist() == [1, 3, 3]
    assert tree.xyz.tolist() == [[0, 0, 0], [3, 4, 0], [3, 4, 12]]
    assert tree.radii.tolist() == [1, 0.5, 0.25]
    assert tree.parents.tolist() == [-1, 0, 1]
    assert tree.findings == ()
    assert (tree.n_pieces, tree.length, tree.unit) == (1, 17.0, "unknown")


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        PLAIN.replace(" ", "\t"),
        PLAIN.replace(" ", "  \t ").replace("\n", "  \n"),
        "   " + PLAIN.replace("\n", "\n\n   "),
        "#head\n" + PLAIN.replace("\n", " # tail 1 2 3\n") + "# end",
        PLAIN.encode("utf-8-sig"),
        "# d\u00e9j\u00e0 vu, \u00b5\n".encode("latin-1") + PLAIN.encode(),
        PLAIN.replace("1 1 0 0 0 1 -1", "1.0 1.0e+00 0 -0 0e5 1. -1.000"),
        PLAIN.replace("\n", " 7 8 9 10 11\n"),
    ],
    ids=["crlf", "cr", "no-newline", "tabs", "runs", "indented", "comments", "bom", "latin1", "floats", "eswc"],
)
def test_manners_of_writing_need_no_mending(read, content: str | bytes) -> None:
    assert read(content, strict=True) == read(PLAIN)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace(" ", ","),
        PLAIN.replace(" ", ", "),
        PLAIN.replace(" ", ";"),
        PLAIN.replace("0.5", "0,5").replace("0.25", "0,25"),
        PLAIN.replace("0.5", "0,5").replace("0.25", "0,25").replace(" ", ";"),
        PLAIN.replace("0.5", "0,5").replace("0.25", "0,25").replace("\n", " 1,2,3 7\n"),
        PLAIN.replace(" ", " , ").replace("\n", " ; ; 3\n"),
        "id,type,x,y,z,radius,parent\n" + PLAIN.replace(" ", ","),
        "id type x y z radius parent\n" + PLAIN,
        PLAIN.encode("utf-16"),
    ],
    ids=[
        "commas",
        "comma-blank",
        "semicolons",
        "decimal-comma",
        "european",
        "lists",
        "both",
        "header-csv",
        "header",
        "utf16",
    ],
)
def test_other_separators_are_mended_and_told(read, content: str | bytes) -> None:
    tree = read(content)
    assert tree == read(PLAIN)
    assert mended(tree)
    with pytest.raises(NeurinoError, match="strict"):
        read(content, strict=True)


@pytest.mark.parametrize(
    "row", ["1,2,0.5,,0.5,1,-1,8", "1;2;0.5; ;0.5;1;-1;8", "1 1 1,234.5 2 3 1 -1", "1 1 1,234,567 2 3 1 -1"]
)
def test_no_separator_moves_a_number_into_another_column(read, row: str) -> None:
    with pytest.raises(NeurinoError, match="line 4: expected"):
        read(PLAIN + row + "\n")


@pytest.mark.parametrize(
    ("rows", "parents", "line"),
    [
        ("5 3 0 0 0 1 4\n6 3 1 0 0 1 5\n", [-1, 0], 1),  # parent not in the file
        ("1 1 0 0 0 1 0\n2 3 1 0 0 1 1\n", [-1, 0], 1),  # parent 0 where no node is 0
        ("0 1 0 0 0 1 -2\n2 3 1 0 0 1 0\n", [-1, 0], 1),
        ("0 1 0 0 0 1 0\n1 3 1 0 0 1 0\n", [-1, 0], 1),  # its own parent
        ("1 1 0 0 0 1 NA\n2 3 1 0 0 1 1\n", [-1, 0], 1),
        ("1 1 0 0 0 1 -1\n1 1 0 0 0 1 -1\n2 3 1 0 0 1 1\n", [-1, 0], 2),  # a line twice
        ("1 1 0 0 0 1 -1\n2 3 1 0 0 1 1\n1 1 9 0 0 1 -1\n2 3 8 0 0 1 1\n", [-1, 0, -1, 2], 3),  # two files in one
    ],
)
def test_parents_are_mended(read, rows: str, parents: list[int], line: int) -> None:
    tree = read(rows)
    assert tree.parents.tolist() == parents
    assert line in [at for at, _ in mended(tree)]
    assert len(set(tree.ids.tolist())) == len(tree)
    with pytest.raises(NeurinoError, match="strict"):
        read(rows, strict=True)


def test_zero_is_a_parent_where_it_is_a_node(read) -> None:
    tree = read("0 1 0 0 0 1 -1\n1 3 1 0 0 1 0\n", strict=True)
    assert tree.parents.tolist() == [-1, 0]


def test_children_above_their_parents(read) -> None:
    tree = read("3 3 3 0 0 1 2\n2 3 2 0 0 1 1\n1 1 1 0 0 1 -1\n")
    assert tree.xyz[:, 0].tolist() == [1, 2, 3]
    assert tree.ids.tolist() == [1, 2, 3]
    assert tree.parents.tolist() == [-1, 0, 1]
    assert mended(tree) == [(1, "rows put parents first")]


def test_ids_that_floats_cannot_tell_apart(read) -> None:
    big = 2**53
    tree = read(f"{big} 1 0 0 0 1 -1\n{big + 1} 3 1 0 0 1 {big}\n{big + 2} 3 2 0 0 1 {big + 1}\n")
    assert tree.ids.tolist() == [big, big + 1, big + 2]
    assert tree.parents.tolist() == [-1, 0, 1]


def test_radii(read) -> None:
    tree = read("1 1 0 0 0 nan -1\n2 3 1 0 0 2 1\n3 3 2 0 0 -4 2\n4 3 3 0 0 NA 3\n5 3 4 0 0 3 4\n6 3 4 0 0 0 4\n")
    assert tree.radii.tolist() == [2.5, 2, 2.5, 2.5, 3, 0]
    assert [finding.line for finding in tree.findings if "(also lines 3, 4)" in finding.what] == [1]
    assert any("zero" in finding.what for finding in tree.findings)


@pytest.mark.parametrize(
    ("comment", "unit"),
    [
        ("# All positions and radii in \u00b5m", "micrometre"),
        ("# in micrometers - steps", "micrometre"),
        ("# units: um", "micrometre"),
        ("# tracing in 0-based voxel coordinates of image.tif", "voxel"),
        ("# unit: voxel", "voxel"),
        ("# in pixels; radii in microns", "unknown"),
        ("# sum of umbrellas in umbria", "unknown"),
        ("", "unknown"),
    ],
)
def test_unit_from_the_comments(read, comment: str, unit: str) -> None:
    assert read(f"{comment}\n{PLAIN}").unit == unit


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "no nodes"),
        ("# only\n\n# comments\n", "no nodes"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "git lfs pull"),
        ("../swc/Neuron.swc", "symbolic link"),
        ("<!DOCTYPE html>\n<html>", "web page"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"\x00\x01\x02\x03" * 99, "NUL"),
        (bytes(range(128, 256)) * 9, "line 1"),
        (PLAIN + "4 3 1 2", "line 4: expected 7 columns .* found 4"),
        ("1 2 3\n4 5 6\n", "line 1: expected 7 columns .* found 3"),
        (PLAIN + "asd asda\n", "line 4"),
        (PLAIN + "4 3 1 2 z 1 3\n", "line 4: expected a number in column 5, found 'z'"),
        (PLAIN + "4 3 1 2 nan 1 3\n", "line 4: no stack reaches to the position '1 2 nan'"),
        (PLAIN + "4 3 1 1e15 3 1 3\n", "line 4: no stack reaches to the position"),
        (PLAIN + "4.5 3 1 2 3 1 3\n", "line 4: expected a whole number as id"),
        (PLAIN + "4 3 1 2 3 1 1.5\n", "line 4: expected a whole number as parent"),
        (PLAIN + "inf 3 1 2 3 1 3\n", "line 4: expected a whole number as id"),
        (PLAIN + "99999999999999999999 3 1 2 3 1 3\n", "line 4: the id .* too large"),
        (PLAIN + "1_0 3 1 2 3 1 3\n", "line 4: expected a number in column 1"),
        ("1 1 0 0 0 1 3\n2 1 1 0 0 1 1\n3 1 2 0 0 1 2\n", "line [123]: .* its own ancestor .* 3 nodes"),
        (PLAIN + "4 3 1 2 3 1 5\n5 3 1 2 3 1 4\n6 3 0 0 0 1 4\n", "line [45]: .* its own ancestor .* 2 nodes"),
        ("1" * 100_000, "line 1 is longer"),
        (PLAIN + "# " + "x" * 5_000_000, "line 4 is longer"),
    ],
)
def test_refused_with_one_line(read, tmp_path: Path, content: str | bytes, expected: str) -> None:
    with pytest.raises(NeurinoError, match=expected) as refusal:
        read(content)
    assert "\n" not in str(refusal.value)
    assert str(tmp_path / "neuron.swc") in str(refusal.value)


def test_circles_are_broken_on_demand(read) -> None:
    rows = "1 1 0 0 0 1 2\n2 1 1 0 0 1 1\n3 1 2 0 0 1 2\n4 1 9 0 0 1 6\n5 1 8 0 0 1 4\n6 1 7 0 0 1 5\n"
    tree = read(rows, break_circles=True)
    assert tree.ids[tree.roots].tolist() == [1, 4]
    assert [str(finding) for finding in tree.findings if finding.mended == "made a root"] == [
        "line 1: node 1 is its own ancestor (also lines 4) -> made a root"
    ]
    by_id = {int(tree.ids[a]): int(tree.ids[b]) for a, b in tree.edges()}
    assert by_id == {2: 1, 3: 2, 6: 5, 5: 4}


def test_missing_folder_and_device(tmp_path: Path) -> None:
    for path in (tmp_path / "no.swc", tmp_path, Path(os.devnull), "a\0b"):
        with pytest.raises(NeurinoError):
            read_swc(path)


def test_empty_is_allowed_on_demand(read) -> None:
    tree = read("# nothing found\n", allow_empty=True)
    assert (len(tree), tree.n_pieces, tree.length, tree.xyz.shape) == (0, 0, 0.0, (0, 3))


def test_too_many_nodes(read) -> None:
    assert len(read(PLAIN, max_nodes=3)) == 3
    with pytest.raises(NeurinoError, match="more than 2 nodes"):
        read(PLAIN, max_nodes=2)


def test_too_many_lines(read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_BLOCK_BYTES", 100)
    with pytest.raises(NeurinoError, match="lines; expected at most 3 nodes"):
        read(PLAIN + "\n" * 5000, max_nodes=3)


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.swc"
    with open(path, "wb") as file:
        file.truncate(15 * 10**9)  # a sparse file of the size of 10^9 lines
    with pytest.raises(NeurinoError, match="too large"):
        read_swc(path)


def test_blocks_join_without_a_seam(read, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    lines = ["# head"] + [f"{i} 3 {x:.3f} {y:.2f} 0 1 {i - 1 or -1}" for i, (x, y) in enumerate(rng.random((60, 2)), 1)]
    lines.insert(30, "61 3 1 1 1 1 999")
    for end in ("\n", "\r\n", "\r"):
        whole = read(end.join(lines))
        assert mended(whole) == [(31, "made a root")]
        for size in (7, 64, 65, 100):
            monkeypatch.setattr(text, "_BLOCK_BYTES", size)
            pieces = read(end.join(lines))
            monkeypatch.undo()
            assert pieces == whole
            assert pieces.findings == whole.findings


def test_findings_are_counted_not_repeated_for_ever(read) -> None:
    tree = read("".join(f"{i} 3 {i} 0 0 1 {i + 100000}\n" for i in range(1, 1001)))
    assert tree.n_pieces == 1000
    assert len(tree.findings) < 5
    assert any("(also lines 2, 3, 4, 5, 6 and 994 others)" in finding.what for finding in tree.findings)


def test_inspect_tells_what_the_reader_and_the_shape_tell(tmp_path: Path) -> None:
    path = tmp_path / "touching.swc"
    path.write_text("1 3 0 0 0 1 -1\n2 3 5 0 0 2 1\n3 3 5 0 0 1 -1\n4 3 5 5 0 1 3\n5 3 5 5 0 1 4\n")
    told = [str(finding) for finding in inspect_swc(path)]
    assert any("2 pieces; merge_touching leaves 1" in line for line in told)
    assert any("1 edges have no length" in line for line in told)
