"""Ignore label, several classes, regions, switches, deep supervision and warm-up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import BRANCHING, STRAIGHT, draw, probabilities, random_tree, to_logits, to_target
from torch import nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.losses import TASL, WithTASL

MODES = ["localised", "published"]


def _pair(seed=0):
    truth = random_tree(seed)
    return to_logits(probabilities(random_tree(seed + 1))), to_target(truth)


@pytest.mark.parametrize("mode", MODES)
def test_ignored_voxels_change_nothing(mode):
    logits, target = _pair()
    ignored = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    target[ignored] = 2
    loss = TASL(mode=mode, ignore_label=2)
    value = loss(logits, target)
    other = torch.where(ignored, torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)) * 9, logits)
    assert float(value) > 0
    assert float(loss(other, target)) == float(value)


def test_ignored_voxels_get_no_gradient_and_ignoring_all_is_zero():
    logits, target = _pair()
    logits.requires_grad_()
    target[:, :, :16] = 7
    TASL(ignore_label=7)(logits, target).backward()
    assert not logits.grad[:, :, :16].any()
    assert logits.grad.any()
    everything = TASL(ignore_label=7)(logits, torch.full_like(target, 7))
    everything.backward()
    assert float(everything.detach()) == 0


@pytest.mark.parametrize("mode", MODES)
def test_several_classes_are_the_mean_of_each(mode):
    first, second = draw(STRAIGHT), draw([((4, 5, 4), (4, 5, 27))])
    target = to_target(first.astype(int) + 2 * second)
    predicted = [first.copy(), second.copy()]
    predicted[0][:, :, 10:14] = False
    predicted[1][:, :, 18:26] = False
    logits = torch.full((1, 3, *first.shape), -8.0)
    logits[:, 0] = 0
    for c, mask in enumerate(predicted):
        logits[0, c + 1][torch.as_tensor(mask)] = 8.0
    alone = [TASL(mode=mode)(to_logits(probabilities(p, 0.9997, 0.0003)), to_target(t))
             for p, t in zip(predicted, (first, second), strict=True)]  # fmt: skip
    assert float(alone[0]) != float(alone[1])
    assert float(TASL(mode=mode)(logits, target)) == pytest.approx(float(sum(alone)) / 2, rel=1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [torch.bool, torch.int16])
def test_regions_are_classes_with_a_sigmoid(mode, kind):
    logits, target = _pair()
    binary = float(TASL(mode=mode)(logits, target))
    margin = logits[:, 1:] - logits[:, :1]
    assert float(TASL(mode=mode, regions=True)(margin, target.to(kind))) == pytest.approx(binary, rel=1e-5)
    twice = TASL(mode=mode, regions=True)(margin.repeat(1, 2, 1, 1, 1), target.repeat(1, 2, 1, 1, 1).to(kind))
    assert float(twice) == pytest.approx(binary, rel=1e-5)
    ignored = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    with_ignore = torch.cat([target.to(kind), ignored.to(kind)], 1)
    by_label = float(TASL(mode=mode, ignore_label=2)(logits, target.masked_fill(ignored, 2)))
    by_region = float(TASL(mode=mode, regions=True, ignore_label=2)(margin, with_ignore))
    assert by_region == pytest.approx(by_label, rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_switches_and_weights(mode):
    logits, target = _pair()
    names = ("node", "edge", "path")
    terms = [float(TASL(mode=mode, **{n: float(n == only) for n in names})(logits, target)) for only in names]
    loss = TASL(mode=mode, node=2, edge=3, path=5)
    assert float(loss(logits, target)) == pytest.approx(2 * terms[0] + 3 * terms[1] + 5 * terms[2], rel=1e-5)
    assert [float(loss.last_terms[n]) for n in names] == pytest.approx(terms, rel=1e-5)
    assert all(t > 0 for t in terms)


@pytest.mark.parametrize("mode", MODES)
def test_a_batch_is_the_mean_of_its_samples(mode):
    pairs = [_pair(seed) for seed in (0, 3, 5)]
    whole = TASL(mode=mode)(torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs]))
    assert float(whole) == pytest.approx(np.mean([float(TASL(mode=mode)(*p)) for p in pairs]), rel=1e-5)


def test_memory_layout_and_type_of_the_target_do_not_matter():
    logits, target = _pair()
    value = float(TASL()(logits, target))
    strided = logits.to(memory_format=torch.channels_last_3d)
    for kind in (torch.int16, torch.uint8, torch.float32):
        assert float(TASL()(strided, target.to(kind))) == value


def test_prepared_truth_is_used_for_its_own_target_only(monkeypatch):
    analysed = []
    whole = TASL._analyse
    monkeypatch.setattr(TASL, "_analyse", lambda self, target, n: analysed.append(target) or whole(self, target, n))
    loss = TASL()
    for seed in (0, 1):
        logits, target = _pair(seed)
        loss.prepare(target, 2, on_cpu=target.clone())
        assert float(loss(logits, target)) == float(TASL()(logits, target))
    assert len(analysed) == 4, "once for each loss"
    # What was prepared for another target, be it of the same values, is not trusted.
    (first, target), (second, other) = _pair(2), _pair(3)
    loss.prepare(target, 2)
    assert float(loss(second, other)) == float(TASL()(second, other))
    assert float(loss(first, target)) == float(TASL()(first, target))
    assert len(analysed) == 9


@pytest.mark.parametrize(
    ("logits", "target", "settings"),
    [
        ((1, 2, 4, 4, 4), (1, 4, 4, 4), {}),
        ((1, 2, 4, 4), (1, 1, 4, 4), {}),
        ((1, 1, 4, 4, 4), (1, 1, 4, 4, 4), {}),
        ((1, 2, 4, 4, 4), (1, 2, 4, 4, 4), {}),
        ((1, 2, 4, 4, 4), (1, 2, 4, 4, 4), {"regions": True, "ignore_label": 3}),
    ],
)
def test_wrong_shapes_are_refused_in_one_line(logits, target, settings):
    with pytest.raises(NeurinoError, match="one scale with its own target"):
        TASL(**settings)(torch.zeros(logits), torch.zeros(target))


class _Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = None

    def forward(self, output, target):
        self.seen = (output, target)
        output = output[0] if isinstance(output, list) else output
        return output.square().mean()


def test_only_the_finest_scale_goes_to_tasl_and_all_to_the_base():
    logits, target = _pair()
    base = _Base()
    loss = WithTASL(base, TASL(), weight=0.3)
    scales = [logits, logits[..., ::2, ::2, ::2]], [target, target[..., ::2, ::2, ::2]]
    expected = logits.square().mean() + 0.3 * TASL()(logits, target)
    torch.testing.assert_close(loss(*scales), expected)
    assert base.seen == scales
    torch.testing.assert_close(loss(logits, target), expected)


@pytest.mark.parametrize("mode", MODES)
def test_per_scale_it_counts_at_every_scale_that_has_a_weight(mode):
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

    logits, target = _pair()
    steps = [1, 2, 4]
    scales = [[v[..., ::s, ::s, ::s] for s in steps] for v in (logits, target)]
    inside = WithTASL(_Base(), TASL(mode=mode), weight=0.3, scale_weights=(0.7, 0.3, 0.0))
    whole = inside(*scales)
    each = [WithTASL(_Base(), TASL(mode=mode), weight=0.3)(o, t) for o, t in zip(*scales, strict=True)]
    torch.testing.assert_close(whole, 0.7 * each[0] + 0.3 * each[1])
    by_nnunet = DeepSupervisionWrapper(WithTASL(_Base(), TASL(mode=mode), weight=0.3), (0.7, 0.3, 0.0))(*scales)
    torch.testing.assert_close(whole, by_nnunet)
    finest = TASL(mode=mode)
    finest(logits, target)
    assert float(inside.term_values()["tasl_node"]) == float(finest.last_terms["node"])
    with pytest.raises(NeurinoError, match="above 0"):
        WithTASL(_Base(), TASL(mode=mode), scale_weights=(0.0, 0.0))(*scales)


def test_warm_up_raises_the_weight_from_zero():
    logits, target = _pair()
    loss = WithTASL(_Base(), TASL(), weight=1.0, warmup_epochs=4)
    base, term = logits.square().mean(), TASL()(logits, target)
    for epoch, share in ((0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (9, 1.0)):
        loss.set_epoch(epoch, 100)
        torch.testing.assert_close(loss(logits, target), base + share * term)
    loss.set_epoch(1, 20)  # a tenth of the training at most
    torch.testing.assert_close(loss(logits, target), base + 0.5 * term)
    loss.set_epoch(0, 100)
    loss(logits, target)
    assert set(loss.term_values()) == {"tasl_node", "tasl_edge", "tasl_path"}


def test_term_values_are_plain_numbers_of_the_last_call():
    logits, target = _pair()
    loss = WithTASL(_Base(), TASL())
    loss(logits.requires_grad_(), target)
    values = loss.term_values()
    assert not any(v.requires_grad for v in values.values())
    total = values["tasl_node"] + 0.5 * values["tasl_edge"] + 0.5 * values["tasl_path"]
    assert float(total) == pytest.approx(float(TASL()(logits.detach(), target)), rel=1e-5)


def test_a_branch_of_another_class_is_not_a_false_piece():
    trunk, branch = draw([BRANCHING[0]]), draw([BRANCHING[1]])
    target = to_target(np.where(branch, 2, trunk.astype(int)))
    logits = 20.0 * nn.functional.one_hot(target[:, 0], 3).movedim(-1, 1).float()
    assert float(TASL()(logits, target)) == pytest.approx(0, abs=1e-6)
