"""Does an inflated encoder learn faster? Steps until the training loss of a network from scratch is reached.

1. Stand-in pretraining: a 2D ConvNeXt (timm's) learns to mark neurons in slices of generated stacks.
2. For every seed NeurINO is trained on other generated stacks, from scratch and for every inflation rule with those 2D
   weights. All see the same fresh patches in the same order, their decoders start from the same numbers, and all have
   the same optimiser and learning rate; a pretrained encoder's blocks have the less of it the further away they are
   from the decoder, as in the trainers (--layer-decay). Rules whose kernels are deeper have a run from scratch of
   their own, with the same kernels.
3. The scratch network's training loss after its last step is the mark; the table says after how many steps every rule
   had reached it. A rule's run ends there (or with --steps, whichever comes first).

Training loss is Dice + cross-entropy over all heads, halved from head to head. The loss of single batches is too noisy
to compare two steps, so it is measured, every --every steps, on --probes patches of the training stacks that are drawn
once for a seed and are the same for all starts, with the exponential moving average of the weights (--ema). Mark and
arrival are both judged by the mean of the last --window measurements.

The learning rate rises over --warmup steps and stays, so that no run ends on a better schedule than another has at half
time. In the first 50 steps or so a fresh decoder limits every start alike: a short horizon says little.
Every finished run is kept as JSON in --output; starting again goes on with the missing ones.

Examples:
  python benchmarks/learn.py --quick
  python benchmarks/learn.py --output learn_runs
  python benchmarks/learn.py --device cuda --patch 64 --steps 1000 --probes 32
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import platform
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
from nnunet_neurino.trainers.families.neurino import NeurINOSettings
from nnunet_neurino.trainers.optimisation import parameter_groups
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
    path = args.output / f"pretrained_{args.size}_{args.pretrain_steps}_{args.pretrain_patch}.pt"
    if path.is_file():
        return torch.load(path, weights_only=True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    stacks = stacks_of(args.pretrain_stacks, 1_000)
    network = Pretrainer(args.size).to(args.device)
    step_of = _optimiser(network, args.lr, min(100, args.pretrain_steps // 4), falls_over=args.pretrain_steps)
    with tqdm(range(args.pretrain_steps), desc="2D pretraining") as bar:
        for step in bar:
            images, masks = crops(stacks, (1, args.pretrain_patch, args.pretrain_patch), 16, rng)
            images, masks = images[:, :, 0].to(args.device), masks[:, 0].to(args.device)
            loss = dice_and_ce(network(images), masks)
            step_of(loss, step)
            bar.set_postfix(loss=f"{loss.item():.3f}")
    state = {name: tensor.cpu() for name, tensor in network.encoder.state_dict().items()}
    with atomic_path(path) as unfinished:
        torch.save(state, unfinished)
    return state


def _optimiser(
    network: nn.Module, lr: float, warmup: int, falls_over: int | None = None, layer_decay: float = 1.0
) -> Callable[[Tensor, int], None]:
    """What takes one step down a loss.

    The learning rate falls to 0 (cosine) over ``falls_over`` steps, if given; each block of the encoder away from the
    decoder has ``layer_decay`` of it.
    """
    optimiser = torch.optim.AdamW(parameter_groups(network, lr, 1e-2, True, layer_decay), lr, fused=True)

    def step_of(loss: Tensor, step: int) -> None:
        share = min(1.0, (step + 1) / warmup)
        if falls_over is not None:
            share *= (1 + math.cos(math.pi * step / falls_over)) / 2
        for group in optimiser.param_groups:
            group["lr"] = group["peak_lr"] * share
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimiser.step()

    return step_of


def scratch_for(rule: str) -> str:
    """The start from scratch with a rule's kernels: what the rule is measured by."""
    depth = default_kernel_depth(rule)
    return SCRATCH if depth == 3 else f"{SCRATCH}_{depth}"


def kernel_depth(start: str) -> int:
    """Taps along the depth of the network that begins with ``start``."""
    return next(default_kernel_depth(rule) for rule in RULES if start in (rule, scratch_for(rule)))


def built(start: str, seed: int, weights: dict[str, Tensor], args: argparse.Namespace) -> NeurINO:
    """The network that a run begins with; of one seed, all have the same decoder."""
    torch.manual_seed(seed)
    depth = kernel_depth(start)
    # Built first, so that all runs of a seed draw the same numbers for it.
    decoder = NeurINO(size=args.size, norm=args.norm, grn=args.grn).decoder.state_dict()
    network = NeurINO(size=args.size, norm=args.norm, grn=args.grn, kernel_depth=depth)
    network.decoder.load_state_dict(decoder)
    if start in RULES:
        network.encoder.load_state_dict(inflate(weights, start, kernel_depth=depth))
    return network.to(args.device).train()


def train(
    start: str, seed: int, weights: dict[str, Tensor], mark: float | None, args: argparse.Namespace
) -> list[float]:
    """Training losses of one run: before the first step and after every ``--every`` steps; it ends at ``mark``."""
    network = built(start, seed, weights, args)
    average = copy.deepcopy(network).requires_grad_(False)
    stacks = stacks_of(args.stacks, 2_000 + seed)
    batches, probes = np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1))
    probe = [crops(stacks, (args.patch,) * 3, args.batch, probes) for _ in range(max(1, args.probes // args.batch))]
    step_of = _optimiser(network, args.lr, args.warmup, layer_decay=args.layer_decay if start in RULES else 1.0)
    losses = [training_loss(average, probe, args.device)]
    with tqdm(range(1, args.steps + 1), desc=f"seed {seed}, {start}", mininterval=5) as bar:
        for step in bar:
            images, masks = crops(stacks, (args.patch,) * 3, args.batch, batches)
            step_of(_deep_loss(network(images.to(args.device)), masks.to(args.device)), step - 1)
            _follow(average, network, min(args.ema, step / (step + 9)))
            if step % args.every == 0:
                losses.append(training_loss(average, probe, args.device))
                bar.set_postfix(loss=f"{losses[-1]:.3f}")
                if mark is not None and steps_to(losses, mark, args) is not None:
                    break
    return losses


@torch.no_grad()
def training_loss(network: nn.Module, probe: list[tuple[Tensor, Tensor]], device: str) -> float:
    """Mean loss of the batches of ``probe``."""
    return math.fsum(_deep_loss(network(x.to(device)), y.to(device)).item() for x, y in probe) / len(probe)


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, keep: float) -> None:
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - keep)
    for kept, new in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(new)


def _deep_loss(logits: list[Tensor], target: Tensor) -> Tensor:
    total, norm = torch.zeros((), device=target.device), 0.0
    for head, output in enumerate(logits):
        small = F.interpolate(target[:, None].float(), output.shape[2:], mode="nearest-exact")[:, 0].long()
        total = total + 0.5**head * dice_and_ce(output, small)
        norm += 0.5**head
    return total / norm


def smoothed(losses: list[float], window: int) -> list[float]:
    """Mean of the last ``window`` losses; of as many as there are at the beginning."""
    return [math.fsum(part) / len(part) for part in (losses[max(0, i - window) : i] for i in range(1, len(losses) + 1))]


def steps_to(losses: list[float], mark: float, args: argparse.Namespace) -> int | None:
    """Steps until the mean of the last losses, one every ``--every`` steps from step 0 on, is at most ``mark``."""
    return next((args.every * i for i, loss in enumerate(smoothed(losses, args.window)) if loss <= mark), None)


def table(runs: dict[str, dict[int, list[float]]], args: argparse.Namespace) -> str:
    """What the runs say so far."""
    head = f"share of {args.steps} steps"
    lines = [f"{'start':<12} {'loss at half time':<24} {'steps to scratch final loss':<30} {head:<24} mean"]
    half = args.steps // (2 * args.every)
    for start, by_seed in runs.items():
        means = [smoothed(losses, args.window) for losses in by_seed.values()]
        halves = " ".join(f"{mean[half]:.3f}" if half < len(mean) else "done" for mean in means)
        if start not in RULES:
            finals = ", ".join(f"{mean[-1]:.3f}" for mean in means)
            lines.append(f"{start:<12} {halves:<24} final losses: {finals}")
            continue
        marks = {seed: smoothed(losses, args.window)[-1] for seed, losses in runs[scratch_for(start)].items()}
        steps = [steps_to(losses, marks[seed], args) for seed, losses in by_seed.items()]
        needed = " ".join("never" if n is None else str(n) for n in steps)
        shares = [math.inf if n is None else n / args.steps for n in steps]
        each = " ".join(f"{share:.2f}" for share in shares)
        mean = f"{math.fsum(shares) / len(shares):.2f}" if shares else ""
        lines.append(f"{start:<12} {halves:<24} {needed:<30} {each:<24} {mean}")
    return "\n".join(lines)


def decisive(start: str, args: argparse.Namespace) -> dict[str, object]:
    """The options that decide what a run gives; from scratch, those of pretraining and pretrained weights do not."""
    options = {key: value for key, value in vars(args).items() if key not in _DECIDES_NOT}
    of_rules = ("pretrain", "layer_decay")
    return {key: value for key, value in options.items() if start in RULES or not key.startswith(of_rules)}


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
    add("--pretrain-steps", type=int, default=3000, help="2D pretraining: steps of 16 slices (default: 3000)")
    add("--pretrain-patch", type=int, default=48, help="2D pretraining: pixels of a side (default: 48)")
    add("--pretrain-stacks", type=int, default=160, help="generated stacks whose slices it sees (default: 160)")
    add("--lr", type=float, default=1e-3, help="AdamW's learning rate (default: 0.001)")
    add("--warmup", type=int, default=20, help="steps over which it rises (default: 20)")
    text = "factor on the rate for each block of a pretrained encoder (default: the trainers', 0.9)"
    add("--layer-decay", type=float, default=NeurINOSettings.layer_decay, help=text)
    add("--norm", default="group", choices=("batch", "group", "layer"), help="decoder's norm (default: group)")
    add("--grn", action="store_true", help="GRN in the decoder (default: none, as released)")
    add("--probes", type=int, default=12, help="patches that the training loss is measured on (default: 12)")
    add("--every", type=int, default=10, help="steps from one measurement to the next (default: 10)")
    add("--window", type=int, default=3, help="measurements that are averaged (default: 3)")
    add("--ema", type=float, default=0.95, help="decay of the moving average of the weights (default: 0.95)")
    add("--device", default="cpu", help="default: cpu")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: 1)")
    add("--minutes", type=float, default=float("inf"), help="start no further run after this time (default: never)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.quick:
        args.size, args.steps, args.seeds, args.stacks, args.probes = "atto", 30, [0], 2, 4
        args.pretrain_steps, args.pretrain_patch, args.pretrain_stacks = 60, 32, 4
    return args


def main(argv: list[str] | None = None) -> int:
    """Run what is missing and print the table."""
    args = parse(argv)
    began = time.monotonic()
    weights = pretrained(args)
    runs: dict[str, dict[int, list[float]]] = {start: {} for start in (*map(scratch_for, args.rules), *args.rules)}
    for seed in args.seeds:
        for start in runs:
            mark, what = None, decisive(start, args)
            if start in RULES:
                if seed not in runs[scratch_for(start)]:
                    continue
                mark = smoothed(runs[scratch_for(start)][seed], args.window)[-1]
            path = args.output / f"{args.size}_{start}_{seed}.json"
            record = json.loads(path.read_text()) if path.is_file() else {}
            if record.get("settings") != what or record.get("mark") != mark:
                if time.monotonic() - began > 60 * args.minutes:
                    continue
                record = {"settings": what, "mark": mark, "losses": train(start, seed, weights, mark, args)}
                write_json(path, record)
            runs[start][seed] = record["losses"]
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU ({platform.machine()})"
    print(
        f"NeurINO-{args.size}, {args.batch} x {args.patch}^3, {device}, torch {torch.__version__}\n{table(runs, args)}"
    )
    return 0


_DECIDES_NOT = frozenset(("output", "quick", "seeds", "rules", "window", "device", "threads", "minutes"))
"""Options that do not change what a run gives."""

if __name__ == "__main__":
    raise SystemExit(main())
