"""Damaged files of every format are read or refused in one line: never another exception, never a hang."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import read_stack, write_tiff

# Raise for a long run: NEURINO_MUTATIONS=20000 pytest tests/images/test_mutations.py
MUTATIONS = int(os.environ.get("NEURINO_MUTATIONS", "120"))


def seeds(folder: Path, voxels: np.ndarray) -> dict[str, bytes]:
    small = voxels.astype(np.uint8)
    write_tiff(folder / "zlib.tif", voxels, (2, 1, 1))
    tifffile.imwrite(folder / "plain.tif", voxels, imagej=True, metadata={"axes": "ZYX", "unit": "um", "spacing": 2})
    tifffile.imwrite(folder / "lzw.tif", small, compression="lzw", bigtiff=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "ome.ome.tif", voxels, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 1.0})
    for ending in (".nii", ".nrrd", ".mha"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(folder / f"a{ending}"))
    sizes = struct.pack("<h4i", 2, 6, 5, 7, 1)
    (folder / "a.v3draw").write_bytes(b"raw_image_stack_by_hpengL" + sizes + voxels.tobytes())
    literal = b"".join(bytes([5]) + row.tobytes() for row in voxels.reshape(-1, 6))
    (folder / "a.v3dpbd").write_bytes(b"v3d_volume_pkbitdf_encodL" + sizes + literal)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, len(changed)))
        kind = rng.integers(0, 5)
        if kind == 0:
            changed[at] = int(rng.integers(0, 256))
        elif kind == 1:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            changed[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\1\0\0\0"])
        elif kind == 3:
            del changed[at : at + int(rng.integers(1, 20))]
        else:
            changed[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 8)), dtype=np.uint8))
        if not changed:
            return b""
    return bytes(changed)


@pytest.mark.parametrize(
    "name", ["zlib.tif", "plain.tif", "lzw.tif", "ome.ome.tif", "a.nii", "a.nrrd", "a.mha", "a.v3draw", "a.v3dpbd"]
)
def test_mutated_files(tmp_path: Path, voxels: np.ndarray, name: str):
    whole = seeds(tmp_path, voxels)[name]
    rng = np.random.default_rng(sum(name.encode()))
    path, read, refused = tmp_path / f"mutated-{name}", 0, 0
    messages: list[str] = []
    assert np.array_equal(read_stack(tmp_path / name).voxels, voxels.astype(np.uint8) if "lzw" in name else voxels)
    for i in range(MUTATIONS):
        # Half of the damage goes into the header, where it matters most.
        data = mutate(whole[:400], rng) + whole[400:] if i % 2 else mutate(whole, rng)
        path.write_bytes(data)
        try:
            stack = read_stack(path, max_bytes=2**26)
            np.asarray(stack.channels[..., :2])
            read += 1
        except NeurinoError as error:
            refused += 1
            messages.append(str(error))
    assert not [m for m in messages if "\n" in m or str(path) not in m]
    assert read + refused == MUTATIONS
    assert refused > 0
