"""Real files: every one is read with the right number of pieces and written back, or refused with one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import (
    flip_y,
    from_one_based,
    inspect_swc,
    merge_touching,
    rasterise,
    read_swc,
    shift,
    write_swc,
)

REFUSED = {
    "comments_only_crlf.swc": "no nodes",
    "lfs_like_17_bytes.swc": "line 1",
    "morphio_bad_syntax.swc": "line 6",
    "three_columns_xyz_only.swc": "line 1",
    "type_238_parent_minus2.swc": "line 7: .* its own ancestor",
}
PIECES = {
    "coords_touch_256_upper_border.swc": 17,
    "crlf.swc": 1,
    "disconnected_two_roots.swc": 2,
    "disordered.swc": 1,
    "eswc_extra_columns_zero_based.eswc": 1,
    "floats_everywhere_scientific_crlf.swc": 1,
    "micrometre_units_in_header.swc": 1,
    "missing_ids.swc": 3,
    "no_root_all_parents_dangling.swc": 7,
    "repeated_id_inline_comments.swc": 1,
    "root_parent_zero.swc": 2,
    "three_point_soma.swc": 1,
    "trailing_space.swc": 1,
    "unsorted_parent_forward_refs.swc": 1,
    "utf8_micro_sign_tabs.swc": 1,
    "yflip_pair_a_ydown.swc": 1,
    "yflip_pair_b_yup.swc": 1,
    "zero_based_parent_after_child.swc": 1,
    "zero_length_segments.swc": 1,
    "zero_parent_is_self_no_root.swc": 1,
}


def image_shape(folder: Path) -> tuple[int, ...]:
    """Shape z, y, x of a pair's image."""
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(folder / "image.tif") as tif:
        return tif.series[0].shape


def plain_rows(path: Path) -> list[list[float]]:
    """The data rows of a well-separated file, by other means than ours."""
    lines = (line.split("#")[0].split() for line in path.read_text(encoding="latin-1").splitlines())
    return [[float(field) for field in line[:7]] for line in lines if line]


def test_quirks(shared_data: Path, tmp_path: Path) -> None:
    files = sorted((shared_data / "quirks" / "swc").iterdir())
    assert {path.name for path in files} == {*REFUSED, *PIECES}
    for path in files:
        if path.name in REFUSED:
            with pytest.raises(NeurinoError, match=REFUSED[path.name]) as refusal:
                inspect_swc(path)
            assert "\n" not in str(refusal.value)
            continue
        tree = read_swc(path)
        assert tree.n_pieces == PIECES[path.name], path.name
        assert all(finding.what for finding in inspect_swc(path))
        write_swc(tree, tmp_path / "again.swc")
        assert read_swc(tmp_path / "again.swc", strict=True) == tree


def test_every_tracing_has_all_its_nodes_and_pieces(shared_data: Path, tmp_path: Path) -> None:
    files = [path for folder in ("pairs", "swc_only", "tree_pairs") for path in (shared_data / folder).rglob("*.swc")]
    assert len(files) > 70
    for path in files:
        rows = plain_rows(path)
        ids = {int(row[0]) for row in rows}
        assert len(ids) == len(rows), f"{path}: the reference does not know repeated ids"
        roots = sum(int(row[6]) not in ids or row[6] == row[0] or row[6] == -1 for row in rows)
        tree = read_swc(path)
        assert (len(tree), tree.n_pieces) == (len(rows), roots), path
        by_id = dict(zip(tree.ids.tolist(), tree.xyz.tolist(), strict=True))
        assert all(by_id[int(row[0])] == row[2:5] for row in rows)
        write_swc(tree, tmp_path / "again.swc")
        assert read_swc(tmp_path / "again.swc", strict=True) == tree


@pytest.mark.parametrize(
    ("folder", "most"), [("tuff_ds_intra_in40_body", 8), ("tuff_ds_im3_1sn30", 1), ("tuff_ds_m4_5", 2)]
)
def test_hand_drawn_segments_become_neurons(shared_data: Path, folder: str, most: int) -> None:
    tree = read_swc(shared_data / "pairs" / folder / "tracing.swc")
    merged = merge_touching(tree)
    assert merged.n_pieces <= most < tree.n_pieces
    assert merged.length == pytest.approx(tree.length)
    assert len(merged) == len(tree) - (tree.n_pieces - merged.n_pieces)


def test_every_pair_rasterises_inside_its_image(shared_data: Path) -> None:
    for folder in sorted((shared_data / "pairs").iterdir()):
        shape = image_shape(folder)
        tree = merge_touching(read_swc(folder / "tracing.swc"))
        label = rasterise(tree, shape)
        assert ndimage.label(label, np.ones((3, 3, 3)))[1] <= tree.n_pieces
        voxels = np.floor(tree.xyz[:, ::-1] + 0.5).astype(int)
        inside = ((voxels >= 0) & (voxels < shape)).all(axis=1)
        assert inside.mean() > 0.9, folder.name
        assert label[tuple(voxels[inside].T)].all()


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize(
    ("folder", "original", "offset"),
    [
        ("rivuletpy_fly_test", "original.swc", (0, 0, 0)),
        ("rivuletpy_small_crop", "original.swc", (0, 0, 0)),
        ("tuff_raw_i4_2", "original_uncropped_yup.swc", (-65, 0, 0)),
    ],
)
def test_y_up_originals_give_the_same_label(shared_data: Path, folder: str, original: str, offset: tuple) -> None:
    pair = shared_data / "pairs" / folder
    shape = image_shape(pair)
    tree = shift(read_swc(pair / original), offset)
    expected = rasterise(read_swc(pair / "tracing.swc"), shape)
    assert dice(rasterise(flip_y(tree, shape[1]), shape), expected) > 0.999
    assert dice(rasterise(tree, shape), expected) < 0.5


@pytest.mark.parametrize("folder", ["tuff_ds_i4_2", "tuff_ds_im3_1sn30", "tuff_ds_m4_4"])
def test_one_based_y_up_files_of_the_authors_fall_on_the_tracing(shared_data: Path, folder: str) -> None:
    # They were scaled by another rule than the images: up to a voxel remains.
    pair = shared_data / "pairs" / folder
    tracing = read_swc(pair / "tracing.swc")
    tree = read_swc(pair / "author_scaled_1based_yup.swc")
    fixed = flip_y(from_one_based(tree), image_shape(pair)[1])
    assert np.array_equal(fixed.ids, tracing.ids)
    assert np.abs(fixed.xyz - tracing.xyz).max() < 1.6
    assert np.abs(fixed.xyz - tracing.xyz).max() < np.abs(tree.xyz - tracing.xyz).max() / 10
