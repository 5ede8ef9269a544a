"""Schedule, parameter groups and averaged weights against what they are defined to be."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from nnunet_neurino.networks import NeurINO
from nnunet_neurino.trainers.optimisation import AveragedAdamW, WarmupPoly, encoder_blocks, parameter_groups


def optimiser(groups: list[dict] | None = None, ema: float = 0.0) -> AveragedAdamW:
    network = nn.Linear(3, 2)
    return AveragedAdamW(
        groups or [{"params": list(network.parameters()), "peak_lr": 0.1, "thaw_epoch": 0}], ema, lr=0.1
    )


def test_poly_schedule_is_nnunets() -> None:
    from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

    ours, theirs = optimiser(), torch.optim.SGD(nn.Linear(3, 2).parameters(), 0.1)
    schedule, reference = WarmupPoly(ours, 110, 0.0, 0.9), PolyLRScheduler(theirs, 0.1, 110)
    for epoch in range(110):
        schedule.step(epoch)
        reference.step(epoch)
        assert schedule.get_last_lr() == pytest.approx(reference.get_last_lr(), rel=1e-12)


def test_warm_up_rises_and_takes_at_most_a_tenth() -> None:
    schedule = WarmupPoly(optimiser(), 20, warmup=5.0, power=0.9)
    rates = []
    for step in range(200):
        schedule.step(step / 10)
        rates.append(schedule.get_last_lr()[0])
    top = rates.index(max(rates))
    assert top == 20, "the peak is after 2 of 20 epochs"
    assert rates[:21] == sorted(rates[:21])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[0] > 0
    assert rates[-1] > 0


def test_each_group_keeps_its_own_rate_and_frozen_ones_wait() -> None:
    a, b, c = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    groups = [
        {"params": [a], "peak_lr": 1.0, "thaw_epoch": 0},
        {"params": [b], "peak_lr": 0.1, "thaw_epoch": 3},
        {"params": [c], "peak_lr": 0.1, "thaw_epoch": -1},
    ]
    schedule = WarmupPoly(optimiser(groups), 10, 0.0, 1.0)
    schedule.step(2.9)
    assert schedule.get_last_lr() == pytest.approx([0.71, 0.0, 0.0])
    schedule.step(5.0)
    assert schedule.get_last_lr() == pytest.approx([0.5, 0.05, 0.0])


def test_a_thawed_group_warms_up_from_then_on() -> None:
    schedule = WarmupPoly(optimiser(), 100, warmup=4.0, power=0.0)
    assert schedule.factor(52, thaw_epoch=50) == pytest.approx(0.5)
    assert schedule.factor(54, thaw_epoch=50) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def network() -> NeurINO:
    return NeurINO(size="atto", norm="group", grn=True)


def test_groups_hold_every_parameter_once(network: NeurINO) -> None:
    groups = parameter_groups(network, 1e-3, 0.01, layer_decay=0.9)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters())
    assert groups[0]["name"] == "decoder"
    assert groups[0]["peak_lr"] == 1e-3


def test_rates_fall_from_block_to_block_towards_the_image(network: NeurINO) -> None:
    rate = {
        id(p): group["peak_lr"]
        for group in parameter_groups(network, 1.0, 0.01, layer_decay=0.5)
        for p in group["params"]
    }
    by_name = {name: rate[id(p)] for name, p in network.named_parameters()}
    # atto: stem, then 2 + 2 + 6 + 2 blocks and the layers that lead to stages 1, 2 and 3.
    order = ["stem.0.weight", "stages.0.blocks.0.gamma", "stages.0.blocks.1.gamma", "stages.1.blocks.0.gamma",
             "stages.2.blocks.5.gamma", "stages.3.blocks.0.gamma", "stages.3.blocks.1.gamma"]  # fmt: skip
    rates = [by_name[f"encoder.{name}"] for name in order]
    assert rates == sorted(rates)
    assert len(set(rates)) == len(rates)
    assert rates[-1] == 1.0
    assert {value for name, value in by_name.items() if name.startswith("decoder")} == {1.0}
    # Every two neighbouring layers differ by the factor, none is skipped.
    distinct = sorted({value for name, value in by_name.items() if name.startswith("encoder")}, reverse=True)
    assert distinct == [0.5**power for power in range(len(distinct))]
    assert len(distinct) == len(list(encoder_blocks(network)))


def test_vectors_are_not_decayed_unless_asked(network: NeurINO) -> None:
    for decay_all in (False, True):
        for group in parameter_groups(network, 1e-3, 0.01, decay_all):
            for p in group["params"]:
                assert group["weight_decay"] == (0.01 if p.ndim > 1 or decay_all else 0.0)


def train(model: nn.Module, adam: AveragedAdamW, steps: int) -> list[torch.Tensor]:
    history = []
    for step in range(steps):
        adam.zero_grad()
        (model(torch.full((1, 3), 1.0 + step)) ** 2).sum().backward()
        adam.step()
        history.append(model.weight.detach().clone())
    return history


def make(ema: float) -> tuple[nn.Linear, AveragedAdamW]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    return model, AveragedAdamW([{"params": list(model.parameters())}], ema, lr=0.01)


def test_average_is_the_recursion_it_is_said_to_be() -> None:
    model, adam = make(ema=0.9)
    history = train(model, adam, 40)
    expected = history[0].clone()
    for n, weights in enumerate(history, start=1):
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weights
    adam.swap()
    assert torch.allclose(model.weight, expected, atol=1e-6)
    assert not torch.allclose(expected, history[-1], atol=1e-4)
    adam.swap()
    assert torch.equal(model.weight, history[-1])


def test_batch_norms_statistics_are_averaged_and_exchanged_with_the_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    adam = AveragedAdamW([{"params": list(model.parameters())}], 0.9, model.buffers(), lr=0.1)
    norm, history = model[1], []
    for step in range(20):
        adam.zero_grad()
        (model(torch.randn(8, 3) + step) ** 2).sum().backward()
        adam.step()
        history.append((norm.running_mean.clone(), norm.running_var.clone()))
    expected = list(history[0])
    for n, latest in enumerate(history, start=1):
        decay = min(0.9, (1 + n) / (10 + n))
        expected = [decay * average + (1 - decay) * value for average, value in zip(expected, latest, strict=True)]
    with adam.averaged():
        torch.testing.assert_close([norm.running_mean, norm.running_var], expected)
        stored = copy.deepcopy((adam.state_dict(), model.state_dict()))
    assert torch.equal(norm.running_mean, history[-1][0])
    assert not torch.allclose(norm.running_mean, expected[0])
    assert int(norm.num_batches_tracked) == 20

    # Saved while exchanged, as checkpoints are; loaded, the raw statistics come back.
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    again = AveragedAdamW([{"params": list(other.parameters())}], 0.9, other.buffers(), lr=0.1)
    other.load_state_dict(stored[1])
    again.load_state_dict(stored[0])
    assert again.swapped
    again.swap()
    assert torch.equal(other[1].running_var, history[-1][1])
    again.forget_average()
    again.swap()
    assert torch.equal(other[1].running_var, history[-1][1])


def test_averaging_does_not_touch_the_training() -> None:
    (plain, adam), (averaged, averaging) = make(0.0), make(0.99)
    assert all(torch.equal(a, b) for a, b in zip(train(plain, adam, 10), train(averaged, averaging, 10), strict=True))


def test_no_step_with_averaged_weights() -> None:
    model, adam = make(0.9)
    train(model, adam, 1)
    adam.swap()
    with pytest.raises(RuntimeError, match="swap"):
        train(model, adam, 1)


def test_a_checkpoint_with_averaged_weights_goes_on_exactly() -> None:
    model, adam = make(0.9)
    train(model, adam, 5)
    adam.swap()  # as in a saved checkpoint: the model holds the average
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": adam.state_dict()}, file)
    adam.swap()
    file.seek(0)
    stored = torch.load(file, weights_only=True)

    resumed, again = make(0.9)
    resumed.load_state_dict(stored["model"])
    again.load_state_dict(copy.deepcopy(stored["optimizer"]))
    assert again.swapped
    again.swap()
    assert torch.equal(resumed.weight, model.weight)
    for a, b in zip(train(model, adam, 5), train(resumed, again, 5), strict=True):
        assert torch.equal(a, b)
    adam.swap()
    again.swap()
    assert torch.equal(resumed.weight, model.weight)
