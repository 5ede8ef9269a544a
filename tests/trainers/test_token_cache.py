"""Tokens on disk: the right ones, said before they are written, and never those of something else."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import window_cases
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from token_cases import IDENTITY, RECIPE, Usage, cache, change_weights, encoded, prepared, states
from window_cases import PATCH, SHAPES, WINDOW, network, write_case

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.windows import token_cache
from nnunet_neurino.trainers.windows.copies import CopyRecipe, VolumeCopy, padded_shape
from nnunet_neurino.trainers.windows.loader import CachedWindows
from nnunet_neurino.trainers.windows.token_file import as_half


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
        ours.encoder.patch_embed.proj.bias += 1
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
