"""TIFF of all kinds is read voxel by voxel, with the right voxel size, or refused in one line."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nnunet_neurino.cli.main import main
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import read_stack, write_tiff


def findings(path: Path, **options: object) -> str:
    return "\n".join(map(str, read_stack(path, **options).findings))  # type: ignore[arg-type]


@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_compressions_and_byte_orders(tmp_path: Path, voxels: np.ndarray, compression: str | None, byteorder: str):
    path = tmp_path / "a.tif"
    data = voxels.astype(np.uint8) if compression == "packbits" else voxels
    tifffile.imwrite(path, data, compression=compression, byteorder=byteorder, metadata={"axes": "ZYX"})
    assert np.array_equal(read_stack(path).voxels, data)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_voxel_types_and_bigtiff(tmp_path: Path, voxels: np.ndarray, dtype: str):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, voxels.astype(dtype), bigtiff=True, metadata={"axes": "ZYX"})
    assert np.array_equal(read_stack(path).voxels, voxels.astype(dtype))


def test_uncompressed_stack_is_mapped_not_read(tmp_path: Path, voxels: np.ndarray):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, voxels, byteorder=">", imagej=True, metadata={"axes": "ZYX"})
    stack = read_stack(path, max_bytes=0)
    assert isinstance(stack.voxels, np.memmap)
    assert np.array_equal(stack.voxels, voxels)


def test_compressed_stack_beyond_the_limit_is_refused(tmp_path: Path, voxels: np.ndarray):
    path = tmp_path / "a.tif"
    write_tiff(path, voxels)
    with pytest.raises(NeurinoError, match="memory"):
        read_stack(path, max_bytes=voxels.nbytes - 1)
    assert np.array_equal(read_stack(path, max_bytes=voxels.nbytes).voxels, voxels)


def test_bilevel_and_palette_give_stored_values(tmp_path: Path):
    bits = np.random.default_rng(1).random((3, 8, 16)) > 0.7
    tifffile.imwrite(tmp_path / "bits.tif", bits, photometric="miniswhite")
    assert np.array_equal(read_stack(tmp_path / "bits.tif").voxels, bits)
    assert "not inverted" in findings(tmp_path / "bits.tif")
    index = np.arange(3 * 8 * 8, dtype=np.uint8).reshape(3, 8, 8)
    colours = np.random.default_rng(2).integers(0, 2**16, (3, 256), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", index, photometric="palette", colormap=colours)
    assert np.array_equal(read_stack(tmp_path / "palette.tif").voxels, index)
    assert "palette" in findings(tmp_path / "palette.tif")


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1), ("um", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3)])
def test_imagej_voxel_size(tmp_path: Path, voxels: np.ndarray, unit: str, factor: float):
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "spacing": 2.5, "unit": unit}
    tifffile.imwrite(path, voxels, imagej=True, resolution=(4, 2), metadata=metadata)
    assert read_stack(path).spacing == pytest.approx((2.5 * factor, 0.5 * factor, 0.25 * factor))


def test_ome_voxel_size_and_channels(tmp_path: Path, voxels: np.ndarray):
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "CZYX", "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}
    metadata |= {"PhysicalSizeZ": 2}
    both = np.stack([voxels, voxels[::-1]])
    tifffile.imwrite(path, both, ome=True, metadata=metadata)
    stack = read_stack(path)
    assert np.array_equal(stack.voxels, both)
    assert stack.spacing == pytest.approx((2, 0.5, 0.25))
    assert np.array_equal(read_stack(path, channel=1).voxels, both[1])
    with pytest.raises(NeurinoError, match="channel 2"):
        read_stack(path, channel=2)


@pytest.mark.parametrize("resolution", [(0, 1), (1, 0)])
def test_senseless_voxel_size_is_told_and_unknown(tmp_path: Path, voxels: np.ndarray, resolution: tuple[int, int]):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, voxels, imagej=True, metadata={"axes": "ZYX", "spacing": 2, "unit": "um"})
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags["XResolution"].overwrite(resolution)
    assert read_stack(path).spacing is None
    assert "no usable voxel size" in findings(path)


def test_the_users_voxel_size_wins_and_is_told(tmp_path: Path, voxels: np.ndarray):
    path = tmp_path / "a.tif"
    write_tiff(path, voxels, (2, 1, 1))
    assert read_stack(path, spacing=(3, 1, 1)).spacing == (3, 1, 1)
    assert "as told" in findings(path, spacing=(3, 1, 1))
    assert findings(path, spacing=(2, 1, 1)) == ""
    for wrong in ((0, 1, 1), (1, 1), (float("nan"), 1, 1), (-1, 1, 1)):
        with pytest.raises(NeurinoError, match="voxel size"):
            read_stack(path, spacing=wrong)


@pytest.mark.parametrize("axes", ["CYX", "TYX"])
def test_pages_called_channels_or_times_need_the_users_word(tmp_path: Path, voxels: np.ndarray, axes: str):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, voxels, imagej=True, metadata={"axes": axes})
    with pytest.raises(NeurinoError, match="--axes ZYX"):
        read_stack(path)
    assert np.array_equal(read_stack(path, axes="ZYX").voxels, voxels)


def test_time_points_must_be_chosen(tmp_path: Path, voxels: np.ndarray):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([voxels, voxels + 1, voxels + 2]), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(NeurinoError, match="--time 0 to 2"):
        read_stack(path)
    assert np.array_equal(read_stack(path, time=1).voxels, voxels + 1)


def test_unnamed_page_axis_is_z_only_when_alone(tmp_path: Path, voxels: np.ndarray):
    tifffile.imwrite(tmp_path / "one.tif", voxels)
    assert np.array_equal(read_stack(tmp_path / "one.tif").voxels, voxels)
    assert "taken as z" in findings(tmp_path / "one.tif")
    two = np.stack([voxels, voxels + 1])
    tifffile.imwrite(tmp_path / "two.tif", two, photometric="minisblack")
    with pytest.raises(NeurinoError, match=r"ambiguous.*--axes CZYX$"):
        read_stack(tmp_path / "two.tif")
    tifffile.imwrite(tmp_path / "three.tif", np.stack([two, two]), photometric="minisblack")
    with pytest.raises(NeurinoError, match=r"ambiguous.*--axes TCZYX$"):
        read_stack(tmp_path / "three.tif")
    assert np.array_equal(read_stack(tmp_path / "two.tif", axes="CZYX").voxels, two)
    assert np.array_equal(read_stack(tmp_path / "two.tif", axes="TZYX", time=1).voxels, two[1])


@pytest.mark.parametrize("axes", ["ZY", "ZZX", "ZYQ", "ZCYX", ""])
def test_axes_that_do_not_fit_are_refused(tmp_path: Path, voxels: np.ndarray, axes: str):
    write_tiff(tmp_path / "a.tif", voxels)
    with pytest.raises(NeurinoError, match="axes"):
        read_stack(tmp_path / "a.tif", axes=axes)


def test_axes_move_the_voxel_size_along(tmp_path: Path, voxels: np.ndarray):
    write_tiff(tmp_path / "a.tif", voxels, (3, 2, 1))
    stack = read_stack(tmp_path / "a.tif", axes="XYZ")
    assert np.array_equal(stack.voxels, voxels.transpose(2, 1, 0))
    assert stack.spacing == pytest.approx((1, 2, 3))


@pytest.mark.parametrize("planar", [True, False])
def test_colours_become_channels_and_grey_ones_collapse(tmp_path: Path, planar: bool):
    colour = np.random.default_rng(3).integers(0, 255, (4, 3, 9, 7), dtype=np.uint8)
    stored, config = (colour, "separate") if planar else (colour.transpose(0, 2, 3, 1), "contig")
    tifffile.imwrite(tmp_path / "rgb.tif", stored, photometric="rgb", planarconfig=config)
    assert np.array_equal(read_stack(tmp_path / "rgb.tif").voxels, colour.transpose(1, 0, 2, 3))
    grey = np.repeat(stored[:, :1], 3, 1) if planar else np.repeat(stored[..., :1], 3, 3)
    tifffile.imwrite(tmp_path / "grey.tif", grey, photometric="rgb", planarconfig=config)
    assert np.array_equal(read_stack(tmp_path / "grey.tif").voxels, colour[:, 0])
    assert "one is kept" in findings(tmp_path / "grey.tif")


def test_many_channels_beside_few_slices_are_refused(tmp_path: Path):
    stack = np.zeros((3, 40, 8, 8), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(NeurinoError, match="mixed up"):
        read_stack(tmp_path / "a.tif")


def test_a_single_slice_and_several_images_are_refused(tmp_path: Path, voxels: np.ndarray):
    tifffile.imwrite(tmp_path / "slice.tif", voxels[0])
    with pytest.raises(NeurinoError, match="single slice"):
        read_stack(tmp_path / "slice.tif")
    assert read_stack(tmp_path / "slice.tif", axes="YX").voxels.shape == (1, 5, 6)
    with tifffile.TiffWriter(tmp_path / "two.tif") as tif:
        tif.write(voxels)
        tif.write(voxels[:, :4])
    with pytest.raises(NeurinoError, match="2 images"):
        read_stack(tmp_path / "two.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_cut_short_is_refused(tmp_path: Path, compression: str | None):
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(4).integers(0, 2**16, (8, 32, 32), dtype=np.uint16)
    tifffile.imwrite(path, noise, compression=compression, metadata={"axes": "ZYX"})
    whole = path.read_bytes()
    for keep in (0.2, 0.6, 0.99):
        path.write_bytes(whole[: int(len(whole) * keep)])
        with pytest.raises(NeurinoError, match=r"a\.tif"):
            read_stack(path)


def test_header_that_promises_a_trillion_voxels_is_refused_early(tmp_path: Path, voxels: np.ndarray):
    for compression in (None, "zlib"):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, voxels, compression=compression, metadata=None)
        with tifffile.TiffFile(path, mode="r+") as tif:
            for page in tif.pages:
                page.tags["ImageWidth"].overwrite(2_000_000)
                page.tags["ImageLength"].overwrite(500_000)
        with pytest.raises(NeurinoError, match=r"a\.tif"):
            read_stack(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"II*\0", "not a readable TIFF"),
        (b"II*\0\xff\xff\xff\xff", "TIFF"),
        (b"MM\0*\0\0\0\x08\xff\xff", "TIFF"),
        (bytes(range(256)), "not an image stack"),
        (b"\x1f\x8b\x08", "gunzip"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, word: str):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(NeurinoError, match=word) as error:
        read_stack(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    with pytest.raises(NeurinoError, match="no such file"):
        read_stack(tmp_path / "missing.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_a_pipe_is_refused_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(NeurinoError, match="ordinary file"):
        read_stack(tmp_path / "a.tif")


def broken_chain(path: Path, page: int, place: int | None = None) -> None:
    """Let ``page`` of a little-endian classic TIFF lead to ``place``, by default to the first page."""
    with tifffile.TiffFile(path) as tif:
        offsets = [one.offset for one in tif.pages]
    data = bytearray(path.read_bytes())
    (tags,) = struct.unpack_from("<H", data, offsets[page])
    struct.pack_into("<I", data, offsets[page] + 2 + 12 * tags, offsets[0] if place is None else place)
    path.write_bytes(data)


@pytest.mark.parametrize("place", [None, 0, 10**8])
@pytest.mark.parametrize("kind", ["zlib", "imagej", "shaped"])
def test_a_broken_chain_of_pages_is_refused_with_its_loss(tmp_path: Path, kind: str, place: int | None, capsys):
    voxels = np.random.default_rng(0).integers(0, 3000, (20, 16, 18)).astype(np.uint16)
    path = tmp_path / "a.tif"
    if kind == "zlib":
        write_tiff(path, voxels, (2, 1, 1))
    else:
        tifffile.imwrite(path, voxels, imagej=kind == "imagej", metadata={"axes": "ZYX"})
    broken_chain(path, 7, place)
    if kind == "imagej" and place is None:  # the slices follow one another, and the first page tells of all
        assert np.array_equal(read_stack(path).voxels, voxels)
        return
    with pytest.raises(NeurinoError, match=r"of 5,760 voxels are lost.*--allow-damaged"):
        read_stack(path)
    assert main(["check", str(path), "--allow-damaged"]) == 0
    assert "chain of pages is broken" in capsys.readouterr().out
    stack = read_stack(path, allow_damaged=True)
    assert stack.voxels.shape == voxels.shape
    assert stack.spacing == ((2, 1, 1) if kind == "zlib" else None)
    whole = [np.array_equal(a, b) for a, b in zip(stack.voxels, voxels, strict=True)]
    assert whole == ([True] * sum(whole) + [False] * (20 - sum(whole)))
    assert 4 <= sum(whole) <= 8
    assert not stack.voxels[sum(whole) :].any()


def test_pages_without_a_promised_number_break_off(tmp_path: Path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for plane in np.ones((9, 5, 6), np.uint8):
            tif.write(plane, contiguous=False, metadata=None)
    broken_chain(path, 4, 10**8)
    with pytest.raises(NeurinoError, match="chain of pages is broken"):
        read_stack(path)
    assert read_stack(path, allow_damaged=True).voxels.shape == (5, 5, 6)


def test_small_images_beside_the_stack_are_named_as_previews(tmp_path: Path, voxels: np.ndarray):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(voxels, metadata={"axes": "ZYX"})
        tif.write(voxels[0, :2, :3], metadata=None)
    stack = read_stack(tmp_path / "a.tif")
    assert np.array_equal(stack.voxels, voxels)
    assert "beside the largest 2x3 -> " in str(stack.findings[0])
