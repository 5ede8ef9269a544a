"""Atomic writing: whole or not at all."""

from __future__ import annotations

import json

import pytest

from nnunet_neurino.files import atomic_path, write_json


def test_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "scores.json"
    target.write_text("old")

    def fail_half_way() -> None:
        with atomic_path(target) as unfinished:
            unfinished.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_suffix_is_kept_for_writers_that_choose_by_it(tmp_path):
    with atomic_path(tmp_path / "new" / "stack.nii.gz") as unfinished:
        assert unfinished.name.endswith(".nii.gz")
        unfinished.write_bytes(b"x")
    assert (tmp_path / "new" / "stack.nii.gz").stat().st_mode & 0o600 == 0o600


def test_json_is_readable_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"f1": 0.5, "hd95": None})
    assert json.loads((tmp_path / "a.json").read_text()) == {"f1": 0.5, "hd95": None}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", {"f1": float("nan")})
    assert not (tmp_path / "b.json").exists()
