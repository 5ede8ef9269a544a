"""``neurino trace``, external tracers against stand-in programs, and files that MorphIO opens."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tracing_scenes import forked, mask_of, polyline

from nnunet_neurino.cli.main import main
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import write_tiff
from nnunet_neurino.metrics import neuron_distance
from nnunet_neurino.swc import Tree, read_swc, write_swc
from nnunet_neurino.tracing import find_external_tracers, trace, trace_with

SHAPE = (24, 60, 72)


@pytest.fixture
def mask_file(tmp_path: Path) -> Path:
    path = tmp_path / "mask.tif"
    write_tiff(path, mask_of([forked()], SHAPE), spacing=(2.0, 0.5, 0.5))
    return path


def test_command_writes_what_the_function_returns(mask_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "tree.swc"
    assert main(["trace", str(mask_file), "-o", str(target)]) == 0
    assert read_swc(target) == trace(mask_of([forked()], SHAPE), (2.0, 0.5, 0.5))
    assert main(["trace", str(mask_file), "-o", str(target), "--spacing", "1", "1", "1", "--unit", "micrometre"]) == 0
    assert read_swc(target).unit == "micrometre"


def test_voxel_size_in_nnunets_record_beside_a_prediction(tmp_path: Path) -> None:
    mask = mask_of([forked()], SHAPE)
    write_tiff(tmp_path / "case_0001.tif", mask, None)
    (tmp_path / "case_0001.json").write_text('{"spacing": [2.0, 0.5, 0.5]}')
    source, target = tmp_path / "case_0001.tif", tmp_path / "t.swc"
    assert main(["trace", str(source), "-o", str(target)]) == 0
    assert read_swc(target) == trace(mask, (2.0, 0.5, 0.5))
    assert main(["evaluate", str(source), str(source), "--json", str(tmp_path / "s.json")]) == 0
    assert '"hd95_um": 0.0' in (tmp_path / "s.json").read_text()
    (tmp_path / "case_0001.json").write_text('{"spacing": [0, 0.5, 0.5]}')
    assert main(["trace", str(source), "-o", str(target), "--unit", "micrometre"]) == 1


def test_command_refuses_in_one_line(mask_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "image.tif"
    write_tiff(image, np.zeros((24, 60, 70), np.uint8))
    raw = tmp_path / "raw.tif"
    write_tiff(raw, (np.arange(24 * 60 * 72).reshape(SHAPE) % 5000).astype(np.uint16))
    for words, said in (
        ([mask_file, "-o", tmp_path / "tree.txt"], "ends in .swc"),
        ([tmp_path / "absent.tif", "-o", tmp_path / "t.swc"], "absent.tif"),
        ([mask_file, "-o", tmp_path / "t.swc", "--image", image], "expected the same"),
        ([raw, "-o", tmp_path / "t.swc"], "raw.tif"),
        ([mask_file, "-o", tmp_path / "t.swc", "--low", "0.9"], "low <= high"),
    ):
        assert main(["trace", *map(str, words)]) == 1
        error = capsys.readouterr().err.strip()
        assert said in error
        assert "\n" not in error
    assert not (tmp_path / "t.swc").exists()


def test_empty_mask_gives_an_empty_file_and_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiff(tmp_path / "empty.tif", np.zeros((4, 5, 6), np.uint8))
    assert main(["trace", str(tmp_path / "empty.tif"), "-o", str(tmp_path / "t.swc")]) == 0
    assert "nothing to trace" in capsys.readouterr().err
    assert len(read_swc(tmp_path / "t.swc", allow_empty=True)) == 0


def test_morphio_opens_the_file_without_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    morphio = pytest.importorskip("morphio")
    two = mask_of([forked(), polyline([(5, 55, 20), (60, 55, 20)])], SHAPE)
    write_tiff(tmp_path / "mask.tif", two)
    assert main(["trace", str(tmp_path / "mask.tif"), "-o", str(tmp_path / "tree.swc"), "--each"]) == 0
    capfd.readouterr()
    for name in ("tree_1.swc", "tree_2.swc"):
        ours = read_swc(tmp_path / name)
        theirs = morphio.Morphology(str(tmp_path / name))
        assert len(theirs.soma.points) == 1
        assert np.allclose(theirs.soma.points[0], ours.xyz[0], atol=1e-4)
        assert len(theirs.sections) >= 1
    output = capfd.readouterr()
    assert output.out + output.err == ""


STAND_IN = """#!{python}
import sys, time
from pathlib import Path
sys.path.insert(0, {path!r})
args = sys.argv[1:]
{body}
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a program of that name and body on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("DISPLAY", ":0")

    def make(name: str, body: str) -> Path:
        program = folder / name
        program.write_text(STAND_IN.format(python=sys.executable, path=str(Path(__file__).parents[2]), body=body))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    return make


WRITE = "Path({where}).write_text('1 1 5 {y} 12 1 -1\\n2 0 65 {y} 12 1 1\\n')"
MASK = mask_of([polyline([(5, 20, 12), (65, 20, 12)])], SHAPE)


def test_absent_programs_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert set(find_external_tracers()) == {"smarttracing", "app2", "neutube", "pyneutube", "kimimaro"}
    assert not any(find_external_tracers().values())
    for name in find_external_tracers():
        with pytest.raises(NeurinoError, match=f"{name} is not installed.*PATH"):
            trace_with(name, MASK)
    with pytest.raises(NeurinoError, match="unknown"):
        trace_with("nonsense", MASK)


def test_file_counts_and_not_the_exit_status(stand_in) -> None:
    program = stand_in("pyneutube", WRITE.format(where="args[args.index('--output-swc') + 1]", y=20) + "\nsys.exit(1)")
    assert find_external_tracers()["pyneutube"] == str(program)
    tree = trace_with("pyneutube", MASK)
    assert tree.unit == "voxel"
    assert np.array_equal(tree.xyz, [[5, 20, 12], [65, 20, 12]])


def test_vaa3d_gets_a_readable_image_and_its_initial_trace_is_not_taken(stand_in) -> None:
    body = (
        "import tifffile\n"
        "source = args[args.index('-i') + 1]\n"
        "image = tifffile.imread(source)\n"
        f"assert image.shape == {SHAPE} and image.dtype == 'uint8' and set(image.ravel()) == {{0, 255}}\n"
        "Path(source + '_ini.swc').write_text('1 1 0 0 0 1 -1\\n')\n"
        + WRITE.format(where="source + '_neutube.swc'", y=39)
    )
    stand_in("vaa3d", body)
    tree = trace_with("neutube", MASK)
    # The stand-in counts rows from the bottom: 59 - 39 = 20.
    assert np.array_equal(tree.xyz, [[5, 20, 12], [65, 20, 12]])


def test_kimimaro_gets_axes_x_y_z_and_writes_several_files(stand_in) -> None:
    body = (
        "import numpy as np\n"
        "labels = np.load(args[1])\n"
        f"assert labels.shape == {SHAPE[::-1]}\n"
        "assert args[args.index('--anisotropy') + 1] == '1000,1000,4000'\n"
        "folder = Path(args[args.index('-o') + 1]); folder.mkdir()\n"
        "(folder / '1.swc').write_text('1 0 5000 20000 48000 1500 -1\\n2 0 65000 20000 48000 1500 1\\n')\n"
        "(folder / '2.swc').write_text('1 0 5000 50000 48000 1500 -1\\n')\n"
    )
    stand_in("kimimaro", body)
    tree = trace_with("kimimaro", MASK, (2.0, 0.5, 0.5))
    assert np.allclose(tree.xyz, [[5, 20, 12], [65, 20, 12], [5, 50, 12]])
    assert np.allclose(tree.radii, 1.5)
    assert tree.n_pieces == 2


@pytest.mark.parametrize(
    ("name", "volume"),
    [
        ("kimimaro", np.where(MASK, 200, 40).astype(np.uint8)),  # probabilities times 255
        ("kimimaro", np.where(MASK, 0.8, np.linspace(0, 0.3, SHAPE[2])).astype(np.float32)),
        ("kimimaro", MASK * np.uint8(3)),  # a label
        ("app2", MASK * np.uint8(3)),
        ("app2", MASK * np.float32(255)),
    ],
)
def test_programs_get_the_foreground_whatever_its_numbers(stand_in, name: str, volume: np.ndarray) -> None:
    read = "np.load(args[1])" if name == "kimimaro" else "(tifffile.imread(args[args.index('-i') + 1]) // 255)"
    write = "Path('skeletons'); p.mkdir(); p = p / '1.swc'" if name == "kimimaro" else "Path('output.swc')"
    body = f"import numpy as np, tifffile\np = {write}\np.write_text('1 1 %d 0 0 1 -1\\n' % {read}.sum())"
    stand_in("kimimaro" if name == "kimimaro" else "vaa3d", body)
    scale = 1000 if name == "kimimaro" else 1
    assert trace_with(name, volume).xyz[0, 0] * scale == MASK.sum()


def test_what_is_no_mask_and_an_empty_one_reach_no_program(stand_in) -> None:
    stand_in("vaa3d", "sys.exit('it was run')")
    assert len(trace_with("app2", np.zeros(SHAPE, np.uint8))) == 0
    for volume, said in ((np.full(SHAPE, np.nan), "NaN"), (np.arange(64.0).reshape(4, 4, 4) * 90, "values from 0")):
        with pytest.raises(NeurinoError, match=said):
            trace_with("app2", volume)
    for timeout in (0.0, float("nan")):
        with pytest.raises(NeurinoError, match="timeout"):
            trace_with("app2", MASK, timeout=timeout)


def test_what_a_program_leaves_running_is_not_waited_for(stand_in, tmp_path: Path) -> None:
    body = (
        "import subprocess\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'], start_new_session=True)\n"
        f"Path({str(tmp_path / 'left')!r}).write_text(str(left.pid))\n"
    )
    stand_in("pyneutube", body + WRITE.format(where="args[args.index('--output-swc') + 1]", y=20))
    try:
        assert len(trace_with("pyneutube", MASK, timeout=60)) == 2
    finally:
        os.kill(int((tmp_path / "left").read_text()), signal.SIGKILL)


def test_program_without_a_file_and_a_slow_one(stand_in) -> None:
    stand_in("pyneutube", "print('no licence found')")
    with pytest.raises(NeurinoError, match=r"wrote no SWC file.*no licence found"):
        trace_with("pyneutube", MASK)
    stand_in("pyneutube", "time.sleep(60)")
    start = time.monotonic()
    with pytest.raises(NeurinoError, match="ended after"):
        trace_with("pyneutube", MASK, timeout=1.0)
    assert time.monotonic() - start < 20
    stand_in("pyneutube", "Path(args[args.index('--output-swc') + 1]).write_text('rubbish\\n')")
    with pytest.raises(NeurinoError, match=r"output.swc"):
        trace_with("pyneutube", MASK)


def test_external_tracer_through_the_command_and_evaluate(stand_in, tmp_path: Path) -> None:
    stand_in("pyneutube", WRITE.format(where="args[args.index('--output-swc') + 1]", y=20))
    write_tiff(tmp_path / "mask.tif", MASK)
    truth = Tree.build(np.array([[5.0, 20, 12], [65, 20, 12]]), np.array([-1, 0]))
    write_swc(truth, tmp_path / "truth.swc")
    assert main(["trace", str(tmp_path / "mask.tif"), "-o", str(tmp_path / "t.swc"), "--tracer", "pyneutube"]) == 0
    assert neuron_distance(tmp_path / "t.swc", truth).esa == pytest.approx(0, abs=1e-12)
    words = ["evaluate", str(tmp_path / "mask.tif"), str(tmp_path / "truth.swc"), "--tracer", "pyneutube"]
    assert main([*words, "--json", str(tmp_path / "s.json")]) == 0
    assert '"esa": 0.0' in (tmp_path / "s.json").read_text()
