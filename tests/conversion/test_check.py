"""`neurino check`: one line a finding, exit status 1 exactly when something is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conversion_helpers import neuron, picture_of

from nnunet_neurino.cli.main import main
from nnunet_neurino.images import write_tiff
from nnunet_neurino.swc import write_swc


def test_usable_and_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    write_tiff(tmp_path / "a.tif", picture_of(neuron(0)), (1, 0.5, 0.5))
    write_swc(neuron(0), tmp_path / "a.swc")
    assert main(["check", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "a.tif: usable: 24 x 60 x 70 voxels (z y x) of uint8, voxel size 1 0.5 0.5 micrometres" in out
    assert "a.swc: usable: 76 nodes, 1 connected piece(s)" in out
    (tmp_path / "b.swc").write_text("../elsewhere.swc")
    write_tiff(tmp_path / "c.tif", np.full((3, 4, 5), np.inf, np.float32))
    assert main(["check", "--quiet", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [str(tmp_path / "b.swc"), "REFUSED"],
        [str(tmp_path / "c.tif"), "REFUSED"],
    ]
    assert main(["check", str(tmp_path / "nowhere.tif")]) == 1
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    capsys.readouterr()
    assert main(["check", *(str(tmp_path / name) for name in ("empty", "other", "nowhere.tif", "a.swc"))]) == 1
    said = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()]
    assert [word for word in said if word in ("REFUSED", "usable")] == [*["REFUSED"] * 3, "usable"]


def test_shared_quirks_never_raise_and_always_say_one_line(shared_data: Path, capsys: pytest.CaptureFixture):
    files = sorted((shared_data / "quirks" / "swc").iterdir()) + sorted((shared_data / "quirks" / "tif").iterdir())
    for path in files:
        status = main(["check", str(path)])
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith(f"{path}: {'REFUSED' if status else 'usable'}: ")
        assert status == 0 or path.suffix == ".swc"
