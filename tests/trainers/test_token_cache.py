"""Tokens on disk: the right ones, said before they are written, resumed, and never those of something else."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import window_cases
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from window_cases import PATCH, SHAPES, WINDOW, dataset, network, write_case

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers import token_cache
from nnunet_neurino.trainers.token_cache import TokenCache, weights_hash
from nnunet_neurino.trainers.token_file import as_half
from nnunet_neurino.trainers.volume_copies import CopyRecipe, VolumeCopy, padded_shape
from nnunet_neurino.trainers.window_loader import CachedWindows
from nnunet_neurino.trainers.window_settings import WindowSettings

RECIPE = CopyRecipe(copies=3)
IDENTITY = {"configuration": "3d_fullres", "normalisation": ["ZScoreNormalization"]}


def cache(folder: Path, ours=None, recipe: CopyRecipe = RECIPE, identity=None) -> TokenCache:
    """A cache of the cases of ``folder``; they are written if they are not there."""
    source = folder / "preprocessed"
    names = sorted(p.stem for p in source.glob("*.b2nd") if not p.stem.endswith("_seg"))
    data = window_cases.nnUNetDatasetBlosc2(str(source), names) if names else dataset(source)
    return TokenCache(folder / "tokens", ours or network(), recipe, PATCH, data, identity or IDENTITY)


def prepared(folder: Path, **options) -> TokenCache:
    made = cache(folder, **options)
    made.prepare(SHAPES, lambda line: None)
    return made


def states(made: TokenCache) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_mtime_ns, p.stat().st_ino) for p in made.folder.glob("*.npy")}


def encoded(ours, monkeypatch) -> list[int]:
    """Grows by one with each window that is encoded."""
    done: list[int] = []
    tokens = type(ours).tokens
    monkeypatch.setattr(type(ours), "tokens", lambda self, window: done.append(1) or tokens(self, window))
    return done


def test_the_tokens_are_those_that_the_network_computes(tmp_path) -> None:
    ours = network()
    made = prepared(tmp_path, ours=ours)
    for case, shape in SHAPES.items():
        image = made._source.load_case(case)[0][...]
        for number in range(3):
            volume = VolumeCopy.of(case, number, RECIPE, shape, PATCH, WINDOW)
            bright = torch.from_numpy(volume.image(image))[None]
            grid = ours.grid(volume.shape)
            found = made.open(case, number)
            assert isinstance(found, np.memmap)
            assert found.dtype == np.float16
            assert not found.flags.writeable
            wanted = torch.stack([ours.tokens(window)[0] for window in grid.disassemble(bright)])
            assert torch.equal(torch.from_numpy(np.array(found)), wanted.half())
        padded = torch.from_numpy(pad_nd_image(image, padded_shape(shape, PATCH, WINDOW)))[None]
        windows = ours.windows(padded)
        own = torch.stack([windows.tokens(k)[0] for k in range(len(windows.grid))])
        torch.testing.assert_close(torch.from_numpy(np.array(made.open(case, 0))).float(), own, atol=2e-3, rtol=1e-3)
        assert not np.array_equal(made.open(case, 1), made.open(case, 2))


@pytest.mark.parametrize("case", SHAPES)
def test_upside_down_tokens_are_those_of_the_volume_upside_down(tmp_path, case) -> None:
    ours = network()
    made = prepared(tmp_path, ours=ours)
    volume = VolumeCopy.of(case, 1, RECIPE, SHAPES[case], PATCH, WINDOW).turned_over()
    bright = torch.from_numpy(volume.image(made._source.load_case(case)[0]))[None]
    grid = ours.grid(volume.shape)
    counts = np.arange(len(grid)).reshape(grid.counts)
    windows = CachedWindows(grid, [made.open(case, 1)], [counts[::-1].ravel().tolist()], [True])
    for number in range(len(grid)):
        wanted = as_half(ours.tokens(grid.cut(bright, number))).float()
        assert torch.equal(windows.tokens(number), wanted)


def test_what_will_be_written_is_said_before_and_is_what_is_written(tmp_path) -> None:
    made = cache(tmp_path)
    said = []

    def say(line: str) -> None:
        assert not list(made.folder.glob("*.npy")), "said before it is written"
        said.append(line)

    made.prepare(["a", "b"], say, plain=["b", "c"])
    files = sorted(p.name for p in made.folder.glob("*.npy"))
    assert files == [f"{case}__copy{number:02d}.npy" for case in "ab" for number in range(3)] + ["c__copy00.npy"]
    (line,) = said
    assert "2 volumes x 3 copies and of 1 volumes as they are" in line
    assert str(made.folder) in line
    written = sum(p.stat().st_size for p in made.folder.glob("*.npy"))
    assert int(re.search(r"\((\d+) bytes\)", line)[1]) == written
    assert f"{written / 2**20:.3g} MiB" in line
    assert float(re.search(r"where ([\d.e+]+) GiB are free", line)[1]) == pytest.approx(
        shutil.disk_usage(tmp_path).free / 2**30, rel=0.1
    )


def test_what_is_there_is_neither_computed_nor_spoken_of_again(tmp_path, monkeypatch) -> None:
    ours = network()
    made = prepared(tmp_path, ours=ours)
    before, done = states(made), encoded(ours, monkeypatch)
    cache(tmp_path, ours=ours).prepare(SHAPES, lambda line: pytest.fail(line))
    assert not done
    assert states(made) == before


def test_more_copies_leave_those_there_are_and_fewer_remove_the_rest(tmp_path) -> None:
    made = prepared(tmp_path)
    before = states(made)
    more = prepared(tmp_path, recipe=CopyRecipe(copies=4))
    assert more.folder == made.folder
    after = states(more)
    assert len(after) == 12
    assert {name: after[name] for name in before} == before
    fewer = prepared(tmp_path, recipe=CopyRecipe(copies=1))
    assert states(fewer) == {name: state for name, state in before.items() if "copy00" in name}
    assert len(list(made.folder.glob("*.json"))) == 3


def test_other_folds_keep_theirs_and_cases_that_are_gone_go(tmp_path) -> None:
    made = prepared(tmp_path)
    before = states(made)
    cache(tmp_path).prepare(["a"], lambda line: pytest.fail(line), plain=["c"])
    assert states(made) == before
    (tmp_path / "preprocessed" / "b.b2nd").unlink()
    (tmp_path / "preprocessed" / "b_seg.b2nd").unlink()
    other = cache(tmp_path)
    other.prepare(["a"], lambda line: pytest.fail(line))
    assert states(made) == {name: state for name, state in before.items() if not name.startswith("b")}


def change_weights(folder: Path, monkeypatch) -> dict:
    ours = network()
    with torch.no_grad():
        ours.encoder.vit.blocks[0].qkv.weight[0, 0] += 1
    return {"ours": ours}


def change_the_image(folder: Path, monkeypatch) -> dict:
    write_case(folder / "preprocessed", "b", SHAPES["b"], window_cases.label_manager(), seed=1)
    return {}


def change_its_time(folder: Path, monkeypatch) -> dict:
    path = folder / "preprocessed" / "b.b2nd"
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1))
    return {}


def change_the_code(folder: Path, monkeypatch) -> dict:
    monkeypatch.setattr(token_cache, "TOKENS_VERSION", token_cache.TOKENS_VERSION + 1)
    return {}


def change_normalisation(folder: Path, monkeypatch) -> dict:
    return {"identity": IDENTITY | {"normalisation": ["NoNormalization"]}}


def change_layers(folder: Path, monkeypatch) -> dict:
    return {"ours": network(layers=[3])}


def change_recipe(folder: Path, monkeypatch) -> dict:
    return {"recipe": CopyRecipe(3, quarter_turns=False)}


@pytest.mark.parametrize(
    ("change", "cases"),
    [
        (change_weights, "abc"),
        (change_the_image, "b"),
        (change_its_time, "b"),
        (change_the_code, "abc"),
        (change_normalisation, "abc"),
        (change_layers, "abc"),
        (change_recipe, "abc"),
    ],
)
def test_tokens_of_something_else_are_made_anew(tmp_path, monkeypatch, change, cases) -> None:
    before = states(prepared(tmp_path))
    options = change(tmp_path, monkeypatch)
    with pytest.raises(NeurinoError, match="of other data, weights or settings"):
        cache(tmp_path, **options).open("b", 1)
    ours = options.get("ours", network())
    made = prepared(tmp_path, **options | {"ours": ours})
    after = states(made)
    kept = {name for name in before if name[0] not in cases}
    assert {name for name in after if after[name] == before.get(name)} == kept
    recipe = options.get("recipe", RECIPE)
    for case in SHAPES:
        volume = VolumeCopy.of(case, 2, recipe, SHAPES[case], PATCH, WINDOW)
        bright = torch.from_numpy(volume.image(made._source.load_case(case)[0]))[None]
        assert torch.equal(
            torch.from_numpy(np.array(made.open(case, 2)[-1:])),
            ours.tokens(ours.grid(volume.shape).cut(bright, len(ours.grid(volume.shape)) - 1)).half(),
        )


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


def another_header(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"'<f2'", b"'<i2'", 1))


def another_shape(path: Path) -> None:
    np.save(path, np.zeros((1, 2), np.float16))


def never_reached_the_disk(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))


def without_key(path: Path) -> None:
    path.with_suffix(".json").unlink()


def half_a_key(path: Path) -> None:
    path.with_suffix(".json").write_text('{"key": "')


def no_dictionary(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        another_header,
        another_shape,
        never_reached_the_disk,
        without_key,
        half_a_key,
        no_dictionary,
        removed,
    ],
)
def test_a_damaged_file_is_made_anew_and_no_other(tmp_path, damage) -> None:
    made = prepared(tmp_path)
    path = made.folder / "a__copy01.npy"
    whole, before = path.read_bytes(), states(made)
    damage(path)
    with pytest.raises(NeurinoError, match=r"a__copy01.npy: not there, damaged") as error:
        cache(tmp_path).open("a", 1)
    assert "\n" not in str(error.value)
    said: list[str] = []
    cache(tmp_path).prepare(SHAPES, said.append)
    assert "of which 8 of 9 files are there already" in said[0]
    assert f"({len(whole)} bytes)" in said[0]
    assert path.read_bytes() == whole
    after = states(made)
    assert {name for name in after if after[name] != before[name]} == {path.name}


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
from test_token_cache import SHAPES, cache, network
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


Usage = namedtuple("Usage", "total used free")


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path, monkeypatch) -> None:
    made = cache(tmp_path)
    size = 9 * 2**20
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(size, 0, size))
    with pytest.raises(NeurinoError, match=r"only 9 MiB are free there; make fewer copies \(--set copies=1\)") as error:
        made.prepare(SHAPES, lambda line: pytest.fail(line))
    assert "\n" not in str(error.value)
    assert "--set tokens=computed" in str(error.value)
    assert not made.folder.exists()


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


def test_tokens_for_other_settings_are_spoken_of_where_the_disk_matters(tmp_path, monkeypatch) -> None:
    made = prepared(tmp_path)
    said: list[str] = []

    def wanted(*folders: Path) -> str:
        size = sum(p.stat().st_size for folder in folders for p in folder.glob("*.npy"))
        return (
            f"other folders in {tmp_path / 'tokens'} hold {size / 2**20:.3g} MiB of tokens for other settings: remove"
        )

    last = cache(tmp_path, ours=network(layers=[3]))
    last.prepare(["b"], said.append)
    assert wanted(made.folder) in said[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 0, 1))
    with pytest.raises(NeurinoError, match=re.escape(wanted(made.folder, last.folder))):
        cache(tmp_path, ours=network(layers=[2, 3]), recipe=CopyRecipe(1)).prepare(SHAPES, said.append)


def test_one_cache_notices_what_changes_between_two_calls(tmp_path) -> None:
    ours = network()
    made = prepared(tmp_path, ours=ours)
    before = states(made)
    write_case(tmp_path / "preprocessed", "b", (3, 40, 40), window_cases.label_manager())
    made.prepare(SHAPES, lambda line: None)
    assert {name[0] for name, state in states(made).items() if state != before[name]} == {"b"}
    assert len(made.open("b", 0)) == 18
    with torch.no_grad():
        ours.encoder.patch_embed.bias += 1
    after = states(made)
    made.prepare(SHAPES, lambda line: None)
    assert not set(states(made).values()) & set(after.values())


def test_what_is_opened_stays_what_it_was(tmp_path, monkeypatch) -> None:
    made = prepared(tmp_path)
    before = [np.array(made.open(case, 0)) for case in SHAPES]
    other = prepared(tmp_path, **change_weights(tmp_path, monkeypatch))
    for case, tokens in zip(SHAPES, before, strict=True):
        np.testing.assert_array_equal(made.open(case, 0), tokens)
        assert not np.array_equal(other.open(case, 0), tokens)


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


def test_tokens_too_large_for_half_precision_become_the_largest() -> None:
    found = as_half(torch.tensor([1e6, -1e6, 1.5]))
    assert found.tolist() == [65504.0, -65504.0, 1.5]


def test_the_weights_hash_sees_every_number_and_name() -> None:
    ours = network()
    first = weights_hash(ours.encoder)
    assert weights_hash(network().encoder) == first
    with torch.no_grad():
        ours.encoder.vit.norm.bias[-1] += 1e-6
    assert weights_hash(ours.encoder) != first
    halves = torch.nn.ParameterDict({"x": torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))})
    renamed = torch.nn.ParameterDict({"y": torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))})
    assert weights_hash(halves) != weights_hash(renamed)


def test_keys_say_nothing_of_the_place(tmp_path) -> None:
    made = prepared(tmp_path)
    noted = json.loads((made.folder / "a__copy00.json").read_text())
    assert set(noted) == {"key", "blocks"}
    assert re.fullmatch("[0-9a-f]{64}", noted["key"])
