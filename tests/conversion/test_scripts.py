"""The scripts of dataset_conversion run on folders laid out like the published data sets."""

from __future__ import annotations

import importlib
import json
import sqlite3
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conversion_helpers import SHAPE, neuron, picture_of

from nnunet_neurino import trainers
from nnunet_neurino.images import read_stack, write_tiff
from nnunet_neurino.swc import Tree, rasterise, write_swc

FOLDER = Path(__file__).resolve().parents[2] / "dataset_conversion"
NAMES = ["generic_swc_tiff", "bigneuron", "janelia", "cwmbs", "neurofly"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in set(sys.modules) - before:
        if name in (*NAMES, "common"):
            del sys.modules[name]


def run(module: ModuleType, *arguments: object) -> int:
    return module.main([str(a) for a in (*arguments, "--workers", 1)])


def report(folder: Path) -> dict:
    return json.loads((folder / "conversion_report.json").read_text())


def write_v3dpbd(path: Path, image: np.ndarray) -> None:
    rows = [image.ravel()[i : i + 33] for i in range(0, image.size, 33)]
    data = b"".join(bytes([len(r) - 1]) + r.tobytes() for r in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack("<h4i", 1, *reversed(image.shape), 1)
    path.write_bytes(b"v3d_volume_pkbitdf_encodL" + head + data)


@pytest.mark.parametrize("name", NAMES)
def test_help_names_source_and_licence(script, name: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stop:
        run(script(name), "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in ("download:", "cite:", "licence:", "example", f"{name}.py", "--spacing"):
        assert word in text


def test_generic(script, tmp_path: Path, make_pairs):
    data = make_pairs(2)
    assert run(script("generic_swc_tiff"), data, "--dataset-id", 3, "--spacing", 1, 1, 1, "--output", tmp_path) == 0
    assert report(tmp_path / "Dataset003_Neurons")["converted"] == 2
    missing = [tmp_path / "nowhere", "--dataset-id", 4, "--output", tmp_path]
    assert run(script("generic_swc_tiff"), *missing) == 1


@pytest.fixture
def gold(tmp_path: Path) -> Path:
    root = tmp_path / "gold166"
    for i, laboratory in enumerate(("p_checked6_mouse_tufts", "p_checked7_janelia_flylight_part1")):
        for j in range(2):
            folder = root / laboratory / f"done_{j}"
            write_v3dpbd(folder / f"n{j}.v3dpbd", picture_of(neuron(2 * i + j)))
            tree = neuron(2 * i + j)
            up = replace(tree, xyz=tree.xyz * (1, -1, 1) + (0, SHAPE[1] - 1, 0))
            write_swc(up, folder / f"n{j}.v3dpbd_x10_ano.swc")
    return root


def test_bigneuron(script, gold: Path, tmp_path: Path):
    assert run(script("bigneuron"), gold, "--dataset-id", 3, "--output", tmp_path) == 0
    folder = tmp_path / "Dataset003_BigNeuron"
    cases = report(folder)["cases"]
    assert [c["case"] for c in cases] == [
        "janelia_flylight_part1_n0",
        "janelia_flylight_part1_n1",
        "mouse_tufts_n0",
        "mouse_tufts_n1",
    ]
    assert {c["alignment"]["applied"] for c in cases} == {"y flipped"}
    label = read_stack(folder / "labelsTr" / "mouse_tufts_n0.tif").voxels > 0
    assert (label & rasterise(neuron(0), SHAPE)).sum() > 0.98 * label.sum()
    assert "BigNeuron" in json.loads((folder / "dataset.json").read_text())["reference"]
    few = [gold, "--subset", "drosophila", "--dataset-id", 4, "--output", tmp_path]
    assert run(script("bigneuron"), *few) == 0
    assert report(tmp_path / "Dataset004_BigNeuron")["converted"] == 2
    assert run(script("bigneuron"), gold, "--subset", "human", "--dataset-id", 5, "--output", tmp_path) == 1


def test_janelia_blocks(script, gold: Path, tmp_path: Path):
    assert run(script("janelia"), gold, "--dataset-id", 3, "--output", tmp_path) == 0
    cases = report(tmp_path / "Dataset003_Janelia")["cases"]
    assert len(cases) == 2
    for case in cases:
        assert min(case["foreground"]) >= 0.001
        stack = read_stack(tmp_path / "Dataset003_Janelia" / "imagesTr" / f"{case['written'][0]}_0000.tif")
        assert stack.shape == (5, *SHAPE[1:])


def test_janelia_blocks_fill_the_patch_of_the_papers_trainer(script):
    """A deeper patch than the blocks would be padded with slices of zeros."""
    block = script("janelia").BLOCK
    assert trainers.find("nnUNetTrainerDINeuro_paper").defaults.patch_size == block
    assert " x ".join(map(str, block)) in script("janelia").__doc__


def test_cwmbs(script, tmp_path: Path):
    data = tmp_path / "CWMBS"
    for i in range(2):
        write_tiff(data / f"SN{i}.tif", picture_of(neuron(i)))
        write_swc(neuron(i), data / "swc" / f"SN{i}.tif.swc")
    assert run(script("cwmbs"), data, "--dataset-id", 3, "--output", tmp_path) == 0
    assert [c["case"] for c in report(tmp_path / "Dataset003_CWMBS")["cases"]] == ["SN0", "SN1"]


def test_an_interrupted_script_ends_in_one_line(script, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    module = script("cwmbs")
    monkeypatch.setattr(module, "find_cases", interrupted)
    assert run(module, tmp_path, "--dataset-id", 3, "--output", tmp_path) == 130
    assert "interrupted" in capsys.readouterr().err


def test_neurofly_masks(script, tmp_path: Path):
    data = tmp_path / "mouse_labeled"
    for i in range(2):
        write_tiff(data / f"img_{i}.tif", picture_of(neuron(i)))
        write_tiff(data / f"mask_{i}.tif", rasterise(neuron(i), SHAPE).astype(np.uint8) * 255)
    assert run(script("neurofly"), data, "--dataset-id", 3, "--output", tmp_path) == 0
    folder = tmp_path / "Dataset003_NeuroFly"
    assert np.array_equal(read_stack(folder / "labelsTr" / "img_1.tif").voxels, rasterise(neuron(1), SHAPE))


@pytest.mark.parametrize("columns", ["coord", "xyz"])
def test_neurofly_graph(script, tmp_path: Path, columns: str):
    tree = Tree.build(np.round(neuron(6).xyz), neuron(6).parents, radii=1)
    base = sqlite3.connect(tmp_path / "a.db")
    if columns == "coord":
        base.execute("CREATE TABLE nodes (nid INTEGER, coord TEXT, status INTEGER)")
        base.execute("CREATE TABLE edges (src INTEGER, des INTEGER)")
    else:
        base.execute("CREATE TABLE nodes (nid INTEGER, x INTEGER, y INTEGER, z INTEGER, status INTEGER)")
        base.execute("CREATE TABLE edges (src INTEGER, dst INTEGER)")
    for i, (x, y, z) in enumerate(tree.xyz.astype(int).tolist()):
        row = (i + 5, f"[{z}, {y}, {x}]", 1) if columns == "coord" else (i + 5, z, y, x, 1)
        base.execute(f"INSERT INTO nodes VALUES ({','.join('?' * len(row))})", row)
    ends = [*tree.edges().tolist(), [0, 10]]  # the last one closes a circle
    for a, b in ends:
        base.executemany("INSERT INTO edges VALUES (?, ?)", [(a + 5, b + 5), (b + 5, a + 5)])
    base.commit()
    base.close()
    module = script("neurofly")
    read = module.read_graph(tmp_path / "a.db")
    pairs = {frozenset((tuple(read.xyz[a]), tuple(read.xyz[b]))) for a, b in read.edges()}
    assert pairs == {frozenset((tuple(tree.xyz[a]), tuple(tree.xyz[b]))) for a, b in ends}
    write_tiff(tmp_path / "a.tif", picture_of(tree))
    graph = [tmp_path / "a.tif", "--graph", tmp_path / "a.db", "--dataset-id", 3, "--output", tmp_path / "raw"]
    assert run(module, *graph) == 0
    before = (tmp_path / "raw" / "neurofly_graphs" / "a.swc").stat().st_mtime_ns
    assert run(module, *graph, "--resume") == 0
    assert (tmp_path / "raw" / "neurofly_graphs" / "a.swc").stat().st_mtime_ns == before
    for content in (b"", b"not a database", b"SQLite format 3\0" + bytes(100)):
        (tmp_path / "b.db").write_bytes(content)
        assert run(module, tmp_path / "a.tif", "--graph", tmp_path / "b.db", *graph[3:]) == 1
