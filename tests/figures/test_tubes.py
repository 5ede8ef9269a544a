"""The picture of tubes shows the lines that the network samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures import png_bytes
from nnunet_neurino.figures.tubes import brightest_tokens, tube_figure, tube_lines
from nnunet_neurino.networks import DINeuro, NeurINO


def test_lines_are_in_voxels_of_the_patch_whatever_the_magnification() -> None:
    patch = np.zeros((1, 3, 32, 40), np.float32)
    for magnify in (1, 2):
        network = DINeuro(vit="atto", magnify=magnify)
        lines = tube_lines(network, patch)
        size = 16 // magnify
        assert [line.shape for line in lines] == [(3, 32 // size, -(-40 // size), 256, 3)] * 3
        for axis, line in enumerate(lines):
            # Straight tubes: the middle tap lies on the middle of its cell, the lower of two pixels of the ViT's image.
            middle = line[1, 1, 0, 127]
            expected = np.array([1, 1.5 * size, 0.5 * size]) - [0, 0.5, 0.5] - np.array([0, 0.5, 0.5]) / magnify
            np.testing.assert_allclose(middle, expected, atol=1e-5)
            step = np.zeros(3)
            step[axis] = 1 if axis == 0 else 1 / magnify
            np.testing.assert_allclose(np.diff(line[1, 1, 0], axis=0), np.tile(step, (255, 1)), atol=1e-4)


def test_bent_lines_are_drawn_where_the_network_samples() -> None:
    torch.manual_seed(0)
    network = DINeuro(vit="atto")
    for view in network.encoder.tubes.views:
        torch.nn.init.normal_(view.head[-1].bias)
    patch = np.random.default_rng(0).random((1, 8, 64, 64)).astype(np.float32)
    patch[0, 3, 20, 40] = 9
    lines = tube_lines(network, patch)
    tokens = brightest_tokens(patch[0], lines[0].shape[:3], 3)
    assert tokens[0] == (3, 1, 2)
    assert len({token[1:] for token in tokens}) == 3
    figure = tube_figure(patch, lines, tokens, (2.0, 0.5, 0.5), "tubes")
    axes = {one.get_label(): one for one in figure.axes}
    drawn = axes["3:xy"].lines[0].get_xydata()  # panel 3: tubes along x; first token
    line = lines[2][tokens[0]]
    inside = ((line >= -0.5) & (line <= np.array([8, 64, 64]) - 0.5)).all(axis=1)
    np.testing.assert_allclose(drawn[inside], line[inside][:, [2, 1]] * 0.5, atol=1e-5)
    assert np.isnan(drawn[~inside]).all()
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_networks_and_tokens_without_tubes_are_named() -> None:
    patch = np.zeros((1, 4, 32, 32), np.float32)
    for network in (DINeuro(vit="atto", tubes=False), NeurINO(size="atto")):
        with pytest.raises(NeurinoError, match="no tubes"):
            tube_lines(network, patch)
    with pytest.raises(NeurinoError, match="not in the grid"):
        tube_figure(patch, tube_lines(DINeuro(vit="atto"), patch), [(0, 2, 0)])
