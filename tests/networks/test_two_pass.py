"""Two passes: the gradient of the full graph, the memory of one window."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor

from nnunet_neurino.networks import DINOWindow
from nnunet_neurino.networks.two_pass import two_pass

WINDOW = (4, 16, 16)
GRIDS = {1: (1, 1, 1), 2: (2, 1, 1), 6: (1, 2, 3), 8: (2, 2, 2), 27: (3, 3, 3)}


def network(dtype: torch.dtype = torch.float64, **changes) -> DINOWindow:
    torch.manual_seed(0)
    ours = DINOWindow(**{"vit": "atto_v3", "window": WINDOW, "dropout": 0.5} | changes).to(dtype).train()
    with torch.no_grad():
        for parameter in ours.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return ours


def case(shape: tuple[int, int, int], dtype: torch.dtype, seed: int = 1, batch: int = 1) -> tuple[Tensor, Tensor]:
    """An image and a sparse target: one small structure in one corner."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 1, *shape, generator=generator, dtype=torch.float64)
    target = torch.zeros(batch, 1, *shape)
    target[..., 1:3, 3:9, 5:11] = 1
    return (image + target).to(dtype), target


def dice_and_ce() -> DC_and_CE_loss:
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(dice, {}, weight_ce=1, weight_dice=1, dice_class=MemoryEfficientSoftDiceLoss)


def gradients(ours: DINOWindow) -> Tensor:
    found = torch.cat([p.grad.flatten() for p in ours.decoder.parameters() if p.grad is not None])
    ours.zero_grad(set_to_none=True)
    return found


def full_graph(ours: DINOWindow, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    loss = dice_and_ce()(ours(image), target)
    loss.backward()
    return loss.detach(), gradients(ours)


def in_two_passes(ours: DINOWindow, image: Tensor, target: Tensor, **options) -> tuple[Tensor, Tensor]:
    loss = two_pass(ours.decoder, ours.windows(image), lambda logits: dice_and_ce()(logits, target), **options)
    return loss, gradients(ours)


def difference(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("count", GRIDS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("head", [False, True])
def test_the_gradient_is_that_of_the_full_graph(count, dtype, tolerance, head) -> None:
    shape = tuple(n * w for n, w in zip(GRIDS[count], WINDOW, strict=True))
    ours = network(dtype, dense_head=head)
    image, target = case(shape, dtype)
    state = torch.get_rng_state()
    loss, wanted = full_graph(ours, image, target)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    loss_too, found = in_two_passes(ours, image, target)
    assert float(loss_too) == pytest.approx(float(loss), rel=tolerance)
    assert difference(found, wanted) < tolerance
    assert torch.equal(torch.get_rng_state(), after), "the random numbers go on as after one pass"


def test_dropout_draws_the_same_in_both_passes_and_another_in_the_next_step() -> None:
    ours = network()
    image, target = case((8, 32, 16), torch.float64)
    torch.manual_seed(3)
    _, first = in_two_passes(ours, image, target)
    _, second = in_two_passes(ours, image, target)
    assert difference(second, first) > 1e-3, "no dropout, or the same numbers again"
    torch.manual_seed(3)
    ours.eval()
    _, without = in_two_passes(ours, image, target)
    assert difference(without, first) > 1e-3


def test_odd_volumes_batches_and_arms_for_each_position() -> None:
    for changes, shape in (({}, (5, 20, 17)), ({"arms": (2, 1, 2)}, (8, 16, 32)), ({"in_channels": 2}, (8, 16, 32))):
        ours = network(**changes)
        image, target = case(shape, torch.float64, batch=2)
        image = image.expand(-1, ours.in_channels, -1, -1, -1)
        torch.manual_seed(5)
        _, wanted = full_graph(ours, image, target)
        torch.manual_seed(5)
        _, found = in_two_passes(ours, image, target)
        assert difference(found, wanted) < 1e-12


def test_the_mean_of_the_windows_losses_is_another_gradient() -> None:
    ours = network(dropout=0.0)
    with torch.no_grad():  # foreground is rare: as after some steps, the cross-entropy does not drown the Dice
        ours.decoder.arms[0].seg_layers[0].bias.copy_(torch.tensor([3.0, -3.0]))
    image, target = case((12, 48, 48), torch.float64)
    _, wanted = full_graph(ours, image, target)
    windows = ours.windows(image)
    losses = [
        dice_and_ce()(ours.decoder(windows.tokens(k), windows.grid, k), windows.grid.cut(target, k))
        for k in range(len(windows.grid))
    ]
    torch.stack(losses).mean().backward()
    assert difference(gradients(ours), wanted) > 0.1


def test_a_gradient_scaler_and_mixed_precision() -> None:
    ours = network(torch.float32)
    image, target = case((8, 32, 16), torch.float32)
    torch.manual_seed(7)
    _, plain = in_two_passes(ours, image, target)
    torch.manual_seed(7)
    loss, scaled = in_two_passes(ours, image, target, scaled=lambda value: 1024 * value)
    assert difference(scaled, 1024 * plain) < 1e-6
    assert float(loss) < 100

    def mixed() -> contextlib.AbstractContextManager[object]:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    torch.manual_seed(7)
    with mixed():
        full = dice_and_ce()(ours(image), target)
    full.backward()
    wanted = gradients(ours)
    torch.manual_seed(7)
    _, found = in_two_passes(ours, image, target, autocast=mixed)
    assert difference(found, wanted) < 0.02
    assert difference(found, plain) < 0.2


def test_what_is_frozen_has_no_gradient_and_no_state_in_the_optimiser() -> None:
    ours = network(torch.float32)
    optimiser = torch.optim.AdamW([p for p in ours.parameters() if p.requires_grad])
    image, target = case((8, 16, 16), torch.float32)
    two_pass(ours.decoder, ours.windows(image), lambda logits: dice_and_ce()(logits, target))
    optimiser.step()
    assert all(p.grad is None for p in ours.encoder.parameters())
    held = {id(p) for group in optimiser.param_groups for p in group["params"]} | {id(p) for p in optimiser.state}
    assert not held & {id(p) for p in ours.encoder.parameters()}


MEASURE = """
import json, sys
import torch
from nnunet_neurino.losses import PortionedDiceCE
from nnunet_neurino.networks import DINOWindow
from nnunet_neurino.networks.two_pass import two_pass

def resident(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return 1024 * int(line.split()[1])

torch.set_num_threads(1)
window = (32, 64, 96)
ours = DINOWindow(vit="atto_v3", window=window, num_classes=2).train()
optimiser = torch.optim.AdamW(ours.decoder.parameters())
loss = PortionedDiceCE(over_logits=True)

def step(image, target, passes):
    if passes == "two":
        two_pass(ours.decoder, ours.windows(image), lambda logits: loss(logits, target))
    else:
        loss(ours(image), target).backward()
    optimiser.step()
    optimiser.zero_grad()

def volume(n):
    image = torch.rand(1, 1, n * window[0], *window[1:])
    return image, (image > 0.99).to(torch.int16)

step(*volume(1), "two")  # what is allocated once and for all
beyond_logits = []
for count, passes in json.loads(sys.argv[1]):
    image, target = volume(count)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the kernel begins its high-water mark anew
    before = resident("VmRSS")
    step(image, target, passes)
    beyond_logits.append(resident("VmHWM") - before - 8 * image.numel())
print(json.dumps(beyond_logits))
"""


def beyond_logits(*steps: tuple[int, str]) -> list[int]:
    """Peak memory of training steps, each of so many windows in one pass or two, beyond the volume's logits; bytes."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("peak memory is read from /proc, which only Linux has")
    environment = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    said = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(steps)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(said.stdout.splitlines()[-1])


def test_memory_of_a_step_is_that_of_one_window_and_the_logits() -> None:
    """From the second window on the gradients of the parameters are added up, which takes the largest of them twice."""
    one, nine, five_at_once = beyond_logits((1, "two"), (9, "two"), (5, "one"))
    assert nine < 1.05 * one
    assert five_at_once > 3 * one, "what is measured would not show a growth"
