"""Does an inflated encoder learn faster? Steps until the training loss of a network from scratch is reached.

1. Stand-in pretraining: a 2D ConvNeXt (timm's) learns to mark neurons in slices of generated stacks.
2. For every seed NeurINO is trained on other generated stacks, once from scratch and once for every inflation rule with
   those 2D weights. All see the same fresh patches in the same order, their decoders start from the same numbers, and
   all have the same learning rate: only the start of the encoder differs.
3. The training loss (Dice + cross-entropy over all heads, halved from head to head, mean of the last --window steps) of
   the scratch network at its last step is the mark; the table says after how many steps every rule was below it.

The learning rate rises over a twentieth of the steps and stays, so that no run ends on a better schedule than another
has at half time. The horizon matters: in its first 50 steps or so a fresh decoder limits every start alike.
Every finished run is kept as JSON in --output; starting again goes on with the missing ones.

Examples:
  python benchmarks/learn.py --quick
  python benchmarks/learn.py --output learn_runs
  python benchmarks/learn.py --device cuda --patch 64 --steps 300 --pretrain-steps 2000
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_neurino.files import atomic_path, write_json
from nnunet_neurino.networks import SIZES, NeurINO
from nnunet_neurino.synth import SynthSettings, SynthVolume, generate, preset
from nnunet_neurino.transfer import RULES, default_kernel_depth, inflate

SCRATCH = "scratch"
SHAPE = (48, 96, 96)
"""Voxels (z, y, x) of the generated stacks."""

DIM = {"photons": 30.0, "puncta": 2000.0, "punctum_light": 20.0, "glowing_cells": 15.0, "glowing_cell_light": 12.0}
"""What makes the specimen hard; see ``MicroscopeSettings``."""


class Stack(NamedTuple):
    """A generated stack: z-scored image and mask, both (z, y, x), and the places (n, 3) of its neuron voxels."""

    image: Tensor
    mask: Tensor
    places: Tensor


def specimen() -> SynthSettings:
    """Dim neurons among specks and glowing cells: brightness alone does not tell what is a neuron."""
    settings = preset("demo", shape=SHAPE)
    return replace(settings, microscope=replace(settings.microscope, **DIM))


@functools.lru_cache(maxsize=1)
def stacks_of(count: int, first_seed: int) -> list[Stack]:
    """Generated stacks; the last ones asked for are kept."""
    settings = specimen()
    made = (generate(settings, seed=(first_seed, number)) for number in range(count))
    return [_prepared(volume) for volume in tqdm(made, total=count, desc="stacks", leave=False)]


def _prepared(volume: SynthVolume) -> Stack:
    image, mask = torch.from_numpy(volume.image.astype(np.float32)), torch.from_numpy(volume.mask.astype(np.int64))
    return Stack((image - image.mean()) / image.std(), mask, torch.nonzero(mask))


def crops(stacks: list[Stack], size: tuple[int, ...], count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch of crops (N, 1, z, y, x) and masks (N, z, y, x); two thirds are centred near neuron voxels."""
    images, masks = [], []
    for _ in range(count):
        stack = stacks[rng.integers(len(stacks))]
        room = [n - s for n, s in zip(stack.image.shape, size, strict=True)]
        corner = [int(rng.integers(r + 1)) for r in room]
        if rng.random() < 2 / 3 and len(stack.places):
            centre = stack.places[rng.integers(len(stack.places))].tolist()
            corner = [min(max(c - s // 2, 0), r) for c, s, r in zip(centre, size, room, strict=True)]
        place = tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))
        images.append(stack.image[place])
        masks.append(stack.mask[place])
    return torch.stack(images)[:, None], torch.stack(masks)


def dice_and_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice of the foreground over the batch, and cross-entropy."""
    foreground = logits.softmax(1)[:, 1]
    truth = target.float()
    overlap = (2 * (foreground * truth).sum() + 1e-5) / (foreground.sum() + truth.sum() + 1e-5)
    return 1 - overlap + F.cross_entropy(logits, target)


class Pretrainer(nn.Module):
    """timm's ConvNeXt and the lightest head that marks pixels: all stages, brought to the grid of the first, added."""

    def __init__(self, size: str) -> None:
        super().__init__()
        widths = SIZES[size].widths
        self.encoder = ConvNeXt(depths=SIZES[size].depths, dims=widths, num_classes=0, ls_init_value=0.1)
        # NeurINO's stem. DINOv3 has seen every magnification and bears the change from 4; this stand-in has not.
        self.encoder.stem[0].stride, self.encoder.stem[0].padding = (2, 2), (1, 1)
        self.laterals = nn.ModuleList(nn.Conv2d(width, 64, 1) for width in widths)
        self.head = nn.Sequential(nn.GELU(), nn.Conv2d(64, 2 * 4, 1), nn.PixelShuffle(2))

    def forward(self, slices: Tensor) -> Tensor:
        x = self.encoder.stem(slices.expand(-1, 3, -1, -1))
        total: Tensor | None = None
        for stage, lateral in zip(self.encoder.stages, self.laterals, strict=True):
            x = stage(x)
            y = lateral(x)
            total = y if total is None else total + F.interpolate(y, total.shape[-2:], mode="bilinear")
        return self.head(total)


def pretrained(args: argparse.Namespace) -> dict[str, Tensor]:
    """The 2D weights as timm names them, from --output or trained now."""
    path = args.output / f"pretrained_{args.size}_{args.pretrain_steps}.pt"
    if path.is_file():
        return torch.load(path, weights_only=True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    stacks = stacks_of(args.pretrain_stacks, 1_000)
    network = Pretrainer(args.size).to(args.device)
    step_of = _optimiser(network, args.lr, args.pretrain_steps)
    with tqdm(range(args.pretrain_steps), desc="2D pretraining") as bar:
        for step in bar:
            images, masks = crops(stacks, (1, args.patch, args.patch), 16, rng)
            images, masks = images[:, :, 0].to(args.device), masks[:, 0].to(args.device)
            loss = dice_and_ce(network(images), masks)
            step_of(loss, step)
            bar.set_postfix(loss=f"{loss.item():.3f}")
    state = {name: tensor.cpu() for name, tensor in network.encoder.state_dict().items()}
    with atomic_path(path) as unfinished:
        torch.save(state, unfinished)
    return state


def _optimiser(network: nn.Module, lr: float, steps: int, encoder_share: float = 1.0) -> Callable[[Tensor, int], None]:
    encoder = {id(parameter) for parameter in network.get_submodule("encoder").parameters()}
    groups = [
        {"params": [p for p in network.parameters() if id(p) in encoder], "share": encoder_share},
        {"params": [p for p in network.parameters() if id(p) not in encoder], "share": 1.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr, weight_decay=1e-2, fused=True)

    def step_of(loss: Tensor, step: int) -> None:
        for group in optimiser.param_groups:
            group["lr"] = lr * group["share"] * min(1.0, (step + 1) / max(1, steps // 20))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimiser.step()

    return step_of


def train(start: str, seed: int, weights: dict[str, Tensor], args: argparse.Namespace) -> list[float]:
    """Training losses of one run, step by step."""
    torch.manual_seed(seed)
    depth = default_kernel_depth(start) if start != SCRATCH else 3
    # Built first, so that all runs of a seed draw the same numbers for it.
    decoder = NeurINO(size=args.size, norm=args.norm, grn=args.grn).decoder.state_dict()
    network = NeurINO(size=args.size, norm=args.norm, grn=args.grn, kernel_depth=depth)
    network.decoder.load_state_dict(decoder)
    if start != SCRATCH:
        network.encoder.load_state_dict(inflate(weights, start, kernel_depth=depth))
    network.to(args.device).train()
    step_of = _optimiser(network, args.lr, args.steps, 1.0 if start == SCRATCH else args.encoder_lr)
    rng = np.random.default_rng(seed)
    stacks = stacks_of(args.stacks, 2_000 + seed)
    batches = [crops(stacks, (args.patch,) * 3, args.batch, rng) for _ in range(args.steps)]
    losses = []
    for step in tqdm(range(args.steps), desc=f"seed {seed}, {start}"):
        images, masks = batches[step]
        loss = _deep_loss(network(images.to(args.device)), masks.to(args.device))
        step_of(loss, step)
        losses.append(loss.item())
    return losses


def _deep_loss(logits: list[Tensor], target: Tensor) -> Tensor:
    total, norm = torch.zeros((), device=target.device), 0.0
    for head, output in enumerate(logits):
        small = F.interpolate(target[:, None].float(), output.shape[2:], mode="nearest-exact")[:, 0].long()
        total = total + 0.5**head * dice_and_ce(output, small)
        norm += 0.5**head
    return total / norm


def smoothed(losses: list[float], window: int) -> list[float]:
    """Mean of the last ``window`` losses at every step; none before there are as many."""
    return [statistics.fmean(losses[i - window : i]) for i in range(window, len(losses) + 1)]


def steps_to(losses: list[float], mark: float, window: int) -> int | None:
    """Steps until the smoothed loss is at most ``mark``."""
    return next((window + i for i, loss in enumerate(smoothed(losses, window)) if loss <= mark), None)


def table(runs: dict[str, dict[int, list[float]]], args: argparse.Namespace) -> str:
    """What the runs say so far."""
    lines = [f"{'start':<12} {'final loss':<24} {'steps to scratch final loss':<30} share of {args.steps} steps"]
    for start, by_seed in runs.items():
        finals = " ".join(f"{smoothed(losses, args.window)[-1]:.3f}" for losses in by_seed.values())
        needed, shares = "", ""
        if start != SCRATCH:
            marks = {seed: smoothed(losses, args.window)[-1] for seed, losses in runs[SCRATCH].items()}
            steps = [steps_to(losses, marks[seed], args.window) for seed, losses in by_seed.items() if seed in marks]
            needed = " ".join("never" if n is None else str(n) for n in steps)
            shares = " ".join("-" if n is None else f"{n / args.steps:.2f}" for n in steps)
        lines.append(f"{start:<12} {finals:<24} {needed:<30} {shares}")
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, default=Path("learn_runs"), help="folder of finished runs (default: learn_runs)")
    add("--quick", action="store_true", help="the smallest network, few steps, one seed: does it run? (a minute)")
    add("--size", default="tiny", choices=list(SIZES), help="network (default: tiny)")
    add("--steps", type=int, default=300, help="training steps of every run (default: 300)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    add("--rules", nargs="+", default=list(RULES), choices=RULES, help="inflation rules (default: all)")
    add("--patch", type=int, default=32, help="voxels of a side (default: 32)")
    add("--batch", type=int, default=2, help="patches a step (default: 2)")
    add("--stacks", type=int, default=16, help="generated stacks to train on (default: 16)")
    add("--pretrain-steps", type=int, default=1000, help="steps of 2D pretraining (default: 1000)")
    add("--pretrain-stacks", type=int, default=40, help="generated stacks whose slices it sees (default: 40)")
    add("--lr", type=float, default=1e-3, help="AdamW's learning rate (default: 0.001)")
    add("--encoder-lr", type=float, default=1.0, help="share of it for an inflated encoder (default: 1)")
    add("--norm", default="group", choices=("batch", "group", "layer"), help="decoder's norm (default: group)")
    add("--grn", action="store_true", help="GRN in the decoder (default: none, as released)")
    add("--window", type=int, default=30, help="steps over which losses are averaged (default: 30)")
    add("--device", default="cpu", help="default: cpu")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: 1)")
    add("--minutes", type=float, default=float("inf"), help="start no further run after this time (default: never)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.quick:
        args.size, args.steps, args.seeds, args.stacks, args.window = "atto", 30, [0], 2, 10
        args.pretrain_steps, args.pretrain_stacks = 60, 4
    return args


def main(argv: list[str] | None = None) -> int:
    """Run what is missing and print the table."""
    args = parse(argv)
    began = time.monotonic()
    weights = pretrained(args)
    runs: dict[str, dict[int, list[float]]] = {start: {} for start in (SCRATCH, *args.rules)}
    what = {key: value for key, value in vars(args).items() if key in _DECIDES}
    for seed in args.seeds:
        for start in runs:
            path = args.output / f"{args.size}_{start}_{seed}.json"
            record = json.loads(path.read_text()) if path.is_file() else {}
            if record.get("settings") != what:
                if time.monotonic() - began > 60 * args.minutes:
                    continue
                record = {"settings": what, "losses": train(start, seed, weights, args)}
                write_json(path, record)
            runs[start][seed] = record["losses"]
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU ({platform.machine()})"
    print(
        f"NeurINO-{args.size}, {args.batch} x {args.patch}^3, {device}, torch {torch.__version__}\n{table(runs, args)}"
    )
    return 0


_DECIDES = frozenset(
    [
        "size",
        "steps",
        "patch",
        "batch",
        "stacks",
        "pretrain_steps",
        "pretrain_stacks",
        "lr",
        "encoder_lr",
        "window",
        "norm",
        "grn",
    ]
)
"""Options that decide what a run gives."""

if __name__ == "__main__":
    raise SystemExit(main())
