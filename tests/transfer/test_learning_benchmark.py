"""benchmarks/learn.py: what it compares must be comparable, and its arithmetic right."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from nnunet_neurino.transfer import RULES, default_kernel_depth, inflate

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "learn.py"


@pytest.fixture(scope="module")
def learn() -> ModuleType:
    if not _SCRIPT.is_file():
        pytest.skip(f"no {_SCRIPT}: the benchmarks are not part of an installed package")
    spec = importlib.util.spec_from_file_location("learn_benchmark", _SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def args(learn: ModuleType, tmp_path: Path) -> argparse.Namespace:
    small = "--size atto --steps 6 --every 2 --window 2 --patch 16 --stacks 1 --probes 2 --warmup 2 --seeds 0"
    return learn.parse([*small.split(), "--output", str(tmp_path), "--threads", str(torch.get_num_threads())])


@pytest.fixture(scope="module")
def weights(learn: ModuleType) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return learn.Pretrainer("atto").encoder.state_dict()


def test_steps_are_counted_where_the_mean_of_the_window_reaches_the_mark(learn: ModuleType, args: argparse.Namespace):
    losses = [1.0, 0.2, 0.9, 0.5, 0.3, 0.1]  # means of two: 1, 0.6, 0.55, 0.7, 0.4, 0.2
    assert learn.steps_to(losses, 0.55, args) == 2 * args.every
    assert learn.steps_to(losses, 0.5, args) == 4 * args.every
    assert learn.steps_to(losses, 0.2, args) == 5 * args.every
    assert learn.steps_to(losses, 0.19, args) is None


@pytest.mark.parametrize("rule", RULES)
def test_only_the_start_of_the_encoder_differs(learn: ModuleType, args: argparse.Namespace, weights: dict, rule: str):
    scratch, inflated = (learn.built(start, 5, weights, args) for start in (learn.SCRATCH, rule))
    for name, value in scratch.decoder.state_dict().items():
        assert torch.equal(value, inflated.decoder.state_dict()[name]), name
    expected = inflate(weights, rule, kernel_depth=default_kernel_depth(rule))
    for name, value in inflated.encoder.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not torch.equal(scratch.encoder.stem[0].weight, inflated.encoder.stem[0].weight)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_measured_by_a_network_of_its_own_shape(
    learn: ModuleType, args: argparse.Namespace, weights: dict, rule: str
):
    scratch, inflated = (learn.built(start, 5, weights, args).state_dict() for start in (learn.scratch_for(rule), rule))
    assert {name: value.shape for name, value in scratch.items()} == {n: v.shape for n, v in inflated.items()}


@pytest.mark.parametrize(("start", "stays"), [("scratch", False), ("center_sym", True)])
def test_only_a_pretrained_encoder_learns_the_more_slowly_the_nearer_to_the_image(
    learn: ModuleType,
    args: argparse.Namespace,
    weights: dict,
    monkeypatch: pytest.MonkeyPatch,
    start: str,
    stays: bool,
):
    args.layer_decay = 0.0
    before, network = (learn.built(start, 0, weights, args) for _ in range(2))
    monkeypatch.setattr(learn, "built", lambda *_: network)
    learn.train(start, 0, weights, None, args)
    assert torch.equal(network.encoder.stem[0].weight, before.encoder.stem[0].weight) == stays
    assert not torch.equal(network.decoder.seg_layers[0].weight, before.decoder.seg_layers[0].weight)


def test_pretraining_is_no_setting_of_a_run_from_scratch(learn: ModuleType, args: argparse.Namespace):
    more = argparse.Namespace(**{**vars(args), "pretrain_steps": args.pretrain_steps + 1})
    assert learn.decisive(learn.SCRATCH, args) == learn.decisive(learn.SCRATCH, more)
    assert learn.decisive("center", args) != learn.decisive("center", more)


def test_a_run_repeats_itself_and_ends_at_its_mark(learn: ModuleType, args: argparse.Namespace, weights: dict):
    whole = learn.train("center_sym", 0, weights, None, args)
    assert len(whole) == args.steps // args.every + 1
    assert whole[-1] < whole[0]
    mark = learn.smoothed(whole, args.window)[1]
    assert learn.train("center_sym", 0, weights, mark, args) == whole[:2]


def test_the_measured_patches_are_the_same_for_every_start(
    learn: ModuleType, args: argparse.Namespace, weights: dict, monkeypatch: pytest.MonkeyPatch
):
    seen: dict[str, list] = {}
    for start in (learn.SCRATCH, "average"):
        probes = seen.setdefault(start, [])
        monkeypatch.setattr(learn, "training_loss", lambda network, probe, device, kept=probes: kept.append(probe) or 1)
        learn.train(start, 0, weights, None, args)
    for one, other in zip(seen[learn.SCRATCH], seen["average"], strict=True):
        assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))


def test_finished_runs_are_kept_and_runs_for_another_mark_are_not(
    learn: ModuleType, args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    options = ["--rules", "center", "--output", str(args.output), "--size", "atto", "--steps", "20", "--seeds", "4"]
    options += ["--threads", str(args.threads)]
    curves = {learn.SCRATCH: [1.0, 0.9, 0.6], "center": [1.0, 0.3]}
    trained: list[str] = []
    monkeypatch.setattr(learn, "pretrained", lambda args: {})
    monkeypatch.setattr(learn, "train", lambda start, *rest: trained.append(start) or curves[start])

    assert learn.main(options) == 0
    assert trained == [learn.SCRATCH, "center"]
    assert "0.50" in capsys.readouterr().out  # (1 + 0.3) / 2 <= (1 + 0.9 + 0.6) / 3 after 10 of 20 steps
    learn.main(options)
    assert trained == [learn.SCRATCH, "center"]

    path = args.output / f"atto_{learn.SCRATCH}_4.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "losses": [1.0, 0.9, 0.5]}))
    learn.main(options)
    assert trained == [learn.SCRATCH, "center", "center"]
