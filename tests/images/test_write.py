"""What is written is read back the same, twice the same bytes, whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nnunet_neurino.images import read_stack, write_tiff


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("compress", [True, False])
def test_round_trip(tmp_path: Path, voxels: np.ndarray, dtype: str, compress: bool):
    path = tmp_path / "a.tif"
    array = voxels.astype(dtype)
    write_tiff(path, array, (2.5, 0.5, 0.25), compress)
    stack = read_stack(path)
    assert np.array_equal(stack.voxels, array)
    assert stack.voxels.dtype == (np.uint8 if dtype == "bool" else dtype)
    assert stack.spacing == pytest.approx((2.5, 0.5, 0.25))
    assert stack.findings == ()
    assert np.array_equal(tifffile.imread(path), array)


def test_channels_and_byte_order(tmp_path: Path, voxels: np.ndarray):
    both = np.stack([voxels, voxels[::-1]]).astype(">u2")
    write_tiff(tmp_path / "a.tif", both, (2, 1, 1))
    assert np.array_equal(read_stack(tmp_path / "a.tif").voxels, both)
    assert read_stack(tmp_path / "a.tif").spacing == (2, 1, 1)


def test_same_stack_same_bytes(tmp_path: Path, voxels: np.ndarray):
    for name in ("a.tif", "b.tif"):
        write_tiff(tmp_path / name, voxels, (1, 0.3, 0.3))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_disk_full_leaves_the_old_file(tmp_path: Path, voxels: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.tif"
    write_tiff(path, voxels)
    before = path.read_bytes()

    def full(target: Path, *_: object, **__: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(OSError, match="No space"):
        write_tiff(path, voxels + 1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
