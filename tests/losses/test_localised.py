"""``localised``: zero when right, finite always, the same in every orientation, and a gradient that is on the fault."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import (
    BRANCHING,
    RADII,
    SHAPE,
    STRAIGHT,
    TREES,
    draw,
    orientations,
    probabilities,
    random_tree,
    to_logits,
    to_target,
    value_of,
)
from scipy import ndimage

from nnunet_neurino.losses import TASL, localised


def _with(mask, where, value):
    probability = probabilities(mask)
    probability[where] = value
    return probability


def _gradient(probability, truth):
    """Derivative of the loss by the foreground logit (z, y, x), up to a factor of 2."""
    logits = to_logits(probability, torch.float64).requires_grad_()
    TASL()(logits, to_target(truth)).backward()
    gradient = logits.grad[0].numpy()
    np.testing.assert_allclose(gradient[0], -gradient[1], atol=1e-12)
    return gradient[1]


def _mass_near(gradient, fault):
    near = ndimage.distance_transform_edt(~fault) <= 3
    return np.abs(gradient[near]).sum() / np.abs(gradient).sum()


@pytest.mark.parametrize("segments", TREES.values(), ids=TREES)
@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("logit", [4.0, 10.0, 30.0])
def test_zero_for_a_perfect_confident_prediction(segments, radius, logit):
    truth = draw(segments, radius)
    logits = torch.as_tensor(np.where(truth, logit, -logit))[None]
    for two_class in (torch.stack([-logits, logits], 1), torch.stack([torch.zeros_like(logits), logits], 1)):
        for dtype in (torch.float32, torch.float16):
            assert float(TASL()(two_class.to(dtype), to_target(truth))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("segments", TREES.values(), ids=TREES)
@pytest.mark.parametrize("radius", RADII)
def test_invariant_to_flips_and_permutations(segments, radius):
    truth = draw(segments, radius)
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.5) * 20
    for logit in (smooth + np.where(truth, 3, -3), rng.standard_normal(SHAPE)):
        probability = 1 / (1 + np.exp(-logit))
        values = [value_of(turn(probability), turn(truth)) for turn in orientations()]
        assert values == pytest.approx([values[0]] * 48, abs=1e-6)
        assert values[0] > 0.01


@pytest.mark.parametrize(
    "segments",
    [
        [((6, 9, 2), (6, 9, 9)), ((6, 9, 9), (6, 3, 16)), ((6, 9, 9), (6, 15, 16))],
        [((6, 5, 5), (6, 5, 13)), ((6, 5, 13), (6, 13, 13)), ((6, 13, 13), (6, 13, 5)), ((6, 13, 5), (6, 5, 5))],
    ],
    ids=["fork", "ring"],
)
@pytest.mark.parametrize("gap", [(6, 5, 14), (6, 13, 10), (6, 9, 6)])
def test_invariant_where_the_truth_is_symmetric_and_the_prediction_is_not(segments, gap):
    """Mirrored branches are told apart by nothing but the order of the voxels, which must not count."""
    shape = (13, 19, 19)
    truth = draw(segments, 0.5, shape)
    near = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - gap, axis=-1) < 2.5
    assert (truth & near).any()
    probability = _with(truth, truth & near, 0.05)
    values = [value_of(turn(probability), turn(truth)) for turn in orientations()]
    assert values == pytest.approx([values[0]] * 48, abs=1e-6)
    assert values[0] > 0.01


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("start", [6, 12, 22])
def test_the_gradient_is_on_a_gap_and_closes_it(radius, start):
    truth = draw(STRAIGHT if start == 6 else BRANCHING, radius)
    trunk = draw(STRAIGHT, radius)
    gap = truth & trunk
    gap[:, :, :start] = gap[:, :, start + 4 :] = False
    gradient = _gradient(_with(truth, gap, 0.05), truth)
    assert _mass_near(gradient, gap) >= 0.9
    assert gradient[gap].sum() < 0
    assert (gradient[gap] <= 0).all()
    middle = np.zeros(SHAPE, bool)
    middle[16, 16, start : start + 4] = True
    assert (gradient[middle] < 0).sum() >= 2  # where branches part, a section holds voxels of both


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("gap", [1, 2, 4])
def test_the_gradient_is_on_a_false_bridge_and_cuts_it(radius, gap):
    half = int(radius)
    second = 10 + 2 * half + gap + 1
    truth = draw([((10, 10, 4), (10, 10, 27)), ((second, 10, 4), (second, 10, 27))], radius)
    assert ndimage.label(truth, np.ones((3, 3, 3)))[1] == 2
    bridge = draw([((10, 10, 15), (second, 10, 15))], min(radius, 1.0)) & ~truth
    gradient = _gradient(_with(truth, bridge, 0.95), truth)
    assert _mass_near(gradient, bridge) >= 0.9
    assert gradient[bridge].sum() > 0
    assert (gradient[bridge] >= 0).all()


def test_the_bridge_is_found_among_thick_walls():
    """Both neurons predicted a voxel too thick all along: the charge is still where they are joined."""
    truth = draw([((10, 10, 4), (10, 10, 27)), ((17, 10, 4), (17, 10, 27))], 1)
    thick = ndimage.binary_dilation(truth)
    bridge = draw([((10, 10, 15), (17, 10, 15))], 1) & ~thick
    assert bridge.any()
    assert _mass_near(_gradient(probabilities(thick | bridge), truth), bridge) >= 0.9
    assert value_of(probabilities(thick), truth) < 0.1 * value_of(probabilities(thick | bridge), truth)


@pytest.mark.parametrize("radius", RADII)
def test_the_gradient_is_on_a_missing_terminal_branch(radius):
    truth = draw(BRANCHING, radius)
    missing = truth & ~draw([BRANCHING[0], BRANCHING[1]], radius)
    assert missing.sum() > 5
    gradient = _gradient(_with(truth, missing, 0.05), truth)
    assert _mass_near(gradient, missing) >= 0.6
    assert gradient[missing].sum() < 0
    assert (gradient[missing] <= 0).all()


@pytest.mark.parametrize("radius", [0.5, 1.5, 2.5])
def test_the_loss_grows_with_the_length_that_is_cut_off(radius):
    truth = draw([((16, 16, 3), (16, 16, 28))], radius)
    values = []
    for start in range(5, 14, 2):
        gap = truth.copy()
        gap[:, :, :start] = gap[:, :, start + 3 :] = False
        values.append(value_of(_with(truth, gap, 0.05), truth))
    assert (np.diff(values) > 0).all()
    missing = [value_of(probabilities(truth & (np.arange(32) < end)), truth) for end in (26, 22, 18, 14, 10)]
    assert (np.diff(missing) > 0).all()


@pytest.mark.parametrize("radius", [0.5, 1.5, 2.5])
def test_a_break_near_the_root_costs_more_than_one_near_a_tip(radius):
    """A soma with a long neurite and two daughters."""
    stem = ((16, 16, 6), (16, 16, 20))
    truth = draw([stem, ((16, 16, 20), (16, 26, 28)), ((16, 16, 20), (16, 6, 28))], radius) | draw([stem[:1] * 2], 4.5)
    root, tip = truth.copy(), truth.copy()
    root[:, :, :12] = root[:, :, 15:] = False
    tip[:, :20] = tip[:, 23:] = False
    at_root, at_tip = value_of(_with(truth, root, 0.05), truth), value_of(_with(truth, tip, 0.05), truth)
    assert at_root > 1.3 * at_tip > 0


def test_a_bridge_costs_more_the_longer_the_neuron_that_it_joins():
    values = []
    for end in (9, 15, 21, 27):
        truth = draw([((10, 10, 4), (10, 10, 27)), ((18, 10, 4), (18, 10, end))], 1)
        bridge = draw([((10, 10, 6), (18, 10, 6))], 1) & ~truth
        values.append(value_of(_with(truth, bridge, 0.95), truth, node=0, edge=0))
    assert (np.diff(values) > 0).all()


def test_a_false_loop_costs_more_than_a_spur_of_the_same_size():
    truth = draw([((16, 8, 4), (16, 8, 26)), ((16, 20, 4), (16, 20, 26)), ((16, 8, 4), (16, 20, 4))], 1)
    loop = draw([((16, 8, 20), (16, 20, 20))], 1) & ~truth
    spur = draw([((16, 8, 20), (4, 8, 20))], 1) & ~truth
    assert 0.8 < loop.sum() / spur.sum() < 1.25
    with_loop, with_spur = (value_of(_with(truth, w, 0.95), truth) for w in (loop, spur))
    assert with_loop > 1.05 * with_spur > 0
    assert value_of(_with(truth, spur, 0.95), truth, node=0) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["localised", "published"])
def test_value_and_gradient_are_finite_and_bounded(dtype, mode):
    rng = np.random.default_rng(0)
    shape = (16, 17, 18)
    truth = random_tree(0, shape, 1.0)
    speck = np.zeros(shape, bool)
    speck[5, 6, 7] = True
    empty, full = np.zeros(shape, bool), np.ones(shape, bool)
    masks = {"truth": truth, "speck": speck, "empty": empty, "full": full, "random": rng.random(shape) > 0.5}
    for name, mask in masks.items():
        for wrong, predicted in masks.items():
            for scale in (0.0, 1.0, 60.0):
                logit = torch.as_tensor(np.where(predicted, scale, -scale))
                logits = torch.stack([-logit, logit])[None].to(dtype).requires_grad_()
                with torch.autocast("cpu", dtype=dtype if dtype != torch.float32 else torch.bfloat16):
                    value = TASL(mode=mode)(logits, to_target(mask))
                value.backward()
                assert value.dtype == torch.float32
                assert torch.isfinite(value), (name, wrong, scale)
                assert torch.isfinite(logits.grad).all(), (name, wrong, scale)
                assert mode == "published" or 0 <= float(value.detach()) < 3


@pytest.mark.parametrize("kind", ["two classes", "three classes", "regions"])
def test_gradient_against_finite_differences(kind):
    """Gaps, bridges, loops and false pieces at random, in float64."""
    shape = (5, 6, 7)
    rng = np.random.default_rng(4)
    truth = draw([((1, 1, 1), (1, 1, 5)), ((3, 4, 1), (3, 4, 5))], 0.9, shape).astype(int)
    channels = {"two classes": 2, "three classes": 3, "regions": 2}[kind]
    if kind == "three classes":
        truth[3] *= 2
    target = to_target(truth)
    if kind == "regions":
        target = torch.cat([target > 0, target.flip(2) > 0], 1)
    loss = TASL(regions=kind == "regions")
    start = torch.as_tensor(rng.normal(0, 1.5, (1, channels, *shape)))
    logits = start.clone().requires_grad_()
    loss(logits, target).backward()
    assert (logits.grad != 0).sum() > 20
    rows = rng.permutation(logits.numel())[:60]
    for row in rows:
        step = torch.zeros(logits.numel(), dtype=torch.float64)
        step[row] = 1e-6
        step = step.reshape(logits.shape)
        slope = (loss(start + step, target) - loss(start - step, target)) / 2e-6
        assert float(slope) == pytest.approx(float(logits.grad.flatten()[row]), rel=1e-5, abs=1e-8)


def test_descending_it_mends_gap_and_bridge():
    truth = draw([((10, 10, 4), (10, 10, 27)), ((18, 10, 4), (18, 10, 27))], 1)
    wrong = truth.copy()
    wrong[10 - 2 : 10 + 3, :, 8:12] = False
    wrong |= draw([((10, 10, 20), (18, 10, 20))], 1)
    logits = to_logits(probabilities(wrong)).requires_grad_()
    optimiser = torch.optim.Adam([logits], 0.1)
    loss, target = TASL(), to_target(truth)
    for _ in range(60):
        optimiser.zero_grad()
        loss(logits, target).backward()
        optimiser.step()
    predicted = (logits[0, 1] > logits[0, 0]).detach().numpy()
    assert ndimage.label(predicted, np.ones((3, 3, 3)))[1] == 2
    assert predicted[10, 10, 5:26].all()


def test_sums_to_the_root_over_one_way_and_over_several():
    """Two trees of one batch, the second a ring whose last section has two equal parents."""
    from types import SimpleNamespace

    none = np.zeros((0, 2), np.int64)
    tree = SimpleNamespace(parent=np.array([-1, 0, 1, 1, 3]), also=none)
    ring = SimpleNamespace(parent=np.array([-1, 0, 0, 1, 3]), also=np.array([[3, 2]]))
    values = torch.tensor([1.0, 2, 4, 8, 16])
    one_way = [1, 3, 7, 11, 27]
    assert localised._sum_to_root(values, [tree], np.array([0, 5])).tolist() == one_way
    both = localised._sum_to_root(values.repeat(2), [tree, ring], np.array([0, 5, 10]))
    assert both.tolist() == [*one_way, 1, 3, 5, 12, 28]
