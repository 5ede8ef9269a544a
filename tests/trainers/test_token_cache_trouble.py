"""Tokens on disk when a run is interrupted or killed, two run at once, the disk is full or an image broken."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import window_cases
from token_cases import Usage, cache, change_weights, encoded, prepared, states
from window_cases import SHAPES, network, write_case

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families.dinowindow import WindowSettings
from nnunet_neurino.trainers.windows import token_cache


def test_an_interruption_keeps_what_is_finished(tmp_path, monkeypatch) -> None:
    ours = network()
    made = cache(tmp_path, ours=ours)
    tokens, calls = type(ours).tokens, []

    def interrupted(self, window):
        calls.append(1)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return tokens(self, window)

    monkeypatch.setattr(type(ours), "tokens", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.prepare(SHAPES, lambda line: None)
    before = states(made)
    assert 0 < len(before) < 9
    assert not list(made.folder.glob(".unfinished*"))
    finished = sum(len(np.load(made.folder / name)) for name in before)
    calls[:] = [1] * 30
    prepared(tmp_path, ours=ours)
    after = states(made)
    assert {name: after[name] for name in before} == before
    assert len(calls) - 30 == sum(len(made.open(case, k)) for case in SHAPES for k in range(3)) - finished


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from token_cases import SHAPES, cache, network
ours = network()
tokens = type(ours).tokens
type(ours).tokens = lambda self, window: time.sleep(0.02) or tokens(self, window)
cache(Path(sys.argv[1]), ours=ours).prepare(SHAPES, print)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_process_leaves_what_is_finished_and_no_rests_for_long(tmp_path) -> None:
    made = cache(tmp_path)  # writes the cases
    root = str(Path(__file__).parent)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), root], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(made.folder.glob("*.json"))) < 2 or not list(made.folder.glob(".unfinished*")):
        assert process.poll() is None, "it must not come to its end"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    noted = {p.stem for p in made.folder.glob("*.json")}
    before = {name: state for name, state in states(made).items() if Path(name).stem in noted}
    assert list(made.folder.glob(".unfinished*"))
    said: list[str] = []
    made.prepare(SHAPES, said.append)
    assert f"of which {len(before)} of 9 files are there already" in said[0], "nor does a dead process keep the lock"
    after = states(made)
    assert len(after) == 9
    assert {name: after[name] for name in before} == before
    assert not list(made.folder.glob(".unfinished*"))
    whole = prepared(tmp_path / "again")
    for name in after:
        assert (made.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path, monkeypatch) -> None:
    made = cache(tmp_path)
    size = 9 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(size, 0, size))
    with pytest.raises(NeurinoError, match=r"only 9 MiB are free there; make fewer copies \(--set copies=1\)") as error:
        made.prepare(SHAPES, lambda line: pytest.fail(line))
    assert "\n" not in str(error.value)
    assert "--set tokens=computed" in str(error.value)
    assert not made.folder.exists()


def test_a_place_that_cannot_be_written_to_is_refused_in_one_line(tmp_path) -> None:
    made = cache(tmp_path)
    (tmp_path / "tokens").write_text("no folder")
    with pytest.raises(NeurinoError, match=r"tokens cannot be kept there \(.+\); make nnUNet_preprocessed") as error:
        made.prepare(["a"], lambda line: pytest.fail(line))
    assert "\n" not in str(error.value)


def test_the_remedies_are_settings_there_are() -> None:
    settings = WindowSettings()
    for name, value in re.findall(r"--set (\w+)=(\w+)", token_cache._REMEDIES):
        changed = replace(settings, **{name: type(getattr(settings, name))(value)})
        assert changed != settings


def test_what_is_replaced_counts_as_free(tmp_path, monkeypatch) -> None:
    made = prepared(tmp_path)
    size = sum(p.stat().st_size for p in made.folder.glob("*.npy"))
    monkeypatch.setattr(token_cache, "_SPARE", (0, 0.05))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(size, size, size // 10))
    other = prepared(tmp_path, **change_weights(tmp_path, monkeypatch))
    assert len(states(other)) == 9
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(size, size, 0))
    before = states(other)
    with pytest.raises(NeurinoError, match="are free there"):
        prepared(tmp_path)
    assert states(other) == before, "refused, so nothing is removed either"


@pytest.mark.skipif(os.name != "posix", reason="a limit on the size of files")
def test_a_disk_that_fills_up_is_one_line_and_what_is_finished_is_kept(tmp_path) -> None:
    import resource

    made = cache(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    small, large = sorted({made._file(made._volume(case, 0)).size for case in "ab"})
    resource.setrlimit(resource.RLIMIT_FSIZE, ((small + large) // 2, limits[1]))
    try:
        with pytest.raises(NeurinoError, match=r"a__copy00.npy could not be written \(.+\); what is finished") as error:
            made.prepare(["b", "a"], lambda line: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert {name[0] for name in states(made)} == {"b"}
    assert not list(made.folder.glob(".unfinished*"))


def test_two_trainings_that_start_together_share_the_work(tmp_path, monkeypatch) -> None:
    ours = network()
    first, second = cache(tmp_path, ours=ours), cache(tmp_path, ours=ours)
    second.prepare([], lambda line: None)
    done = encoded(ours, monkeypatch)
    said: list[str] = []
    waiting = threading.Event()
    others = threading.Thread(target=second.prepare, args=(SHAPES, lambda line: (said.append(line), waiting.set())))

    def say(line: str) -> None:
        others.start()
        assert waiting.wait(30)

    first.prepare(SHAPES, say)
    others.join()
    assert said == [f"Another process is writing tokens to {first.folder}; waiting for it"]
    assert len(done) == sum(len(first.open(case, k)) for case in SHAPES for k in range(3))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_image_is_named(tmp_path, value) -> None:
    made = cache(tmp_path)
    write_case(tmp_path / "preprocessed", "b", SHAPES["b"], window_cases.label_manager(), broken=value)
    if np.isnan(value):
        with pytest.raises(NeurinoError, match=r"case b: tokens of the window at \(.*\) are not finite"):
            made.prepare(SHAPES, lambda line: None)
        assert not list(made.folder.glob("b*.json"))
    else:  # clipped like anything else that is too bright
        made.prepare(SHAPES, lambda line: None)


def test_what_is_not_there_is_said_in_one_line(tmp_path) -> None:
    made = cache(tmp_path)
    with pytest.raises(NeurinoError, match="no preprocessed image of case d"):
        made.prepare(["a", "d"], lambda line: None)
    with pytest.raises(NeurinoError, match="a has 1 channels: the network was made for 2"):
        cache(tmp_path, ours=network(in_channels=2)).prepare(["a"], lambda line: None)
