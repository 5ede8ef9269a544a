"""Vaa3D's raw and compressed stacks: against an encoder written from the format, and against v3d-py-helper."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import pbd, read_stack

RAW, PBD = b"raw_image_stack_by_hpeng", b"v3d_volume_pkbitdf_encod"


def header(key: bytes, code: int, shape: tuple[int, ...], order: str = "<", size: str = "i") -> bytes:
    return key + {"<": b"L", ">": b"B"}[order] + struct.pack(f"{order}h{len(shape)}{size}", code, *reversed(shape))


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", ["h", "i"])
def test_raw(tmp_path: Path, dtype: str, order: str, size: str):
    voxels = (np.arange(2 * 3 * 4 * 5) % 251).reshape(2, 3, 4, 5).astype(order + dtype)
    path = tmp_path / "a.v3draw"
    path.write_bytes(header(RAW, voxels.itemsize, voxels.shape, order, size) + voxels.tobytes())
    stack = read_stack(path, max_bytes=0)
    assert np.array_equal(stack.voxels, voxels)
    assert stack.voxels.dtype.kind == voxels.dtype.kind
    assert np.array_equal(read_stack(path, channel=1).voxels, voxels[1])


def test_raw_of_five_axes_needs_a_time(tmp_path: Path):
    voxels = np.arange(3 * 2 * 3 * 4, dtype=np.uint8).reshape(3, 1, 2, 3, 4)
    path = tmp_path / "a.v3draw"
    path.write_bytes(header(b"raw5image_stack_by_hpeng", 1, voxels.shape) + voxels.tobytes())
    with pytest.raises(NeurinoError, match="--time"):
        read_stack(path)
    assert np.array_equal(read_stack(path, time=2).voxels, voxels[2, 0])


@pytest.mark.parametrize("key", [RAW, PBD])
@pytest.mark.parametrize(
    ("code", "shape", "word"),
    [
        (1, (1, 10_000, 10_000, 10_000), "promise"),
        (2, (1, 2**31 - 1, 2**31 - 1, 2**31 - 1), "promise"),
        (3, (1, 2, 2, 2), "voxel type 3"),
        (1, (1, 2, -2, 2), "positive"),
        (1, (1, 0, 2, 2), "positive"),
    ],
)
def test_headers_that_lie_are_refused_early(tmp_path: Path, key: bytes, code: int, shape: tuple[int, ...], word: str):
    path = tmp_path / "a.v3draw"
    path.write_bytes(header(key, code, shape) + bytes(20))
    with pytest.raises(NeurinoError, match=word):
        read_stack(path)


@pytest.mark.parametrize("length", [24, 30, 42])
@pytest.mark.parametrize("key", [RAW, PBD])
def test_cut_headers_are_refused(tmp_path: Path, key: bytes, length: int):
    path = tmp_path / "a.v3dpbd"
    path.write_bytes(header(key, 1, (1, 2, 2, 2))[:length])
    with pytest.raises(NeurinoError, match=r"a\.v3dpbd"):
        read_stack(path)


def encode(voxels: np.ndarray, choices: np.random.Generator) -> bytes:
    """Write values with randomly chosen forms, as any encoder might: the table in pbd.py, value by value."""
    out, i, flat, width = bytearray(), 0, [int(v) for v in voxels.ravel()], voxels.itemsize
    order = "big" if voxels.dtype.str[0] == ">" else "little"
    differ = {2: (32, 95)} if width == 1 else {3: (31, 48), 4: (79, 103), 5: (182, 40)}
    literal, repeat, most = (33, 127, 128) if width == 1 else (32, 222, 33)
    while i < len(flat):
        form = int(choices.integers(0, 5))
        want = int(choices.integers(1, 130))
        if form == 0:
            n = 1
            while n < min(most, want) and i + n < len(flat) and flat[i + n] == flat[i]:
                n += 1
            out += bytes([repeat + n]) + flat[i].to_bytes(width, order)
            i += n
            continue
        bits = list(differ)[form % len(differ)]
        half, (base, longest) = 1 << (bits - 1), differ[bits]
        n = 0
        while n < min(longest, want) and i + n < len(flat) and i > 0:
            if not 1 - half <= flat[i + n] - flat[i + n - 1] <= half:
                break
            n += 1
        if n == 0 or form == 4:
            n = min(literal, want, len(flat) - i)
            out += bytes([n - 1]) + b"".join(v.to_bytes(width, order) for v in flat[i : i + n])
        else:
            steps = [flat[j] - flat[j - 1] for j in range(i, i + n)]
            parts = [d if d >= 0 else half - d for d in steps]
            if width == 1:
                packed = [parts[j : j + 4] for j in range(0, n, 4)]
                out += bytes([base + n]) + bytes(sum(p << 2 * k for k, p in enumerate(four)) for four in packed)
            else:
                text = "".join(f"{p:0{bits}b}" for p in parts)
                text += "0" * (-len(text) % 8)
                out += bytes([base + n]) + int(text, 2).to_bytes(len(text) // 8, "big")
        i += n
    return bytes(out)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["u1", "<u2", ">u2"]),
    step=st.sampled_from([0, 1, 2, 5, 12, 90]),
)
def test_compressed_stacks_of_any_encoder(tmp_path_factory: pytest.TempPathFactory, seed: int, dtype: str, step: int):
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    walk = np.abs(np.cumsum(rng.integers(-step, step + 1, 2 * 5 * 7 * 9)) + int(rng.integers(0, top + 1)))
    voxels = np.minimum(walk, top).reshape(2, 5, 7, 9).astype(dtype)
    path = tmp_path_factory.mktemp("pbd") / "a.v3dpbd"
    data = encode(voxels, rng)
    path.write_bytes(header(PBD, voxels.itemsize, voxels.shape, dtype[0] if len(dtype) == 3 else "<") + data)
    chunk = pbd._CHUNK
    try:
        pbd._CHUNK = int(rng.integers(1, 2 * len(data)))  # codes and differences across the seams of chunks
        assert np.array_equal(read_stack(path).voxels, voxels)
    finally:
        pbd._CHUNK = chunk


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_against_v3d_py_helper(tmp_path: Path, dtype: str):
    loaders = pytest.importorskip("v3dpy.loaders")
    rng = np.random.default_rng(5)
    for scale in (0.5, 3, 12, 80):
        walk = np.abs(np.cumsum(rng.normal(0, scale, (1, 9, 30, 31)), -1) + 100)
        voxels = np.minimum(walk, np.iinfo(dtype).max).astype(dtype)
        voxels[:, 4:6] = 17
        for full in (True, False):
            loaders.PBD(full).save(str(tmp_path / "a.v3dpbd"), voxels)
            assert np.array_equal(read_stack(tmp_path / "a.v3dpbd").voxels, voxels[0])
        loaders.Raw().save(str(tmp_path / "a.v3draw"), voxels)
        assert np.array_equal(read_stack(tmp_path / "a.v3draw").voxels, voxels[0])


def test_compressed_data_too_short_or_too_long_are_refused(tmp_path: Path):
    voxels = np.arange(60, dtype=np.uint8).reshape(1, 3, 4, 5)
    data = encode(voxels, np.random.default_rng(0))
    path = tmp_path / "a.v3dpbd"
    for wrong in (data[:-1], data[: len(data) // 2], data + b"\0\0", data + data):
        path.write_bytes(header(PBD, 1, voxels.shape) + wrong)
        with pytest.raises(NeurinoError, match="damaged"):
            read_stack(path)
    path.write_bytes(header(PBD, 1, voxels.shape) + data)
    with pytest.raises(NeurinoError, match="memory"):
        read_stack(path, max_bytes=59)


def test_shared_examples_equal_their_tiff(shared_data: Path):
    tif = shared_data / "quirks" / "tif"
    small = read_stack(tif / "imagej_be_uint16_tiny.tif").voxels
    assert np.array_equal(read_stack(tif / "v3draw_uint16_tiny.v3draw").voxels, small)
    assert np.array_equal(read_stack(tif / "v3dpbd_uint16_tiny.v3dpbd").voxels, small)
    large = read_stack(shared_data / "pairs" / "tuff_ds_class1_sn92" / "image.tif").voxels
    assert np.array_equal(read_stack(tif / "vaa3d_stack_uint8.v3draw").voxels, large)
