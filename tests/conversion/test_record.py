"""The record of a case: its JSON form on disk, and the files that it names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conversion_helpers import neuron, picture_of

from nnunet_neurino.conversion import Case, ConvertSettings, convert_dataset, find_cases
from nnunet_neurino.conversion.record import Record
from nnunet_neurino.conversion.splits import with_specimens
from nnunet_neurino.images import write_tiff

# The keys of the first release: a conversion that it began goes on with today's code, and the other way round.
ALWAYS = ["case", "set", "specimen", "images", "inputs", "shape", "channels", "type", "spacing", "image_findings"]
TRACED = ["tracing", "nodes", "pieces", "pieces_that_do_not_touch", "tracing_findings", "alignment"]
ALIGNMENT = ["stored", "stored_contrast", "best", "best_contrast", "clear", "runner_up", "applied", "nodes_inside"]
ALIGNMENT += ["misplaced"]  # later; records without it are read, too


@pytest.fixture
def converted(make_pairs: Callable[..., Path], tmp_path: Path) -> tuple[Path, list[Case], ConvertSettings]:
    data = make_pairs(2)
    write_tiff(data / "new.tif", picture_of(neuron(9)))
    cases = with_specimens(find_cases(data, data)[0], None)
    settings = ConvertSettings(7, "T", spacing=(1, 0.5, 0.5), block=(12, 30, 70))
    return convert_dataset(cases, settings, tmp_path, progress=False).folder, cases, settings


def test_keys_on_disk(converted):
    folder, _, _ = converted
    traced = json.loads((folder / "conversion" / "cell0.json").read_text())
    assert list(traced)[: len(ALWAYS + TRACED)] == ALWAYS + TRACED
    assert set(traced) - set(ALWAYS + TRACED) in (
        {"written", "foreground"},
        {"written", "foreground", "blocks_dropped"},
    )
    assert list(traced["alignment"]) == ALIGNMENT
    assert list(json.loads((folder / "conversion" / "new.json").read_text())) == [*ALWAYS, "written"]


def test_records_name_all_files_of_the_data_set(converted):
    folder, cases, settings = converted
    records = [Record.read(case, settings, folder) for case in cases]
    assert [record.case for record in records] == ["cell0", "cell1", "new"]
    named = {path for record in records for path in record.files()}
    there = {path for path in folder.rglob("*") if path.is_file() and path.parent != folder}
    assert named == {path for path in there if path.suffix != ".json" or path.parent.name != "conversion"}
    for record in records:
        before = (folder / "conversion" / f"{record.case}.json").read_bytes()
        record.write()
        assert (folder / "conversion" / f"{record.case}.json").read_bytes() == before


def test_anything_missing_or_changed_is_converted_anew(converted):
    folder, (case, *_), settings = converted
    record = Record.read(case, settings, folder)
    for path in record.files():
        content = path.read_bytes()
        path.unlink()
        assert Record.read(case, settings, folder) is None, path
        path.write_bytes(content)
    on_disk = folder / "conversion" / "cell0.json"
    content = json.loads(on_disk.read_text())
    for change in (
        {"written": 3},
        {"alignment": {"stored": "as stored"}},
        {"key of a later version": 1},
        {"set": "test"},
    ):
        on_disk.write_text(json.dumps({**content, **change}))
        assert Record.read(case, settings, folder) is None, change
    on_disk.write_text("[]")
    assert Record.read(case, settings, folder) is None
    on_disk.write_text(json.dumps(content))
    assert Record.read(case, settings, folder) == record
    case.tracing.write_text(case.tracing.read_text() + "# later\n")
    assert Record.read(case, settings, folder) is None
