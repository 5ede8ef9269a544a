"""Main components of features as colours."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures import encoder_features, feature_figure, pca_rgb


def test_components_are_those_of_an_independent_implementation() -> None:
    rng = np.random.default_rng(0)
    features = np.einsum(
        "ck,kzyx->czyx",
        rng.normal(size=(12, 4)),
        rng.normal(size=(4, 3, 7, 8)) * [[[[9]]], [[[3]]], [[[1]]], [[[0.1]]]],
    )
    colours = pca_rgb(features)
    assert colours.shape == (3, 7, 8, 3)
    expected = PCA(3).fit_transform(features.reshape(12, -1).T)
    for at in range(3):
        inside = (colours[..., at] > 0) & (colours[..., at] < 1)
        match = np.corrcoef(colours[..., at][inside], expected[:, at].reshape(3, 7, 8)[inside])[0, 1]
        assert abs(match) == pytest.approx(1, abs=1e-6)


def test_colours_do_not_depend_on_the_sign_of_the_solver_and_cope_with_little() -> None:
    features = np.random.default_rng(1).normal(size=(5, 2, 6, 6))
    # Opposite features have the same axes, turned the same way.
    assert pca_rgb(-features) == pytest.approx(1 - pca_rgb(features))
    assert (pca_rgb(np.ones((4, 2, 3, 3))) == 0.5).all()
    two = pca_rgb(features[:2])
    assert (two[..., 2] == 0.5).all()
    assert np.ptp(two[..., 0]) == pytest.approx(1)


def test_features_of_our_network_in_order_and_without_a_trace() -> None:
    torch = pytest.importorskip("torch")
    from nnunet_neurino.networks import NeurINO

    torch.manual_seed(0)
    network = NeurINO(in_channels=1, num_classes=2, size="atto").train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    patch = np.random.default_rng(0).normal(size=(1, 20, 33, 40)).astype(np.float32)
    maps = encoder_features(network, patch)
    sizes = [one[0].size for one in maps]
    assert sizes == sorted(sizes, reverse=True)
    assert len(maps) >= 4
    assert all(np.isfinite(one).all() for one in maps)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all((one == two).all() for one, two in zip(maps, encoder_features(network, patch), strict=True))


def test_figure_has_a_row_a_network_and_the_aspect_of_the_stack(pixels) -> None:
    rng = np.random.default_rng(2)
    patch = rng.normal(size=(1, 6, 20, 30)).astype(np.float32)
    maps = [rng.normal(size=(8, 3, 10, 15)), rng.normal(size=(16, 2, 5, 8))]
    figure = feature_figure(patch, {"with 2D weights": maps, "random weights": maps[:1]}, spacing=(2.0, 1.0, 0.5))
    pixels(figure)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 3 + 2
    for axes in shown:
        box = axes.get_window_extent()
        assert box.height / box.width == pytest.approx(20 * 1.0 / (30 * 0.5), rel=0.02)
    assert [axes.get_ylabel() for axes in shown if axes.get_ylabel()] == ["with 2D weights", "random weights"]


def test_networks_without_encoder_and_wrong_patches_are_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(NeurinoError, match="no encoder"):
        encoder_features(torch.nn.Conv3d(1, 1, 1), np.zeros((1, 4, 4, 4)))
    network = torch.nn.Sequential()
    network.encoder = torch.nn.Conv3d(1, 2, 1)
    with pytest.raises(NeurinoError, match=r"\(channels, z, y, x\)"):
        encoder_features(network, np.zeros((4, 4, 4)))
