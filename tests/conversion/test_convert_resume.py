"""A conversion that is stopped goes on, and what is in its folder is never lost or mixed up."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from conversion_helpers import OPTIONS, Make, convert, files_of, report_of

import nnunet_neurino.files
from nnunet_neurino.cli.main import main


def test_folder_that_holds_something_is_refused(make_pairs: Make, tmp_path: Path, capsys: pytest.CaptureFixture):
    data = make_pairs(2)
    folder = tmp_path / "raw" / "Dataset007_T"
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("keep")
    assert convert(data, tmp_path / "raw") == 1
    assert "not empty" in capsys.readouterr().err
    assert files_of(folder) == {"mine.txt": b"keep"}
    assert convert(data, tmp_path / "raw", "--overwrite") == 0
    assert not (folder / "mine.txt").exists()
    assert convert(data, tmp_path / "raw") == 1
    assert "already converted" in capsys.readouterr().err
    assert convert(data, tmp_path / "raw", "--resume", "--mode", "skeleton") == 1
    assert "other settings (mode)" in capsys.readouterr().err
    own = ("convert", "--images", folder / "imagesTr", "--masks", folder / "labelsTr", *OPTIONS, "--overwrite")
    before = files_of(folder)
    assert main([str(a) for a in (*own, "--output", tmp_path / "raw")]) == 1
    assert "would remove them" in capsys.readouterr().err
    assert files_of(folder) == before
    (tmp_path / "raw" / "Dataset007_T").rename(tmp_path / "raw" / "Dataset007_Other")
    assert convert(data, tmp_path / "raw") == 1
    assert "another --dataset-id" in capsys.readouterr().err


def test_going_on_leaves_what_others_put_there_and_removes_what_it_left_itself(make_pairs: Make, tmp_path: Path):
    data = make_pairs(3)
    assert convert(data, tmp_path / "raw") == 0
    folder = tmp_path / "raw" / "Dataset007_T"
    shutil.copy(folder / "imagesTr" / "cell0_0000.tif", folder / "imagesTr" / "by_hand_0000.tif")
    (data / "cell1.swc").write_text("")
    (data / "cell2.tif").unlink()
    (data / "cell2.swc").unlink()
    assert convert(data, tmp_path / "raw", "--resume") == 1
    assert sorted(p.name for p in (folder / "imagesTr").glob("*.tif")) == ["by_hand_0000.tif", "cell0_0000.tif"]
    assert sorted(p.name for p in (folder / "labelsTr").iterdir()) == ["cell0.json", "cell0.tif"]
    assert any("1 files of another source" in note for note in report_of(tmp_path / "raw")["notes"])


class Stopped(BaseException):
    """Stands for a kill: nothing in the program catches it."""


def test_stopped_at_any_write_and_started_again_gives_the_same_bytes(
    make_pairs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = make_pairs(3)
    assert convert(data, tmp_path / "undisturbed") == 0
    expected = files_of(tmp_path / "undisturbed")
    real, calls = os.replace, 0

    def stop_at(n: int) -> Callable[..., None]:
        def replace_(source: object, target: object) -> None:
            nonlocal calls
            calls += 1
            if calls == n:
                # A killed process removes nothing: leave the unfinished file behind.
                shutil.copy(str(source), str(source) + "-left")
                raise Stopped
            real(source, target)  # type: ignore[arg-type]

        return replace_

    for n in range(1, len(expected) + 1, 3):
        output, calls = tmp_path / f"stopped{n}", 0
        monkeypatch.setattr(nnunet_neurino.files.os, "replace", stop_at(n))
        with pytest.raises(Stopped):
            convert(data, output)
        monkeypatch.setattr(nnunet_neurino.files.os, "replace", real)
        assert convert(data, output) == 0
        assert files_of(output) == expected, n


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_killed_with_workers_and_started_again_gives_the_same_bytes(make_pairs: Make, tmp_path: Path):
    data, output = make_pairs(6), tmp_path / "killed"
    folders = ["--images", data, "--tracings", data, "--dataset-id", 7, "--name", "T", "--spacing", 1, 0.5, 0.5]
    command = [sys.executable, "-m", "nnunet_neurino.cli.main", "convert", *folders, "--output", output, "--workers", 2]
    command = [str(c) for c in command]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    records = output / "Dataset007_T" / "conversion"
    deadline = time.monotonic() + 60
    while len(list(records.glob("cell*.json"))) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    while group_is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not group_is_alive(process.pid), "workers must end with their parent, or they write behind our back"
    assert not (output / "Dataset007_T" / "conversion_report.json").exists()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert convert(data, tmp_path / "undisturbed") == 0
    assert files_of(output) == files_of(tmp_path / "undisturbed")


def test_disk_full_stops_with_one_line_and_goes_on_later(
    make_pairs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    data = make_pairs(3)
    real, calls = tifffile.imwrite, 0

    def full(path: Path, *args: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tifffile, "imwrite", full)
    assert convert(data, tmp_path / "raw") == 1
    text = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left on device" in text
    assert "run the same command again" in text
    assert not list((tmp_path / "raw").rglob(".unfinished-*"))
    monkeypatch.setattr(tifffile, "imwrite", real)
    assert convert(data, tmp_path / "raw") == 0
    assert convert(data, tmp_path / "undisturbed") == 0
    assert files_of(tmp_path / "raw") == files_of(tmp_path / "undisturbed")
