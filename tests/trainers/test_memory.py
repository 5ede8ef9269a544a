"""Memory counted on the meta device, against sums done by hand and PyTorch's own autocast on fake CUDA tensors."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from fake_cuda import bytes_after_forward
from torch import nn
from torch.utils.checkpoint import checkpoint

from nnunet_neurino.networks import DINeuro, DINOWindow, MedNeXt, NeurINO
from nnunet_neurino.trainers import memory
from nnunet_neurino.trainers.families.patches import first_that_fits
from nnunet_neurino.trainers.memory_count import CudaOperations, LiveBytes

NETWORKS = "nnunet_neurino.networks."
TINY = {"size": "tiny", "norm": "group", "grn": True}


class Chain(nn.Module):
    """Four linear layers with a ReLU behind each; of one voxel 1, 8, 8, 8 and 2 channels."""

    def __init__(self, in_channels: int = 1, num_classes: int = 2, checkpointing: bool = False) -> None:
        super().__init__()
        widths = (in_channels, 8, 8, 8, num_classes)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.checkpointing = checkpointing

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        rows = image.permute(0, 2, 3, 4, 1)
        if self.checkpointing:
            rows = checkpoint(self._rows, rows, use_reentrant=False)
        else:
            rows = self._rows(rows)
        return rows.permute(0, 4, 1, 2, 3)

    def _rows(self, rows: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            rows = torch.relu(layer(rows))
        return rows


def after_forward(network: nn.Module, mixed: bool, patch: tuple[int, ...] = (16, 16, 16), batch: int = 2) -> int:
    """Live bytes beyond the parameters' while image and outputs exist."""
    network = network.to("meta").train()
    there = [*network.parameters(), *network.buffers()]
    cuda, live = CudaOperations(mixed), LiveBytes(there)
    with live, cuda:
        image = torch.empty(batch, 1, *patch, device="meta")
        outputs = network(image)
        cuda.forget_casts()
        torch.empty((), device="meta")
    del image, outputs
    return live.timeline[-1] - sum(tensor.nbytes for tensor in there) - 4


def estimate(network: str, kwargs: dict[str, Any], patch: tuple[int, ...], batch: int = 2, **options: bool) -> float:
    return memory.training_memory(NETWORKS + network, kwargs, patch, batch, 1, 2, **options)


def test_storages_are_counted_once_and_no_longer_than_they_live() -> None:
    weight = torch.empty(10, 10, device="meta")
    with LiveBytes([weight, weight.T]) as live:
        a = torch.empty(5, 10, device="meta")
        b = (a @ weight).view(50)[10:]  # views share a storage
        b.add_(1)
        del a
        c = torch.ones_like(b)
        del b, c
        torch.empty((), device="meta")
    assert live.timeline[0] == 400 + 200
    assert max(live.timeline) == 400 + 2 * 200
    assert live.timeline[-2:] == [400 + 200 + 160, 400 + 4]


@pytest.mark.parametrize("mixed", [False, True])
def test_a_chain_of_linear_layers_by_hand(mixed: bool) -> None:
    voxels = 2 * 16**3
    # The image, and what each ReLU returns: the input of the next layer and what its own derivative is made of.
    values = voxels * (8 + 8 + 8 + 2)
    image = 4 * voxels
    halves = 2 * voxels + 2 * (8 * 8 + 8 * 8 + 8 * 2)  # the image and the weights that the backward pass needs
    expected = image + 2 * values + halves if mixed else image + 4 * values
    found = after_forward(Chain(), mixed)
    assert found == pytest.approx(expected, abs=64)
    # Checkpointed: image, its copy where it was cast, and the output.
    again = after_forward(Chain(checkpointing=True), mixed)
    assert again == pytest.approx(image + voxels * 2 * (2 if mixed else 4), abs=64)


CASES = {
    "neurino": (lambda: NeurINO(size="atto", norm="group", grn=True), (32, 32, 32)),
    "batch norm": (lambda: NeurINO(size="atto", norm="batch"), (32, 32, 32)),
    "checkpointed": (lambda: NeurINO(size="atto", norm="group", grn=True, checkpointing=True), (32, 32, 32)),
    "mednext": (lambda: MedNeXt(size="S"), (32, 32, 32)),
    "dineuro": (lambda: DINeuro(vit="atto"), (8, 64, 64)),
    "dineuro v3, upernet": (lambda: DINeuro(vit="atto_v3", decoder="upernet", tubes=False), (8, 64, 64)),
}


@pytest.mark.parametrize("mixed", [True, False], ids=["mixed", "full"])
@pytest.mark.parametrize("case", CASES)
def test_as_on_fake_cuda_tensors_under_pytorchs_own_autocast(case: str, mixed: bool) -> None:
    make, patch = CASES[case]
    with torch.device("meta"):
        network = make()
    theirs = bytes_after_forward(network, (2, 1, *patch), mixed)
    if theirs is None:
        pytest.skip("this build of PyTorch has no fake CUDA tensors")
    assert after_forward(network, mixed, patch) == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize(
    ("network", "kwargs", "patch", "peak"),
    [
        ("NeurINO", TINY, (128, 128, 128), 38.6),
        ("NeurINO", {**TINY, "checkpointing": True}, (112, 128, 128), 19.7),
        ("NeurINO", {**TINY, "checkpointing": True}, (96, 96, 112), 11.2),
        ("MedNeXt", {"size": "L"}, (64, 64, 80), 12.4),
        ("DINeuro", {"vit": "small", "tube_step": 0.5}, (48, 128, 128), 7.4),
    ],
)
def test_peaks_counted_independently_on_fake_cuda_tensors(
    network: str, kwargs: dict[str, Any], patch: tuple[int, ...], peak: float
) -> None:
    """Forward and backward, batch 2, GiB; counted with another program, so the tolerance is one of rounding."""
    assert estimate(network, kwargs, patch) - memory.CONTEXT_GIB == pytest.approx(peak, rel=0.02)


def test_batches_follow_from_two_smaller_ones() -> None:
    for network, kwargs, patch in (
        ("NeurINO", {**TINY, "size": "atto"}, (32, 32, 32)),
        ("DINeuro", {"vit": "atto"}, (8, 64, 64)),
    ):
        key = (NETWORKS + network, json.dumps(kwargs), 1, 2, False), patch, False, False
        assert len(memory._trial(*key, 2)) == len(memory._trial(*key, 3))
        for batch in (4, 9):
            fixed = estimate(network, kwargs, patch, 1) - memory._trial(*key, 1).max() / 2**30
            direct = memory._trial(*key, batch).max() / 2**30 + fixed
            assert estimate(network, kwargs, patch, batch) == pytest.approx(direct, rel=1e-12)


def test_what_takes_more_and_what_takes_less() -> None:
    kwargs = {**TINY, "size": "atto"}
    plain = estimate("NeurINO", kwargs, (64, 64, 64))
    context = memory.CONTEXT_GIB
    assert estimate("NeurINO", kwargs, (64, 64, 64), full_precision=True) - context > 1.2 * (plain - context)
    assert estimate("NeurINO", kwargs, (64, 64, 64), tasl=True) >= plain
    assert estimate("NeurINO", kwargs, (64, 64, 64), frozen=True) < 0.95 * plain
    assert estimate("NeurINO", {**kwargs, "checkpointing": True}, (64, 64, 64)) < 0.8 * plain
    with torch.device("meta"):
        parameters = sum(p.numel() for p in NeurINO(**kwargs).parameters())
    assert estimate("NeurINO", kwargs, (64, 64, 64), ema=True) - plain == pytest.approx(4 * parameters / 2**30)
    # A trial leaves nothing behind.
    memory._trial.cache_clear()
    assert estimate("NeurINO", kwargs, (64, 64, 64)) == plain


def test_of_small_patches_the_optimiser_takes_most() -> None:
    """Weights, gradients, two moments and a temporary copy, float32 each, and nothing to speak of beside them."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in NeurINO(**TINY).parameters())
    least = 5 * 4 * parameters / 2**30 + memory.CONTEXT_GIB
    assert estimate("NeurINO", TINY, (16, 16, 16)) == pytest.approx(least, rel=0.01)


@pytest.mark.parametrize(("tasl", "copies"), [(False, 1), (True, 4)])
def test_of_a_windowed_volume_only_the_whole_grows(tasl: bool, copies: int) -> None:
    """Image and logits, float32, target (int16), and with TASL three tensors like the logits at most."""
    kwargs = {"vit": "atto_v3", "window": [16, 32, 32]}
    assert hasattr(DINOWindow, "trial_step")
    volumes = [(64, 256, 256), (128, 256, 256)]
    small, large = (estimate("DINOWindow", kwargs, volume, 1, tasl=tasl) for volume in volumes)
    grown = math.prod(volumes[1]) - math.prod(volumes[0])
    assert large - small == pytest.approx(grown * (4 + 2 + copies * 2 * 4) / 2**30, rel=0.1)


def test_the_first_that_fits() -> None:
    asked = []

    def fits(number: int) -> bool:
        asked.append(number)
        return number <= 37

    assert first_that_fits(range(100, 0, -1), fits) == 37
    assert len(asked) <= 8
    assert first_that_fits([90, 80], fits) == 80
    asked.clear()
    assert first_that_fits(range(30, 0, -1), fits) == 30
    assert asked == [30], "most plans fit as they are"
