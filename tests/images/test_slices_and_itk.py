"""Folders of slices in the order of their numbers; NIfTI, NRRD and MetaImage with their voxel size."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from nnunet_neurino.cli.main import main
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import read_stack


def save(folder: Path, planes: np.ndarray, numbers: list[int], pattern: str = "slice{}.tif") -> Path:
    folder.mkdir(exist_ok=True)
    for number, plane in zip(numbers, planes, strict=True):
        path = folder / pattern.format(number)
        if path.suffix == ".tif":
            tifffile.imwrite(path, plane, compression="packbits")
        else:
            Image.fromarray(plane).save(path)
    return folder


@pytest.mark.parametrize("pattern", ["slice{}.tif", "c0_z{:03d}_t5.tif", "{}.png", "a_{}.bmp"])
def test_natural_order(tmp_path: Path, pattern: str):
    planes = np.random.default_rng(0).integers(0, 255, (12, 6, 7), dtype=np.uint8)
    folder = save(tmp_path / "s", planes, list(range(12)), pattern)
    (folder / "notes.txt").write_text("x")
    (folder / ".DS_Store").write_text("x")
    stack = read_stack(folder)
    assert np.array_equal(stack.voxels, planes)
    assert [str(f) for f in stack.findings] == ["1 files that are no images -> ignored"]


def test_first_slices_missing_is_told_and_every_other_is_fine(tmp_path: Path):
    planes = np.random.default_rng(0).integers(0, 255, (4, 6, 7), dtype=np.uint8)
    stack = read_stack(save(tmp_path / "s", planes, [9, 10, 11, 12]))
    assert "numbered from 9" in str(stack.findings[0])
    assert np.array_equal(read_stack(save(tmp_path / "t", planes, [0, 5, 10, 15])).voxels, planes)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["a1.tif", "a2.tif", "a4.tif", "a5.tif"], "missing between"),
        (["a1.tif", "a01.tif", "a2.tif"], "same number"),
        (["a_c0_z1.tif", "a_c0_z2.tif", "a_c1_z1.tif"], "differ in 2 numbers"),
        (["a1.tif", "a2.tif", "b1.tif", "b2.tif"], "different series"),
        (["a.tif", "b.tif"], "different series"),
        (["a1.tif", "a2.png"], "different kinds"),
        (["a1.tif"], "one slice only"),
        ([], "no slices"),
    ],
)
def test_what_is_no_single_series_is_refused(tmp_path: Path, names: list[str], word: str):
    folder = tmp_path / "s"
    folder.mkdir()
    for name in names:
        save(folder, np.zeros((1, 4, 5), np.uint8), [0], name)
    with pytest.raises(NeurinoError, match=word):
        read_stack(folder)


def test_one_of_two_numbers_in_the_names_may_be_chosen(tmp_path: Path):
    planes = np.random.default_rng(0).integers(0, 255, (5, 6, 7), dtype=np.uint8)
    folder = tmp_path / "s"
    for plane, (first, second) in zip(planes, [(90, 2), (91, 3), (92, 4), (93, 5), (94, 1)], strict=True):
        save(folder, plane[None], [0], f"cell_{first:03d}_{second:03d}.png")
    with pytest.raises(NeurinoError, match="--slice-number") as refusal:
        read_stack(folder)
    assert "by number 1 from cell_090_002.png to cell_094_001.png" in str(refusal.value)
    assert "by number 2 from cell_094_001.png to cell_093_005.png" in str(refusal.value)
    assert np.array_equal(read_stack(folder, slice_number=1).voxels, planes)
    assert np.array_equal(read_stack(folder, slice_number=2).voxels, planes[[4, 0, 1, 2, 3]])
    with pytest.raises(NeurinoError, match="--slice-number"):
        read_stack(folder, slice_number=3)
    assert main(["check", str(folder)]) == 1
    assert main(["check", str(folder), "--slice-number", "1"]) == 0
    ordinary = save(tmp_path / "t", planes, [1, 2, 3, 4, 5])
    assert np.array_equal(read_stack(ordinary, slice_number=2).voxels, planes)  # one number only: it counts


def test_unlike_and_damaged_slices_are_named(tmp_path: Path):
    planes = np.ones((3, 4, 5), np.uint8)
    folder = save(tmp_path / "s", planes, [1, 2, 3])
    tifffile.imwrite(folder / "slice2.tif", np.ones((4, 6), np.uint8))
    with pytest.raises(NeurinoError, match=r"slice2\.tif"):
        read_stack(folder)
    tifffile.imwrite(folder / "slice2.tif", np.ones((7, 4, 5), np.uint8))
    with pytest.raises(NeurinoError, match=r"slice2\.tif: a stack"):
        read_stack(folder)
    (folder / "slice2.tif").write_bytes(b"")
    with pytest.raises(NeurinoError, match=r"slice2\.tif: the file is empty"):
        read_stack(folder)
    png = save(tmp_path / "p", planes, [1, 2, 3], "{}.png")
    (png / "3.png").write_bytes((png / "3.png").read_bytes()[:40])
    with pytest.raises(NeurinoError, match=r"3\.png"):
        read_stack(png)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("stored", "expected", "word"),
    [
        ((0.0002, 0.0003, 0.001), (1, 0.3, 0.2), ""),
        ((0.2, 0.3, 1.0), (1, 0.3, 0.2), "taken as micrometres"),
        ((1.0, 1.0, 1.0), None, "unknown"),
    ],
)
def test_itk_formats(tmp_path: Path, voxels: np.ndarray, ending: str, stored: tuple, expected: tuple | None, word: str):
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing(stored)
    path = tmp_path / f"a{ending}"
    SimpleITK.WriteImage(image, str(path))
    stack = read_stack(path)
    assert np.array_equal(stack.voxels, voxels)
    assert stack.spacing == (expected if expected is None else pytest.approx(expected, rel=1e-5))
    assert word in " ".join(map(str, stack.findings))
    if ending != ".nii":  # mapped, not read
        with pytest.raises(NeurinoError, match="memory"):
            read_stack(path, max_bytes=voxels.nbytes - 1)
    whole = path.read_bytes()
    for keep in (10, len(whole) // 2):
        path.write_bytes(whole[:keep])
        with pytest.raises(NeurinoError, match=r"a\."):
            read_stack(path)


def test_nifti_with_time_and_with_vector_voxels(tmp_path: Path, voxels: np.ndarray):
    series = SimpleITK.JoinSeries([SimpleITK.GetImageFromArray(voxels + t) for t in range(3)])
    SimpleITK.WriteImage(series, str(tmp_path / "t.nii.gz"))
    with pytest.raises(NeurinoError, match="--time"):
        read_stack(tmp_path / "t.nii.gz")
    assert np.array_equal(read_stack(tmp_path / "t.nii.gz", time=2).voxels, voxels + 2)
    vector = SimpleITK.GetImageFromArray(np.stack([voxels, voxels[::-1]], -1), isVector=True)
    SimpleITK.WriteImage(vector, str(tmp_path / "v.nrrd"))
    assert np.array_equal(read_stack(tmp_path / "v.nrrd").voxels, np.stack([voxels, voxels[::-1]]))


def test_shared_quirks_are_read(shared_data: Path):
    tif, pairs = shared_data / "quirks" / "tif", shared_data / "pairs"
    sizes = {path.name: read_stack(path).voxels.shape for path in sorted(tif.iterdir())}
    assert sizes == {
        "bilevel_1bit_miniswhite.tif": (65, 65, 65),
        "imagej_be_uint16_tiny.tif": (3, 5, 3),
        "ome_uint16_zyx.ome.tif": (5, 256, 256),
        "rgb_stack_planar.tif": (3, 65, 65, 65),
        "slices_packbits_not_zero_padded": (21, 230, 150),
        "tiny_5_slices.tif": (5, 50, 38),
        "v3dpbd_uint16_tiny.v3dpbd": (3, 5, 3),
        "v3draw_uint16_tiny.v3draw": (3, 5, 3),
        "vaa3d_stack_uint8.v3draw": (50, 160, 160),
    }
    slices = read_stack(tif / "slices_packbits_not_zero_padded").voxels
    assert np.array_equal(slices, read_stack(pairs / "tuff_ds_i4_2" / "image.tif").voxels)
    fmost = pairs / "pyneutube_fmost_crop"
    turned = read_stack(fmost / "image_zyx_order.nii.gz", axes="XYZ").voxels
    assert np.array_equal(turned, read_stack(fmost / "image.tif").voxels)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"])
def test_nifti_equals_simpleitk(tmp_path: Path, voxels: np.ndarray, dtype: str, ending: str):
    path = tmp_path / f"a{ending}"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray((voxels / 3).astype(dtype)), str(path))
    stack = read_stack(path)
    assert np.array_equal(stack.voxels, SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))
    assert isinstance(stack.voxels, np.memmap) == (ending == ".nii")
    wrong = tmp_path / ("b.nii" if ending == ".nii.gz" else "b.nii.gz")
    path.rename(wrong)
    assert np.array_equal(read_stack(wrong).voxels, stack.voxels)


def nifti(voxels: np.ndarray, order: str, second: bool, unit: int, slope: float, inter: float) -> bytes:
    """A NIfTI file from the standard's tables."""
    head = bytearray(544 if second else 352)
    z, y, x = voxels.shape
    if second:
        struct.pack_into(order + "i8shh8q", head, 0, 540, b"n+2\0\r\n\x1a\n", 4, 16, 3, x, y, z, 1, 1, 1, 1)
        struct.pack_into(order + "8d", head, 104, 1, 0.2, 0.3, 1.5, 1, 1, 1, 1)
        struct.pack_into(order + "q2d", head, 168, 544, slope, inter)
        struct.pack_into(order + "i", head, 500, unit)
    else:
        struct.pack_into(order + "i", head, 0, 348)
        struct.pack_into(order + "8h", head, 40, 3, x, y, z, 1, 1, 1, 1)
        struct.pack_into(order + "hh", head, 70, 4, 16)
        struct.pack_into(order + "8f", head, 76, 1, 0.2, 0.3, 1.5, 1, 1, 1, 1)
        struct.pack_into(order + "3f", head, 108, 352, slope, inter)
        head[123] = unit
        head[344:348] = b"n+1\0"
    return bytes(head) + voxels.astype(order + "i2").tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize(("unit", "word"), [(3, ""), (0, "no unit"), (2, "millimetres")])
def test_nifti_versions_byte_orders_units_and_scaling(
    tmp_path: Path, voxels: np.ndarray, order: str, second: bool, unit: int, word: str
):
    small, path = (voxels // 300).astype(np.int16), tmp_path / "a.nii"
    path.write_bytes(nifti(small, order, second, unit, 0, 0))
    stack = read_stack(path)
    assert np.array_equal(stack.voxels, small)
    assert stack.spacing == (1.5, 0.3, 0.2)
    assert word in " ".join(map(str, stack.findings))
    path.write_bytes(nifti(small, order, second, unit, 2, -5))
    assert np.array_equal(read_stack(path).voxels, small * 2.0 - 5)
    path.write_bytes(nifti(small, order, second, unit, 0, 0)[:-2])
    with pytest.raises(NeurinoError, match="cut short"):
        read_stack(path)
