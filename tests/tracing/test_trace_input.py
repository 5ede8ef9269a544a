"""Tracing of what is hardly a mask, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from nnunet_neurino.cli.main import main
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import write_tiff
from nnunet_neurino.tracing import TraceSettings, trace


@pytest.mark.parametrize(
    ("mask", "nodes"),
    [
        (np.zeros((5, 6, 7), bool), 0),
        (np.pad(np.ones((1, 1, 1), bool), 3), 0),
        (np.pad(np.ones((3, 3, 3), bool), 4), 1),
    ],
)
def test_next_to_nothing(mask: np.ndarray, nodes: int) -> None:
    tree = trace(mask)
    assert (len(tree) > 0) == (nodes > 0)
    assert tree.unit == "voxel"


def test_plane_and_line_shaped_volumes() -> None:
    for shape in ((1, 30, 40), (30, 1, 40), (1, 1, 40)):
        mask = np.zeros(shape, bool)
        mask[shape[0] // 2, shape[1] // 2, 4:36] = True
        tree = trace(mask)
        assert (tree.n_pieces, round(tree.length)) == (1, pytest.approx(31, abs=2))


@pytest.mark.parametrize(
    ("volume", "said"),
    [
        (np.ones((20, 20, 20), bool), "100% of the image is foreground"),
        (np.linspace(-5, 900, 1000).reshape(10, 10, 10), "values from -5 to 900"),
        (np.full((4, 4, 4), np.nan), "NaN"),
        (np.zeros((2, 3, 4, 5)), "4 axes"),
        (np.zeros((0, 3, 4)), "no voxels"),
    ],
)
def test_what_is_no_mask_is_refused(volume: np.ndarray, said: str) -> None:
    with pytest.raises(NeurinoError, match=said):
        trace(volume)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(NeurinoError, match="low <= high"):
        TraceSettings(low=0.6, high=0.5)
    for name in ("low", "min_length", "bridge_length", "bridge_angle", "prune", "node_spacing"):
        with pytest.raises(NeurinoError):
            TraceSettings(**{name: float("nan")})
    for root in ((1.0, 2.0), (1.0, float("nan"), 2.0)):
        with pytest.raises(NeurinoError, match="root"):
            TraceSettings(root=root)  # type: ignore[arg-type]
    with pytest.raises(NeurinoError, match="bridge_angle"):
        TraceSettings(bridge_angle=0)
    with pytest.raises(NeurinoError, match="spacing"):
        trace(np.zeros((3, 3, 3), bool), (1, 0, 1))
    with pytest.raises(NeurinoError, match="expected the same"):
        trace(np.zeros((3, 3, 3), bool), image=np.zeros((3, 3, 4)))


def test_a_raw_image_given_as_a_mask_is_suspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    clean = np.zeros((10, 40, 50))
    clean[4:7, 18:21, 3:47] = 1
    soft = ndimage.gaussian_filter(clean, 0.7)
    raw = np.clip(40 + 120 * soft + rng.normal(0, 8, clean.shape), 0, 255).astype(np.uint8)
    dark = np.clip(100 * soft + rng.normal(0, 8, clean.shape), 0, 255).astype(np.uint8)
    logits = 12 * soft - 5 + rng.normal(0, 0.7, clean.shape)
    probabilities = np.rint(255 / (1 + np.exp(-logits))).astype(np.uint8)
    for name, volume in {"raw": raw, "dark": dark}.items():
        write_tiff(tmp_path / f"{name}.tif", volume, (1, 1, 1))
        command = ["trace", str(tmp_path / f"{name}.tif"), "-o", str(tmp_path / "t.swc")]
        assert main(command) == 1
        assert "looks like a raw image" in capsys.readouterr().err
        assert main([*command, "--low", "0.3", "--high", "0.4"]) == 0
    for name, volume in {"map": probabilities, "mask": clean.astype(np.uint8) * 255}.items():
        write_tiff(tmp_path / f"{name}.tif", volume, (1, 1, 1))
        assert main(["trace", str(tmp_path / f"{name}.tif"), "-o", str(tmp_path / "t.swc")]) == 0
