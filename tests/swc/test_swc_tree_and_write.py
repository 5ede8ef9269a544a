"""The Tree type, and files that read back exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.skeleton.graph import depths
from nnunet_neurino.swc import Tree, portable_types, read_swc, take, write_swc
from nnunet_neurino.swc.tree import circle_nodes

position = st.floats(-1e9, 1e9)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Any forest in any row order."""
    n = draw(st.integers(1, 9))
    parents = [draw(st.integers(-1, row - 1)) for row in range(n)]
    tree = Tree.build(
        draw(st.lists(st.tuples(position, position, position), min_size=n, max_size=n)),
        parents,
        radii=draw(st.lists(st.floats(0, 1000), min_size=n, max_size=n)),
        types=draw(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=n, max_size=n)),
        unit=draw(st.sampled_from(["voxel", "micrometre", "unknown"])),
    )
    return take(tree, np.array(draw(st.permutations(range(n)))))


@settings(max_examples=150, deadline=None)
@given(trees())
def test_read_of_write_is_exact(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.swc"
    write_swc(tree, path)
    again = read_swc(path, strict=True)
    assert again == tree
    assert again.ids.tolist() == list(range(1, len(tree) + 1))
    first = path.read_bytes()
    write_swc(again, path)
    assert path.read_bytes() == first


def test_file_form(tmp_path: Path) -> None:
    tree = Tree(np.array([70, 5]), np.array([3, 1]), np.array([[0.1, 2, 1e-7], [1, 2, 3]]), [1, 2], [1, -1], "voxel")
    write_swc(tree, tmp_path / "new" / "a.swc", comments=["made by a test\nin two lines"])
    assert (tmp_path / "new" / "a.swc").read_bytes() == (
        b"# made by a test\n# in two lines\n# unit: voxel\n# id type x y z radius parent\n"
        b"1 1 1.0 2.0 3.0 2.0 -1\n2 3 0.1 2.0 1e-07 1.0 1\n"
    )


def test_many_nodes_are_written_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunet_neurino.swc import write

    tree = Tree.build(np.random.default_rng(0).normal(size=(23, 3)), np.arange(-1, 22))
    write_swc(tree, tmp_path / "one.swc")
    monkeypatch.setattr(write, "_ROWS_A_BLOCK", 5)
    write_swc(tree, tmp_path / "many.swc")
    assert (tmp_path / "many.swc").read_bytes() == (tmp_path / "one.swc").read_bytes()


def test_unwritable_place_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NeurinoError, match="cannot be written"):
        write_swc(Tree.build([[0, 0, 0]], [-1]), tmp_path / "file" / "neuron.swc")


def test_empty_tree_round_trip(tmp_path: Path) -> None:
    empty = Tree([], [], [], [], [])
    write_swc(empty, tmp_path / "empty.swc")
    assert read_swc(tmp_path / "empty.swc", allow_empty=True) == empty


def test_equality_looks_at_nodes_not_names_nor_history() -> None:
    tree = Tree.build([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [-1, 0, 0])
    assert replace(tree, ids=np.array([9, 8, 7])) == tree
    assert take(tree, np.array([1, 0, 2])) == tree
    assert replace(tree, unit="micrometre") != tree
    assert replace(tree, radii=np.array([1, 1, 2])) != tree
    assert replace(tree, parents=np.array([-1, 0, 1])) != tree
    assert tree != "tree"


@pytest.mark.parametrize(
    "change",
    [
        {"parents": [0, 0, 1]},
        {"parents": [-1, 2, 1]},
        {"parents": [-1, 0, 3]},
        {"parents": [-2, 0, 1]},
        {"ids": [1, 1, 2]},
        {"radii": [1, 1, -1]},
        {"radii": [1, 1, np.nan]},
        {"xyz": [[0, 0, 0], [1, 0, 0], [np.inf, 0, 0]]},
        {"xyz": [[0, 0], [1, 0], [2, 0]]},
        {"unit": "inch"},
    ],
)
def test_impossible_trees_cannot_be_made(change: dict) -> None:
    tree = Tree.build([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [-1, 0, 1])
    with pytest.raises(ValueError, match="Tree"):
        replace(tree, **change)


def test_arrays_are_copied_and_locked() -> None:
    xyz = np.zeros((2, 3))
    tree = Tree.build(xyz, [-1, 0])
    xyz[0] = 7
    assert (tree.xyz == 0).all()
    with pytest.raises(ValueError, match="read-only"):
        tree.xyz[0] = 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-1, 14), min_size=1, max_size=15))
def test_cycles_pieces_and_depths_against_walking(raw: list[int]) -> None:
    parents = np.array([p if p < len(raw) else -1 for p in raw])

    def walk(row: int) -> tuple[int, int] | None:
        steps = 0
        while parents[row] >= 0 and steps <= len(parents):
            row, steps = int(parents[row]), steps + 1
        return None if steps > len(parents) else (row, steps)

    walked = [walk(row) for row in range(len(parents))]
    circles = circle_nodes(parents)
    own_ancestors = []
    for row in range(len(parents)):
        above = int(parents[row])
        for _ in range(len(parents)):
            if above == row:
                own_ancestors.append(row)
                break
            above = int(parents[above]) if above >= 0 else -1
    assert circles.tolist() == own_ancestors
    assert (len(circles) > 0) == (None in walked)
    if len(circles):
        return
    tree = Tree.build(np.zeros((len(parents), 3)), parents)
    assert depths(parents).tolist() == [w[1] for w in walked]
    assert tree.roots[tree.piece_labels()].tolist() == [w[0] for w in walked]
    assert tree.n_pieces == len({w[0] for w in walked})


def morphio_reads(tree: Tree, path: Path) -> tuple[np.ndarray, list[str]]:
    """Points that MorphIO reads from what we write, and its warnings."""
    morphio = pytest.importorskip("morphio")
    write_swc(tree, path)
    collector = morphio.WarningHandlerCollector()
    neuron = morphio.Morphology(str(path), warning_handler=collector)
    return np.concatenate([neuron.soma.points, neuron.points]), [str(w.warning.warning()) for w in collector.get_all()]


def test_morphio_reads_it_without_a_warning(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parents = [-1, 0, 1, 1, 3, 3, 0, 6, 7]
    tree = Tree.build(
        rng.normal(size=(9, 3)) * 1e3,
        parents,
        rng.uniform(0.1, 2, 9),
        types=[1, 3, 3, 3, 3, 3, 2, 2, 2],
        unit="micrometre",
    )
    shuffled = take(tree, rng.permutation(9))
    points, warnings = morphio_reads(shuffled, tmp_path / "neuron.swc")
    assert warnings == []
    expected = np.unique(tree.xyz.astype(np.float32), axis=0)
    assert np.array_equal(np.unique(points.astype(np.float32), axis=0), expected)


def test_portable_types_make_any_neuron_readable(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parents = np.array([-1] + [int(rng.integers(max(0, i - 3), i)) for i in range(1, 60)])
    tree = Tree.build(rng.normal(size=(60, 3)), parents, 1.0, types=rng.integers(2, 300, 60))
    points, warnings = morphio_reads(portable_types(tree), tmp_path / "neuron.swc")
    assert len(np.unique(points, axis=0)) == 60
    assert set(warnings) <= {"Warning.no_soma_found", "Warning.disconnected_neurite"}
