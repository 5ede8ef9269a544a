"""``published``: the formulas of the paper and its code, against a plain graph implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import (
    BRANCHING,
    TREES,
    draw,
    orientations,
    probabilities,
    published_by_graph,
    random_tree,
    to_logits,
    to_target,
)
from scipy import ndimage
from torch import nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.losses import PUBLISHED_WEIGHTS, TASL, WithTASL
from nnunet_neurino.losses import published as module


def _value(predicted, truth, **settings):
    return float(TASL(mode="published", **settings)(to_logits(probabilities(predicted)), to_target(truth)))


def _cases():
    rng = np.random.default_rng(0)
    shape = (14, 15, 16)
    truth = random_tree(1, shape)
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 1)
    blurred = ndimage.gaussian_filter(truth.astype(float), 0.8)
    empty, full = np.zeros(shape, bool), np.ones(shape, bool)
    speck = empty.copy()
    speck[3, 4, 5] = True
    return {
        "random": (rng.random(shape) > 0.5, truth),
        "sparse random": (rng.random(shape) > 0.97, truth),
        "random truth": (rng.random(shape) > 0.5, rng.random(shape) > 0.5),
        "blurred noise": (noise > 0, truth),
        "realistic": (blurred + 0.3 * noise > 0.4, truth),
        "identical": (truth, truth),
        "empty prediction": (empty, truth),
        "empty truth": (truth, empty),
        "both empty": (empty, empty),
        "full prediction": (full, truth),
        "full truth": (truth, full),
        "single voxel": (speck, truth),
        "single voxel truth": (truth, speck),
    }


@pytest.mark.parametrize("name", _cases())
@pytest.mark.parametrize("tree_at_most", [0, 20_000])
def test_equal_to_a_plain_graph_implementation(name, tree_at_most, monkeypatch):
    monkeypatch.setattr(module, "_TREE_AT_MOST", tree_at_most)
    predicted, truth = _cases()[name]
    for weights in PUBLISHED_WEIGHTS.values():
        expected = published_by_graph(predicted, truth, weights)
        got = _value(predicted, truth, **dict(zip(("node", "edge", "path"), weights, strict=True)))
        assert got == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_both_sets_of_weights_are_those_of_the_seeds():
    assert PUBLISHED_WEIGHTS == {"paper": (1.0, 0.5, 0.5), "released": (1.0, 0.5, 0.2)}
    assert TASL(mode="published").weights == PUBLISHED_WEIGHTS["paper"]


def test_the_mean_over_the_batch():
    cases = list(_cases().values())[:3]
    logits = torch.cat([to_logits(probabilities(p)) for p, _ in cases])
    target = torch.cat([to_target(t) for _, t in cases])
    each = [published_by_graph(p, t) for p, t in cases]
    assert float(TASL(mode="published")(logits, target)) == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize("segments", TREES.values(), ids=TREES)
@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_canonical_is_invariant_to_flips_and_permutations(segments, radius):
    truth = draw(segments, radius)
    rng = np.random.default_rng(3)
    predicted = truth & (ndimage.gaussian_filter(rng.standard_normal(truth.shape), 2) < 0.05)
    values = [_value(turn(predicted), turn(truth), canonical=True) for turn in orientations()]
    assert values == pytest.approx([values[0]] * 48, abs=1e-6)
    assert values[0] > 0.1


def test_canonical_is_invariant_where_the_truth_is_symmetric_and_the_prediction_is_not():
    truth = draw([((15.5, 15.5, 4), (15.5, 15.5, 27))], 2)
    predicted = truth.copy()
    predicted[:, :15, 8:13] = False
    values = {round(_value(turn(predicted), turn(truth), canonical=True), 6) for turn in orientations()}
    assert len(values) == 1


@pytest.mark.parametrize("name", ["straight", "two neurons"])
def test_lines_of_one_voxel_are_invariant_without_it(name):
    truth = draw([((a[0], a[1], a[2]), (a[0], a[1], b[2])) for a, b in TREES[name][:2]], 0.5)
    predicted = truth.copy()
    predicted[:, :, 12:16] = False
    values = [_value(turn(predicted), turn(truth)) for turn in orientations()]
    assert values == pytest.approx([values[0]] * 48, abs=1e-6)


@pytest.mark.parametrize(
    ("f", "shape"), [("identity", lambda t: t), ("sigmoid", lambda t: 1 / (1 + np.exp(-t))), ("tanh", np.tanh)]
)
def test_as_the_factor_on_another_loss_its_gradient_is_parallel(f, shape):
    truth = random_tree(2)
    noise = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal(truth.shape), 1)
    predicted = truth ^ (noise > 0.4)
    logits, target = to_logits(probabilities(predicted)).requires_grad_(), to_target(truth)

    class CrossEntropy(nn.Module):
        def forward(self, output, target):
            return nn.functional.cross_entropy(output, target[:, 0])

    base = CrossEntropy()(logits, target)
    (plain,) = torch.autograd.grad(base, logits)
    loss = WithTASL(CrossEntropy(), TASL(mode="published"), weight=0.1, f=f)
    value = loss(logits, target)
    (scaled,) = torch.autograd.grad(value, logits)
    factor = 1 + 0.1 * shape(published_by_graph(predicted, truth))
    assert factor > 1.02
    assert float(value.detach()) == pytest.approx(factor * float(base.detach()), rel=1e-5)
    torch.testing.assert_close(scaled, plain * factor, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("per_scale", [False, True])
def test_on_nnunets_loss_the_factor_multiplies_the_published_form(per_scale):
    """nnU-Net's cross-entropy - Dice is negative for a good prediction; the published form is never."""
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    truth = draw(BRANCHING)
    broken = truth.copy()
    broken[14:19, 14:19, 8:10] = False
    loss = DC_and_CE_loss({"smooth": 1e-5, "do_bg": False}, {}, dice_class=MemoryEfficientSoftDiceLoss)
    tasl = TASL(mode="published")
    if per_scale:
        factored = WithTASL(loss, tasl, weight=0.1, scale_weights=(1.0, 0.0), least=-1.0)
    else:
        factored = WithTASL(DeepSupervisionWrapper(loss, (1.0, 0.0)), tasl, weight=0.1, least=-1.0)
    target = to_target(truth)
    values = []
    for predicted in (truth, broken):
        logits = to_logits(probabilities(predicted, 0.99, 0.01), torch.float64).requires_grad_()
        base = loss(logits, target)
        assert float(base.detach()) < 0, "the case that matters"
        cross_entropy = nn.functional.cross_entropy(logits, target[:, 0])
        p = torch.softmax(logits, 1)[0, 1]
        dice = (2 * p[target[0, 0] == 1].sum() + 1e-5) / (p.sum() + truth.sum() + 1e-5)
        factor = 1 + 0.1 * float(TASL(mode="published")(logits.detach(), target))
        value = factored([logits, logits], [target, target])
        torch.testing.assert_close(value, (cross_entropy + 1 - dice) * factor, rtol=1e-5, atol=1e-7)
        (found,) = torch.autograd.grad(value, logits, retain_graph=True)
        (plain,) = torch.autograd.grad(base, logits)
        torch.testing.assert_close(found, plain * factor, rtol=1e-5, atol=1e-12)
        values.append((float(value.detach()), float(base.detach()) + 1, factor))
    assert values[0][2] == 1 < values[1][2]
    assert values[1][0] > values[1][1], "a worse graph raises the loss"


def test_alone_it_gives_zeros_back():
    logits = torch.randn(1, 2, 8, 8, 8, requires_grad=True)
    TASL(mode="published")(logits, torch.ones(1, 1, 8, 8, 8)).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_unknown_mode_and_f_are_refused():
    with pytest.raises(NeurinoError, match="localised"):
        TASL(mode="localized")
    with pytest.raises(NeurinoError, match="tanh"):
        WithTASL(nn.Identity(), TASL(), f="relu")
