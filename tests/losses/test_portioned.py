"""Dice + cross-entropy in portions against nnU-Net's own losses: values, gradients, and what memory they take."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import accumulate, product
from math import prod

import pytest
import torch
from nnunetv2.training.loss import dice as nnunet_dice
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch.profiler import ProfilerActivity, profile

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.losses import PortionedDiceCE
from nnunet_neurino.losses.portioned import _parts

IGNORED = 9
SHAPES = [(1, 2, 5, 7, 9), (2, 3, 4, 6, 5), (2, 4, 1, 11, 3), (1, 2, 1, 1, 1), (2, 3, 13, 7)]
"""Logits' shapes; the last one is a batch of images."""
FILLINGS = ["sparse", "empty", "full", "mixed"]
KINDS = [(regions, ignores) for regions in (False, True) for ignores in (False, True)]


def _nnunet(regions: bool, ignores: bool, batch_dice: bool):
    """The loss as ``nnUNetTrainer._build_loss`` of nnU-Net 2.8 configures it."""
    dice = {"batch_dice": batch_dice, "do_bg": regions, "smooth": 1e-5, "ddp": False}
    if regions:
        return DC_and_BCE_loss({}, dice, use_ignore_label=ignores, dice_class=MemoryEfficientSoftDiceLoss)
    label = IGNORED if ignores else None
    return DC_and_CE_loss(
        dice, {}, weight_ce=1, weight_dice=1, ignore_label=label, dice_class=MemoryEfficientSoftDiceLoss
    )


def _ours(regions: bool, ignores: bool, batch_dice: bool, portion: int = 13):
    return PortionedDiceCE(regions, IGNORED if ignores else None, batch_dice, portion=portion)


def _target(shape, regions: bool, ignores: bool, filling: str, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    samples, channels, *space = shape
    foreground = torch.rand((samples, 1, *space), generator=random) < {"sparse": 0.03, "mixed": 0.5}.get(filling, 0)
    if filling == "sparse":
        foreground[0].view(-1)[-1] = True
    ignored = torch.rand((samples, 1, *space), generator=random) < 0.3 if ignores else None
    if regions:
        target = foreground & (torch.rand((samples, channels, *space), generator=random) < 0.7)
        target |= filling == "full"
        return target if ignored is None else torch.cat((target, ignored), 1)
    target = torch.randint(1, channels, foreground.shape, generator=random) * (foreground | (filling == "full"))
    return (target if ignored is None else torch.where(ignored, IGNORED, target)).to(torch.int16)


def _logits(shape, dtype=torch.float64, seed: int = 1):
    return 4 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _value_and_gradient(loss, logits, target, factor: float = 0.37):
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(logits, target)
    (factor * value).backward()
    return value.detach(), logits.grad


def _assert_same(ours, theirs, tolerance: float):
    """Values relative to at least 1, as both terms are of that size; gradients relative to the largest."""
    assert abs(float(ours[0]) - float(theirs[0])) <= tolerance * max(1.0, abs(float(theirs[0])))
    largest = float(theirs[1].abs().max())
    assert float((ours[1] - theirs[1]).abs().max()) <= tolerance * largest


class _TorchInFloat64:
    """torch for nnU-Net's Dice, which else adds up in float32 even what is float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize(("regions", "ignores"), KINDS)
def test_equals_nnunet_in_float64(regions, ignores, batch_dice, filling, monkeypatch):
    monkeypatch.setattr(nnunet_dice, "torch", _TorchInFloat64())
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the regions' target, as BCE rounds to its type
    for shape, portion in product(SHAPES, (13, 2**18)):
        data = _logits(shape), _target(shape, regions, ignores, filling)
        ours = _value_and_gradient(_ours(regions, ignores, batch_dice, portion), *data)
        assert ours[0].dtype == ours[1].dtype == torch.float64
        assert ours[1].any()
        _assert_same(ours, _value_and_gradient(_nnunet(regions, ignores, batch_dice), *data), 1e-12)


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize(("regions", "ignores"), KINDS)
def test_equals_nnunet_in_float32(regions, ignores, batch_dice, filling):
    for shape in [*SHAPES, (2, 3, 24, 25, 26)]:
        data = _logits(shape, torch.float32), _target(shape, regions, ignores, filling)
        ours = _value_and_gradient(_ours(regions, ignores, batch_dice, 500), *data)
        assert ours[0].dtype == ours[1].dtype == torch.float32
        _assert_same(ours, _value_and_gradient(_nnunet(regions, ignores, batch_dice), *data), 1e-6)


@pytest.mark.parametrize("regions", [False, True])
def test_everything_ignored(regions):
    shape = (2, 3, 4, 5, 6)
    target = _target(shape, regions, True, "mixed")
    if regions:
        target[:, -1] = True
    else:
        target[:] = IGNORED
    data = _logits(shape, torch.float32), target
    value, gradient = _value_and_gradient(_ours(regions, True, False), *data)
    assert float(value) == float(_nnunet(regions, True, False)(*data)) == -1
    assert not gradient.any()


@pytest.mark.parametrize("regions", [False, True])
def test_ignored_voxels_change_nothing(regions):
    shape = (2, 3, 4, 5, 6)
    target = _target(shape, regions, True, "mixed")
    ignored = target[:, -1:] == (1 if regions else IGNORED)
    value, gradient = _value_and_gradient(_ours(regions, True, False), _logits(shape), target)
    other = torch.where(ignored, _logits(shape, seed=2), _logits(shape))
    again, its_gradient = _value_and_gradient(_ours(regions, True, False), other, target)
    assert again == value
    assert torch.equal(its_gradient, gradient)
    assert not gradient[ignored.expand_as(gradient)].any()


@pytest.mark.parametrize("regions", [False, True])
def test_memory_layout_does_not_matter(regions):
    shape = (2, 3, 4, 5, 6)
    logits, target = _logits(shape), _target(shape, regions, False, "mixed")
    expected = _value_and_gradient(_ours(regions, False, False), logits, target)
    padded = torch.nn.functional.pad(logits, (1, 2, 3, 4, 5, 6)).requires_grad_()
    value = _ours(regions, False, False)(padded[:, :, 5:-6, 3:-4, 1:-2], target)
    (0.37 * value).backward()
    _assert_same((value.detach(), padded.grad[:, :, 5:-6, 3:-4, 1:-2]), expected, 1e-14)
    last = logits.contiguous(memory_format=torch.channels_last_3d)
    _assert_same(_value_and_gradient(_ours(regions, False, False), last, target), expected, 1e-14)


@pytest.mark.parametrize(("regions", "ignores"), KINDS)
def test_under_autocast_computes_in_float32(regions, ignores):
    """CPU autocast leaves nnU-Net's softmax in bfloat16; here only logits and gradient are rounded to it."""
    shape = (2, 3, 8, 9, 10)
    logits, target = _logits(shape, torch.bfloat16), _target(shape, regions, ignores, "mixed")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = _value_and_gradient(_ours(regions, ignores, True), logits, target)
        roughly = _value_and_gradient(_nnunet(regions, ignores, True), logits, target)
    assert value.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    expected = _value_and_gradient(_nnunet(regions, ignores, True), logits.float(), target)
    _assert_same((value, gradient.float()), (expected[0], expected[1].bfloat16().float()), 2**-8)  # a half rounding
    assert float(value) == pytest.approx(float(expected[0]), rel=1e-6)
    assert float(value) == pytest.approx(float(roughly[0]), rel=2e-2)


def test_without_gradient():
    shape = (1, 3, 4, 5, 6)
    logits, target = _logits(shape), _target(shape, False, False, "mixed")
    value = _ours(False, False, False)(logits, target)
    assert not value.requires_grad
    assert value == _value_and_gradient(_ours(False, False, False), logits, target)[0]


@pytest.mark.parametrize(("regions", "ignores"), KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_over_the_logits_is_the_same_and_takes_their_memory(regions, ignores, dtype):
    shape = (2, 3, 8, 9, 10)
    logits, target = _logits(shape, dtype), _target(shape, regions, ignores, "mixed")
    expected = _value_and_gradient(_ours(regions, ignores, True, portion=100), logits, target)
    loss = _ours(regions, ignores, True, portion=100)
    loss.over_logits = True
    own = logits.clone().requires_grad_()
    value = loss(own, target)
    (0.37 * value).backward()
    assert value == expected[0]
    assert torch.equal(own.grad, expected[1])
    assert own.grad.data_ptr() == own.data_ptr()


def test_gradient_over_the_logits_misleads_no_other_term():
    shape = (1, 2, 4, 5, 6)
    target = _target(shape, False, False, "mixed")
    logits = _logits(shape).clone().requires_grad_()
    with pytest.raises(RuntimeError, match="inplace"):
        # The other term's backward pass comes after, because it was made before.
        (logits.square().sum() + PortionedDiceCE(over_logits=True)(logits, target)).backward()


def test_many_portions_lose_no_precision():
    """4096 equal portions: added in float32, the sums would be far off."""
    logits = torch.tensor([0.3, -0.4]).view(1, 2, 1, 1, 1).expand(1, 2, 4096, 8, 8)
    target = torch.zeros((1, 1, 4096, 8, 8), dtype=torch.uint8)
    target[..., 0] = 1
    by_portions = PortionedDiceCE(portion=64)(logits, target)
    assert by_portions.dtype == torch.float32
    assert float(by_portions) == pytest.approx(float(PortionedDiceCE()(logits.double(), target)), rel=1e-6)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 2, 300, 2, 2), (5, 2, 2, 2, 1)])
@pytest.mark.parametrize("most", [1, 4, 13, 100, 2**18])
def test_portions_cover_each_voxel_once_and_are_bounded(shape, most):
    seen = torch.zeros(shape, dtype=torch.int64)
    for part in _parts(shape, most):
        seen[part] += 1
        assert prod(seen[part].shape) <= most * shape[1]
    assert (seen == 1).all()


def test_refuses_what_does_not_fit():
    logits = _logits((2, 3, 4, 5, 6))
    for regions, ignores, channels in [(False, False, 3), (True, False, 4), (True, True, 3)]:
        with pytest.raises(NeurinoError, match="expected"):
            _ours(regions, ignores, False)(logits, torch.zeros((2, channels, 4, 5, 6), dtype=torch.uint8))
    for label in (-1, 3):
        target = torch.zeros((2, 1, 4, 5, 6), dtype=torch.int16)
        target[1, 0, 2, 3, 4] = label
        with pytest.raises(NeurinoError, match=rf"label {label} in the target: expected 0 to 2; check"):
            _ours(False, False, False)(logits, target)
    with pytest.raises(NeurinoError, match="portion"):
        PortionedDiceCE(portion=0)


_PEAK = """
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunet_neurino.losses import PortionedDiceCE

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(name + ":"))

def extra(loss, depth):
    "MiB of resident memory that a step takes at its peak beyond logits, target and gradient."
    logits = torch.randn(1, 2, depth, 128, 128, requires_grad=True)
    target = (torch.rand(1, 1, depth, 128, 128) < 0.05).to(torch.uint8)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = status("VmRSS")
    loss(logits, target).backward()
    return status("VmHWM") - before - logits.numel() * 4 / 2**20

torch.set_num_threads(1)
dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
for loss in (PortionedDiceCE(), DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)):
    extra(loss, 16)  # what the first use loads
    print(extra(loss, 512))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the resident memory from /proc")
def test_resident_memory_is_that_of_a_portion():
    """In a child process; that nnU-Net's loss is seen to take much more shows that the measure measures."""
    run = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    ours, nnunets = (float(x) for x in run.stdout.split())
    assert ours < 40  # a portion's maps are 2 MiB; what is freed stays resident for a while
    assert nnunets > 3 * 64  # the logits' maps are 64 MiB


@pytest.mark.parametrize(("regions", "ignores"), KINDS)
def test_allocated_memory_does_not_grow_with_the_depth(regions, ignores, tmp_path):
    """torch's own accounting, to the byte: the most that is allocated at once during a step, less the gradient."""

    def extra(depth: int) -> int:
        shape = (1, 2, depth, 32, 32)
        logits = _logits(shape, torch.float32).requires_grad_()
        target = _target(shape, regions, ignores, "sparse")
        loss = _ours(regions, ignores, False, portion=2**12)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            loss(logits, target).backward()
        seen.export_chrome_trace(str(tmp_path / "trace.json"))
        events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
        events = sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"])
        return max(accumulate(e["args"]["Bytes"] for e in events)) - logits.numel() * 4

    shallow, deep = extra(16), extra(128)
    assert 0 < shallow <= 20 * 2**12 * 4
    assert shallow == deep
