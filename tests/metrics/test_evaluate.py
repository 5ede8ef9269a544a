"""``neurino evaluate``: what goes with what, broken cases, units, files written, comparisons, tables."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunet_neurino.cli.main import main
from nnunet_neurino.images import write_tiff
from nnunet_neurino.metrics import neuron_distance, voxel_scores
from nnunet_neurino.swc import Tree, flip, rasterise, shift, write_swc

KEYS = ("f1", "hd95", "hd95_directed", "esa", "dsa", "pds", "cldice", "betti0_error", "length_f1")
SHAPE = (20, 24, 60)


def fibre(y: float = 10.0, unit: str = "voxel", scale: float = 1.0) -> Tree:
    x = np.linspace(5, 55, 26)
    xyz = np.stack([x, y + 2 * np.sin(x / 8), np.full(26, 9.0)], axis=1) * scale
    return Tree.build(xyz, np.arange(26) - 1, radii=2.0 * scale, types=np.r_[1, [3] * 25], unit=unit)  # type: ignore[arg-type]


def evaluate(*words: object) -> int:
    return main(["evaluate", *map(str, words)])


def evaluate_json(tmp_path: Path, *words: object) -> dict:
    target = tmp_path / "out.json"
    assert evaluate(*words, "--json", target) == 0
    return json.loads(target.read_text())


def save(tmp_path: Path, name: str, content: Tree | np.ndarray, **kwargs: object) -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Tree):
        write_swc(content, path)
    else:
        write_tiff(path, content, **kwargs)  # type: ignore[arg-type]
    return path


def test_two_masks(tmp_path: Path) -> None:
    truth, pred = rasterise(fibre(), SHAPE), rasterise(fibre(11.0), SHAPE)
    found = evaluate_json(
        tmp_path,
        save(tmp_path, "p.tif", pred, spacing=(2, 1, 1)),
        save(tmp_path, "t.tif", truth, spacing=(2, 1, 1)),
    )
    expected = voxel_scores(pred > 0, truth > 0, (2, 1, 1))
    assert found["f1"] == pytest.approx(expected.f1)
    assert found["hd95"] == pytest.approx(expected.hd95)
    assert found["hd95_um"] == pytest.approx(expected.hd95_um)
    assert found["hd95_directed"] == pytest.approx(expected.hd95_directed)
    assert found["betti0_error"] == 0
    assert found["esa"] is None
    assert found["length_f1"] is None
    assert set(KEYS) <= set(found)


def test_two_trees(tmp_path: Path) -> None:
    pred, truth = save(tmp_path, "p.swc", fibre(11.5)), save(tmp_path, "t.swc", fibre())
    found = evaluate_json(tmp_path, pred, truth)
    assert found["esa"] == neuron_distance(pred, truth).esa
    assert found["f1"] is None
    assert "mask" in found["reasons"]["voxels"]
    assert found["length_f1"] == 1.0


def test_mask_against_tree_is_traced_first(tmp_path: Path) -> None:
    mask, tree = save(tmp_path, "p.tif", rasterise(fibre(), SHAPE)), save(tmp_path, "t.swc", fibre())
    found = evaluate_json(tmp_path, mask, tree)
    assert found["esa"] < 0.4
    assert found["length_f1"] > 0.99
    assert found["f1"] == 1.0
    assert (found["splits"], found["merges"]) == (0, 0)
    turned = evaluate_json(tmp_path, tree, mask)
    assert turned["esa"] == pytest.approx(found["esa"])
    assert turned["splits"] is None


def test_micrometres_against_voxels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    voxels, micrometres = save(tmp_path, "t.swc", fibre()), save(tmp_path, "p.swc", fibre(unit="micrometre", scale=0.4))
    assert evaluate(micrometres, voxels) == 1
    assert "--spacing" in capsys.readouterr().err
    found = evaluate_json(tmp_path, micrometres, voxels, "--spacing", 0.4, 0.4, 0.4)
    assert found["esa"] == pytest.approx(0.0, abs=1e-6)
    unsaid = save(tmp_path, "u.swc", fibre(unit="unknown", scale=0.4))
    found = evaluate_json(tmp_path, unsaid, voxels)
    assert any("may be in micrometres" in note and "0.4 0.4" in note for note in found["notes"])
    mask = save(tmp_path, "m.tif", rasterise(fibre(), SHAPE), spacing=(0.4, 0.4, 0.4))
    assert evaluate_json(tmp_path, mask, micrometres)["esa"] < 0.4


def test_anisotropic_micrometres_are_suspected_and_a_half_neuron_is_not(tmp_path: Path) -> None:
    xyz = np.random.default_rng(1).uniform(10, 90, (40, 3)).cumsum(axis=0) % 100
    truth = Tree.build(xyz, np.arange(40) - 1, unit="unknown")
    target = save(tmp_path, "t.swc", truth)
    for factor in ((0.4, 0.4, 1.0), (1.0, 1.0, 3.0)):
        scaled = save(tmp_path, "p.swc", Tree.build(xyz * factor, truth.parents, unit="unknown"))
        assert any("may be in micrometres" in note for note in evaluate_json(tmp_path, scaled, target)["notes"])
    left = xyz[xyz[:, 0] < 45]
    half = save(tmp_path, "h.swc", Tree.build(left, np.arange(len(left)) - 1, unit="unknown"))
    assert not any("may be in micrometres" in note for note in evaluate_json(tmp_path, half, target)["notes"])
    flat = fibre(unit="unknown").xyz  # no extent along z
    ours = save(tmp_path, "f.swc", Tree.build(flat * 0.4, np.arange(26) - 1, unit="unknown"))
    notes = evaluate_json(tmp_path, ours, save(tmp_path, "g.swc", fibre(unit="unknown")))["notes"]
    assert any("0.4 0.4 - times" in note for note in notes)


def test_tree_outside_the_image_is_said(tmp_path: Path) -> None:
    mask, tree = save(tmp_path, "p.tif", rasterise(fibre(), SHAPE)), save(tmp_path, "t.swc", fibre(200.0))
    notes = evaluate_json(tmp_path, mask, tree)["notes"]
    assert any("100% of the tree's nodes are outside the image of 20 x 24 x 60" in note for note in notes)


def test_probabilities_are_thresholded_and_said(tmp_path: Path) -> None:
    truth = rasterise(fibre(), SHAPE)
    probability = np.where(truth > 0, 0.8, 0.3).astype(np.float32)
    found = evaluate_json(tmp_path, save(tmp_path, "p.tif", probability), save(tmp_path, "t.tif", truth))
    assert found["f1"] == 1.0
    assert any("taken for probabilities" in note for note in found["notes"])


@pytest.mark.parametrize("nodes", [0, 1, 2])
def test_trees_without_length_are_null(tmp_path: Path, nodes: int) -> None:
    empty = save(tmp_path, "p.swc", Tree.build(np.ones((nodes, 3)), np.arange(nodes) - 1))
    found = evaluate_json(tmp_path, empty, save(tmp_path, "t.swc", fibre()))
    assert found["length_f1"] == 0.0
    if nodes < 2:
        assert found["esa"] is None
        assert "no edge" in found["reasons"]["trees"]


def test_empty_mask(tmp_path: Path) -> None:
    empty = save(tmp_path, "p.tif", np.zeros(SHAPE, np.uint8))
    found = evaluate_json(tmp_path, empty, save(tmp_path, "t.swc", fibre()))
    assert (found["f1"], found["hd95"], found["esa"], found["omitted"]) == (0.0, None, None, 1.0)


def test_what_does_not_go_together_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = rasterise(fibre(), SHAPE)
    good = save(tmp_path, "good.tif", mask, spacing=(1, 1, 1))
    cycle = tmp_path / "cycle.swc"
    cycle.write_text("1 0 0 0 0 1 2\n2 0 5 0 0 1 1\n")
    for other, said in (
        (save(tmp_path, "small.tif", mask[:10], spacing=(1, 1, 1)), "same shape"),
        (save(tmp_path, "coarse.tif", mask, spacing=(2, 1, 1)), "voxels are"),
        (
            save(tmp_path, "raw.tif", (np.arange(mask.size).reshape(SHAPE) % 4000).astype(np.uint16)),
            "values from 0 to 3999",
        ),
        (cycle, "cycle.swc"),
        (tmp_path / "absent.tif", "absent.tif: no such file"),
        (tmp_path, "two files or two folders"),
    ):
        assert evaluate(good, other) == 1
        error = capsys.readouterr().err.strip()
        assert said in error
        assert error.count("\n") == 0


def test_wrong_options_are_one_line_before_anything_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = save(tmp_path, "a/t.swc", fibre())
    folder = tree.parent
    for words, said in (
        ([tree, tree, "--threshold", "-1"], "threshold"),
        ([tree, tree, "--tolerance", "nan"], "tolerance"),
        ([tree, tree, "--spacing", "0", "1", "1"], "positive"),
        ([folder, folder, "--output", tree], "not a folder"),
        ([folder, folder, "--versus", tree], "not a folder"),
    ):
        assert evaluate(*words) == 1
        out, error = capsys.readouterr()
        assert said in error
        assert error.strip().count("\n") == 0
        assert out == ""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Ten cases of predicted masks and true trees; one prediction is junk, one is missing, one is too much."""
    for case in range(10):
        save(tmp_path, f"truth/case_{case}.swc", fibre())
        save(tmp_path, f"pred/case_{case}.tif", rasterise(fibre(10 + 0.3 * case), SHAPE))
    (tmp_path / "pred" / "case_3.tif").write_bytes(b"junk")
    (tmp_path / "pred" / "case_4.tif").unlink()
    (tmp_path / "pred" / "extra.swc").write_text("1 0 0 0 0 1 -1\n")
    return tmp_path / "pred", tmp_path / "truth"


def test_two_folders(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    pred, truth = folders
    assert evaluate(pred, truth) == 1
    out, err = capsys.readouterr()
    assert "case_9" in out
    assert "mean" in out
    for line in ("case_3", "case_4: there is a truth but no prediction", "extra: there is a prediction but no truth"):
        assert line in err
    found = json.loads((pred / "scores.json").read_text())
    assert len(found["cases"]) == 8
    assert set(found["failed"]) == {"case_3", "case_4", "extra"}
    values = [case["f1"] for case in found["cases"].values()]
    assert found["f1"] == pytest.approx(np.mean(values))
    assert found["summary"]["f1"]["low"] < found["f1"] < found["summary"]["f1"]["high"]
    with (pred / "scores.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert len(rows) == 11
    assert float(rows["case_0"]["f1"]) == pytest.approx(found["cases"]["case_0"]["f1"])
    assert rows["case_4"]["f1"] == ""
    assert "no prediction" in rows["case_4"]["failed"]


def test_two_methods(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scipy.stats import wilcoxon

    pred, truth = folders
    for case in range(10):
        save(tmp_path, f"other/case_{case}.tif", rasterise(fibre(10.2 + 0.3 * case), SHAPE))
    assert evaluate(pred, truth, "--versus", tmp_path / "other", "--output", tmp_path / "scores") == 1
    paired = json.loads((tmp_path / "scores" / "scores.json").read_text())["versus"]["paired"]["f1"]
    ours = [voxel_scores(*(rasterise(fibre(y), SHAPE) > 0 for y in (10 + 0.3 * c, 10.0))).f1 for c in range(10)]
    theirs = [voxel_scores(*(rasterise(fibre(y), SHAPE) > 0 for y in (10.2 + 0.3 * c, 10.0))).f1 for c in range(10)]
    kept = [c for c in range(10) if c not in (3, 4)]
    difference = np.array([ours[c] - theirs[c] for c in kept])  # type: ignore[operator]
    assert paired["n"] == 8
    assert paired["difference"] == pytest.approx(difference.mean())
    assert paired["p"] == pytest.approx(wilcoxon(difference).pvalue)
    assert "Wilcoxon" in capsys.readouterr().out


def test_layout_of_the_papers_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {
        "nnU-Net": {"Fly": {"f1": 0.472, "hd95": 3.2, "esa": 2.0, "dsa": 4.0, "pds": 0.3}, "Mouse": {"f1": 0.5205}},
        "NeurINO": {"Fly": {"f1": 0.5006, "hd95": 3.07, "esa": 1.9, "dsa": 4.1, "pds": 0.25}},
    }
    for method, datasets in results.items():
        for dataset, scores in datasets.items():
            folder = tmp_path / method / dataset
            folder.mkdir(parents=True)
            (folder / "scores.json").write_text(json.dumps(scores))
    assert evaluate("--table", "papers", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Fly" in lines[1]
    assert "Mouse" in lines[1]
    assert "50.06*/3.07*" in next(line for line in lines if line.startswith("NeurINO"))
    assert "47.20/3.20" in next(line for line in lines if line.startswith("nnU-Net"))
    assert any("1.90*/4.10/0.250*" in line for line in lines)
    assert evaluate("--table", "papers", tmp_path / "NeurINO") == 1
    for broken in ('{"f1": "high"}', '{"esa": NaN}', "[]", "{"):
        (tmp_path / "NeurINO" / "Fly" / "scores.json").write_text(broken)
        capsys.readouterr()
        assert evaluate("--table", "papers", tmp_path) == 1
        assert "not a scores.json" in capsys.readouterr().err


def test_starts_without_torch() -> None:
    words = "import sys, nnunet_neurino.cli.evaluate, nnunet_neurino.cli.trace; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0


def bush(n: int = 300) -> Tree:
    """An asymmetric tree in the corner of an image of SHAPE."""
    rng = np.random.default_rng(5)
    xyz = np.array([4, 3, 2]) + np.cumsum(np.abs(rng.normal(0, 1, (n, 3))) * [0.15, 0.05, 0.04], axis=0)
    xyz[n // 2 :] = xyz[20] + np.cumsum(np.abs(rng.normal(0, 1, (n - n // 2, 3))) * [0.02, 0.1, 0.03], axis=0)
    parents = np.arange(n) - 1
    parents[n // 2] = 20
    return Tree.build(xyz, parents)


@pytest.mark.parametrize(("axis", "said"), [(0, "with x flipped"), (1, "with y flipped"), (2, "with z flipped")])
def test_a_mirrored_prediction_is_said(tmp_path: Path, axis: int, said: str) -> None:
    truth = bush()
    wrong = flip(truth, axis, 3 * SHAPE[2 - axis])
    right = Tree.build(truth.xyz + np.random.default_rng(0).normal(0, 0.5, truth.xyz.shape), truth.parents)
    shape = tuple(3 * n if 2 - i == axis else n for i, n in enumerate(SHAPE))
    for kind in ("swc", "tif"):
        saved = [
            save(tmp_path, f"{i}.{kind}", tree if kind == "swc" else rasterise(tree, shape))
            for i, tree in enumerate((truth, wrong, right))
        ]
        notes = evaluate_json(tmp_path, saved[1], saved[0])["notes"]
        assert [note for note in notes if "fits" in note and said in note]
        assert not [note for note in evaluate_json(tmp_path, saved[2], saved[0])["notes"] if "fits" in note]


def test_a_shifted_prediction_is_not_called_mirrored(tmp_path: Path) -> None:
    pred, truth = save(tmp_path, "p.swc", shift(bush(), (0, 40, 0))), save(tmp_path, "t.swc", bush())
    assert [n for n in evaluate_json(tmp_path, pred, truth)["notes"] if "fits when it is shifted" in n]
