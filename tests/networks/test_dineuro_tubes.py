"""Tubes: straight ones are convolutions, bent ones are what a loop says, and they take little memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import map_coordinates

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.tubes import TubeEmbedding, TubeView, centre_of, curve_basis, flatten_kernel

AXES = (0, 1, 2)


def bent(view: TubeView, scale: float = 1.0) -> TubeView:
    """The view with an offset head that no longer says 'straight'."""
    torch.manual_seed(7)
    torch.nn.init.normal_(view.head[-1].weight, std=scale)
    torch.nn.init.normal_(view.head[-1].bias, std=scale)
    return view


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    ("length", "shape", "stride"),
    [
        (256, (5, 96, 112), (1, 16, 16)),
        (9, (7, 33, 50), (1, 16, 16)),
        (8, (9, 20, 12), (3, 4, 2)),
        (5, (6, 6, 6), (2, 2, 2)),
    ],
)
def test_straight_tubes_are_a_strided_convolution_with_the_flattened_kernel(
    axis: int, length: int, shape: tuple[int, ...], stride: tuple[int, int, int]
) -> None:
    torch.manual_seed(1)
    view = TubeView(2, 6, axis, length, stride, controls=min(length, 17))
    image = torch.randn(2, 2, *shape)
    found = view(image)
    kernel = [1, 1, 1]
    kernel[axis] = length
    # Zeros on both sides, so that tap `centre` of cell t lies on voxel t * stride + (stride - 1) // 2.
    padding: list[int] = []
    for a in reversed(AXES):
        before = (centre_of(length) if a == axis else 0) - (stride[a] - 1) // 2
        after = (length - 1 - centre_of(length) if a == axis else 0) + (stride[a] - 1) // 2
        padding += [before, after]
    padded = F.pad(image, padding)
    expected = F.conv3d(padded, view.weight.view(6, 2, *kernel), view.bias, stride).permute(0, 2, 3, 4, 1)
    expected = expected[:, : found.shape[1], : found.shape[2], : found.shape[3]]
    assert found.shape[1:4] == tuple(n // s if s > 1 else n for n, s in zip(shape, stride, strict=True))
    assert (found - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("controls", [1, 5, 17, 64])
@pytest.mark.parametrize("length", [64, 255, 256])
def test_offsets_start_from_an_exact_zero_at_the_centre_and_are_bounded(length: int, controls: int) -> None:
    image = torch.randn(1, 1, 4, 32, 48)
    far = (torch.arange(length) - centre_of(length)).abs()
    for axis in AXES:
        offsets = bent(TubeView(1, 4, axis, length, controls=controls), 50.0).offsets(image)
        assert offsets.shape == (1, 4, 2, 3, 2, length)
        assert torch.equal(offsets[..., centre_of(length)], torch.zeros(1, 4, 2, 3, 2))
        assert (offsets.abs() <= far + 1e-4).all()
        assert offsets.diff(dim=-1).abs().max() <= 1 + 1e-4, "one connected line"


def test_the_bound_is_reached() -> None:
    view = TubeView(1, 4, 2)
    torch.nn.init.constant_(view.head[-1].bias, 100.0)
    offsets = view.offsets(torch.randn(1, 1, 2, 32, 32))
    far = (torch.arange(256) - centre_of(256)).abs().float()
    torch.testing.assert_close(offsets, far.expand_as(offsets), atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [7, 8])
def test_literal_offsets_are_sums_from_the_centre_outwards(length: int) -> None:
    steps = np.random.default_rng(0).uniform(-1, 1, length)
    found = torch.from_numpy(steps).float() @ curve_basis(length, length)
    expected = np.zeros(length)
    centre = centre_of(length)
    for i in range(centre + 1, length):
        expected[i] = expected[i - 1] + steps[i]
    for i in range(centre - 1, -1, -1):
        expected[i] = expected[i + 1] + steps[i]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_few_controls_are_interpolated_linearly() -> None:
    length, controls = 65, 5
    steps = np.random.default_rng(1).uniform(-1, 1, controls)
    fine = np.interp(np.linspace(0, controls - 1, length), np.arange(controls), steps)
    found = torch.from_numpy(steps).float() @ curve_basis(length, controls)
    expected = torch.from_numpy(fine).float() @ curve_basis(length, length)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", AXES)
def test_bent_tubes_take_trilinear_samples_where_their_lines_say(axis: int) -> None:
    torch.manual_seed(2)
    view = bent(TubeView(1, 3, axis, 32, step=(0.3, 0.7, 1.0)))
    image = torch.randn(1, 1, 6, 32, 48)
    lines = view.lines(image)
    assert lines.shape == (1, 6, 2, 3, 32, 3)
    places = lines[0].detach().double().numpy()
    values = map_coordinates(image[0, 0].double().numpy(), np.moveaxis(places, -1, 0), order=1, mode="grid-constant")
    expected = values @ view.weight[:, 0].detach().double().numpy().T + view.bias.detach().double().numpy()
    np.testing.assert_allclose(view(image)[0].detach().numpy(), expected, atol=2e-5)
    # Along its own axis a tube is straight; its middle tap is the middle of the token's cell.
    steps = places.take(axis, axis=-1)
    np.testing.assert_allclose(np.diff(steps), view.step[2], atol=1e-5)
    z, y, x = np.meshgrid(range(6), np.arange(2) * 16 + 7, np.arange(3) * 16 + 7, indexing="ij")
    np.testing.assert_array_equal(places[..., centre_of(32), :], np.stack([z, y, x], axis=-1))


def test_the_three_views_are_one_function_of_the_turned_image() -> None:
    torch.manual_seed(3)
    image = torch.randn(2, 1, 12, 20, 16)
    stride, step = (2, 5, 4), (0.5, 1.0, 0.8)
    along_x = bent(TubeView(1, 6, 2, 16, stride, step, controls=9))
    for axis in (0, 1):
        turn = tuple((axis + 1 + n) % 3 for n in range(3))  # where the axes (z, y, x) of `image` come to lie
        back = [turn.index(a) for a in AXES]
        turned = image.permute(0, 1, *(2 + b for b in back))
        view = TubeView(1, 6, axis, 16, tuple(stride[b] for b in back), tuple(step[b] for b in back), controls=9)
        view.load_state_dict(along_x.state_dict())
        expected = along_x(image).permute(0, *(1 + b for b in back), 4)
        torch.testing.assert_close(view(turned), expected, atol=1e-6, rtol=1e-6)


def test_gradients_reach_the_offset_heads() -> None:
    torch.manual_seed(4)
    tubes = TubeEmbedding(1, 8, 64, gate=0.5)
    image = torch.randn(1, 1, 4, 48, 48)
    tubes(image, torch.zeros(1, 4, 3, 3, 8)).square().sum().backward()
    for view in tubes.views:
        assert view.head[-1].weight.grad.abs().max() > 0
        assert torch.isfinite(view.head[-1].weight.grad).all()
        bent(view, 0.1)
    # Behind a last layer that is no longer zero, the layers in front of it learn, too.
    tubes(image, torch.zeros(1, 4, 3, 3, 8)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in tubes.parameters())


def test_the_gradient_of_the_offsets_is_the_true_one() -> None:
    torch.manual_seed(5)
    view = TubeView(1, 2, 1, 8, (2, 4, 4), controls=3, hidden=2)
    image = torch.randn(1, 1, 4, 12, 8)
    bias = view.head[-1].bias
    with torch.no_grad():
        bias.copy_(torch.randn(6) * 0.3)
    loss = view(image).square().sum()
    (gradient,) = torch.autograd.grad(loss, bias)
    for i in range(6):
        with torch.no_grad():
            sides = []
            for shift in (1e-3, -2e-3):
                bias[i] += shift
                sides.append(view(image).square().sum().item())
            bias[i] += 1e-3
        assert gradient[i].item() == pytest.approx((sides[0] - sides[1]) / 2e-3, rel=0.05, abs=5e-4)


def test_a_closed_gate_leaves_the_embedding_as_it_is_and_can_open() -> None:
    tubes = TubeEmbedding(1, 8, 64)
    image, tokens = torch.randn(1, 1, 4, 32, 32), torch.randn(1, 4, 2, 2, 8)
    out = tubes(image, tokens)
    assert torch.equal(out, tokens)
    out.square().sum().backward()
    assert tubes.gate.grad.abs().max() > 0


def test_what_is_kept_for_the_way_back() -> None:
    tubes = TubeEmbedding(1, 384)
    own = {parameter.untyped_storage().data_ptr() for parameter in tubes.parameters()}
    kept: dict[int, int] = {}

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        tubes(torch.zeros(1, 1, 16, 128, 128), torch.zeros(1, 16, 8, 8, 384))
    assert sum(kept.values()) <= 40e6


def test_positions_are_not_rounded_under_autocast() -> None:
    torch.manual_seed(6)
    view = TubeView(1, 8, 2)
    image = torch.randn(1, 1, 2, 32, 256)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert view.lines(image).dtype == torch.float32
        rounded = view(image)
    # Half a voxel off, as bfloat16 would be at 255, and nothing would be alike.
    torch.testing.assert_close(rounded.float(), view(image), atol=0.02, rtol=0.02)


def test_flattened_kernels() -> None:
    kernel = torch.arange(2 * 1 * 16 * 16.0).view(2, 1, 16, 16)
    assert torch.equal(flatten_kernel(kernel)[1, 0], kernel[1, 0].flatten())
    assert torch.equal(flatten_kernel(kernel, 16)[1, 0], kernel[1, 0].sum(1))
    with pytest.raises(NeurinoError, match="divisor"):
        flatten_kernel(kernel, 100)
    with pytest.raises(NeurinoError, match="control points"):
        TubeView(1, 4, 0, 8, controls=9)
