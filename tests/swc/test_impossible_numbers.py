"""Positions and radii that no neuron has are named by line, before anything of their size is made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunet_neurino.cli.main import main
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import Tree, read_swc, write_swc


def fibre(n: int = 30) -> Tree:
    """Nodes two apart along x."""
    return Tree.build(np.arange(n)[:, None] * [2.0, 0, 0] + [5, 5, 5], np.arange(n) - 1)


def with_node(folder: Path, xyz: tuple[float, float, float], radius: float = 1.0) -> Path:
    """A fibre of 30 nodes with one more, in line 33, beneath the last."""
    write_swc(fibre(), folder / "a.swc")
    with (folder / "a.swc").open("a") as file:
        file.write("31 0 {} {} {} {} 30\n".format(*xyz, radius))
    return folder / "a.swc"


@pytest.mark.parametrize("far", [3e4, 1e8, 1e15, 4e18, -1e300])
def test_one_position_far_off_all_others_is_refused(tmp_path: Path, far: float) -> None:
    with pytest.raises(NeurinoError, match=r"a\.swc: line 33: .*(far|away|reaches)"):
        read_swc(with_node(tmp_path, (5, far, 5)))


def test_a_long_sparse_axon_is_not_far_off(tmp_path: Path) -> None:
    bush = np.random.default_rng(0).normal(0, 20, (900, 3))
    axon = np.linspace([100, 0, 0], [9000, 0, 0], 60)
    tree = Tree.build(np.concatenate([bush, axon]), np.arange(960) - 1)
    write_swc(tree, tmp_path / "a.swc")
    assert read_swc(tmp_path / "a.swc") == tree
    write_swc(Tree.build([[0, 0, 0], [1, 0, 0], [5000, 0, 0]], [-1, 0, 1]), tmp_path / "three.swc")
    assert len(read_swc(tmp_path / "three.swc")) == 3


def test_radii_of_thousands_in_a_small_tracing_are_mended(tmp_path: Path) -> None:
    tree = read_swc(with_node(tmp_path, (70, 5, 5), 4000))
    assert tree.radii.max() == 1
    assert [str(f) for f in tree.findings if f.mended] == [
        "line 33: the radius 4000 is impossible with positions up to 70 -> set to 1, the median"
    ]
    soma = with_node(tmp_path, (70, 5, 5), 40)
    assert read_swc(soma).radii.max() == 40
    (tmp_path / "nm.swc").write_text("1 0 5000 20000 48000 1500 -1\n")
    assert read_swc(tmp_path / "nm.swc").radii.max() == 1500


BROKEN = {"huge.swc": "line 2", "segfault.swc": "line 2", "segv163.swc": "line 104", "slow_radii.swc": ""}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_once_broke_a_command(shared_data: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path, small = str(shared_data / "repro" / name), str(shared_data / "repro" / "small.swc")
    for command in (["check", path], ["evaluate", path, small], ["evaluate", small, path]):
        status = main(command)
        out, error = capsys.readouterr()
        if BROKEN[name]:
            assert status == 1
            assert BROKEN[name] in out + error
        else:
            assert status == 0
            assert "the radius 1e+09 is impossible" in out + error
