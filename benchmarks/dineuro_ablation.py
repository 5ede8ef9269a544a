"""What transfer and tubes are worth to DINeuro: scratch, average, center, with and without tubes, on generated neurons.

DINO's weights cannot be assumed to be here, so a small 2D stand-in is trained first: timm's VisionTransformer of the
size `atto` marks neurons in single slices of generated stacks. Its weights go through the same transfer as DINO's. Then
every variant learns from the same few stacks (a short budget, several seeds) and segments held-out stacks whole.

Printed are the Dice of the neuron voxels of all held-out stacks together, for each seed, and against the variant
without tubes. `center, open` starts with the tubes' gate at 1. This is a tiny network, a tiny budget and generated
data: a check that the parts work and which way they push, not the paper's table. --decoder upernet leaves everything
to the tokens; the pyramid decoder, which also sees the image, hides much of what the embedding does.

Every finished run is kept as JSON in --output; starting again goes on with the missing ones.

Examples:
  python benchmarks/dineuro_ablation.py --quick
  python benchmarks/dineuro_ablation.py --output ablation_runs
  python benchmarks/dineuro_ablation.py --device cuda --steps 3000 --patch 16 128 128 --shape 24 256 256
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_neurino.files import atomic_path, write_json
from nnunet_neurino.networks import VITS, DINeuro
from nnunet_neurino.networks.dineuro import DECODERS
from nnunet_neurino.synth import generate, preset
from nnunet_neurino.transfer.vit import inflate_vit

SPACING = (1.0, 0.4, 0.4)
Stacks = list[tuple[Tensor, Tensor]]

VARIANTS: dict[str, dict[str, Any]] = {
    "scratch": {"transfer": "scratch", "tubes": False},
    "scratch, tubes": {"transfer": "scratch"},
    "average": {"transfer": "average", "tubes": False},
    "average, tubes": {"transfer": "average"},
    "center": {"transfer": "center", "tubes": False},
    "center, tubes": {"transfer": "center"},
    "center, open": {"transfer": "center", "tube_gate": 1.0},
}


def stacks(count: int, first_seed: int, look: str, shape: tuple[int, int, int]) -> Stacks:
    """Generated stacks as (z-scored image, mask), both (z, y, x)."""
    made = []
    for number in tqdm(range(count), desc="stacks", leave=False):
        volume = generate(preset(look, shape, SPACING), seed=(first_seed, number))
        image = torch.from_numpy(volume.image.astype("float32"))
        made.append(((image - image.mean()) / image.std(), torch.from_numpy(volume.mask.astype("int64"))))
    return made


def crops(data: Stacks, size: tuple[int, ...], count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch of crops (N, 1, z, y, x) and masks (N, z, y, x); two thirds of them hold neuron voxels."""
    images, masks = [], []
    for _ in range(count):
        image, mask = data[rng.integers(len(data))]
        room = [n - s for n, s in zip(image.shape, size, strict=True)]
        corner = [int(rng.integers(r + 1)) for r in room]
        where = torch.nonzero(mask)
        if rng.random() < 2 / 3 and len(where):
            centre = where[rng.integers(len(where))].tolist()
            corner = [min(max(c - s // 2, 0), r) for c, s, r in zip(centre, size, room, strict=True)]
        place = tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))
        images.append(image[place])
        masks.append(mask[place])
    return torch.stack(images)[:, None], torch.stack(masks)


def dice_and_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice of the neuron over the batch, and cross-entropy."""
    neuron, truth = logits.softmax(1)[:, 1], target.float()
    overlap = (2 * (neuron * truth).sum() + 1e-5) / (neuron.sum() + truth.sum() + 1e-5)
    return 1 - overlap + F.cross_entropy(logits, target)


class Pretrainer(nn.Module):
    """timm's ViT and a linear layer that marks the 16 x 16 pixels of each token."""

    def __init__(self, vit: str) -> None:
        super().__init__()
        size = VITS[vit]
        self.vit = VisionTransformer(
            embed_dim=size.width, depth=size.depth, num_heads=size.heads, num_classes=0, dynamic_img_size=True
        )
        self.head = nn.Linear(size.width, 2 * 16 * 16)

    def forward(self, slices: Tensor) -> Tensor:
        """(N, 1, y, x) -> logits (N, 2, y, x)."""
        tokens = self.vit.forward_features(slices.expand(-1, 3, -1, -1))[:, 1:]
        y, x = (n // 16 for n in slices.shape[2:])
        cells = self.head(tokens).view(-1, y, x, 2, 16, 16)
        return cells.permute(0, 3, 1, 4, 2, 5).reshape(-1, 2, y * 16, x * 16)


def optimiser(network: nn.Module, lr: float, steps: int):
    """AdamW that warms up over a twentieth of the steps and falls to nothing."""
    adam = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.05)

    def step_of(loss: Tensor, step: int) -> None:
        rise = min(1.0, (step + 1) / max(1, steps // 20))
        for group in adam.param_groups:
            group["lr"] = lr * rise * (1 - step / steps) ** 0.9
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        adam.step()

    return step_of


def pretrained(args: argparse.Namespace) -> dict[str, Tensor]:
    """The 2D weights as timm names them, from --output or trained now."""
    path = args.output / f"pretrained_{args.vit}_{args.pretrain_steps}.pt"
    if path.is_file():
        return torch.load(path, weights_only=True)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    data = stacks(args.pretrain_stacks, 1_000, args.look, args.shape)
    network = Pretrainer(args.vit).to(args.device)
    step_of = optimiser(network, args.lr, args.pretrain_steps)
    with tqdm(range(args.pretrain_steps), desc="2D pretraining") as bar:
        for step in bar:
            images, masks = crops(data, (1, *args.patch[1:]), 16, rng)
            loss = dice_and_ce(network(images[:, :, 0].to(args.device)), masks[:, 0].to(args.device))
            step_of(loss, step)
            bar.set_postfix(loss=f"{loss.item():.3f}")
    state = {name: tensor.cpu() for name, tensor in network.vit.state_dict().items()}
    with atomic_path(path) as unfinished:
        torch.save(state, unfinished)
    return state


def build(variant: str, seed: int, weights: dict[str, Tensor], args: argparse.Namespace) -> DINeuro:
    """The network of a variant; those of a seed with the same decoder start it with the same numbers."""
    finest = min(SPACING)
    options = {
        "vit": args.vit,
        "decoder": args.decoder,
        "tube_step": [0.5 * finest / s for s in SPACING],
        **VARIANTS[variant],
    }
    torch.manual_seed(seed)
    decoder = DINeuro(1, 2, **{**options, "tubes": False}).decoder.state_dict()
    network = DINeuro(1, 2, **options)
    network.decoder.load_state_dict(decoder)
    if options["transfer"] != "scratch":
        tubes = network.encoder.tubes
        inflated = inflate_vit(weights, options["transfer"], tube_length=None if tubes is None else tubes.length)
        network.encoder.load_state_dict(inflated, strict=False)
    return network


def train(
    variant: str, seed: int, weights: dict[str, Tensor], args: argparse.Namespace
) -> tuple[DINeuro, list[float], float]:
    """The trained network of one variant, its losses, and seconds a step."""
    network = build(variant, seed, weights, args).to(args.device).train()
    rng = np.random.default_rng(seed)
    data = stacks(args.stacks, 2_000 + seed, args.look, args.shape)
    step_of = optimiser(network, args.lr, args.steps)
    losses = []
    began = time.perf_counter()
    for step in tqdm(range(args.steps), desc=f"seed {seed}, {variant}"):
        images, masks = crops(data, args.patch, args.batch, rng)
        masks = masks.to(args.device)
        loss, total = torch.zeros((), device=args.device), 0.0
        for head, logits in enumerate(network(images.to(args.device))):
            target = F.interpolate(masks[:, None].float(), logits.shape[2:], mode="nearest-exact")[:, 0].long()
            loss = loss + 0.5**head * dice_and_ce(logits, target)
            total += 0.5**head
        step_of(loss / total, step)
        losses.append(loss.item() / total)
    return network, losses, (time.perf_counter() - began) / args.steps


def run(variant: str, seed: int, weights: dict[str, Tensor], args: argparse.Namespace) -> dict[str, Any]:
    """Train and test one variant."""
    network, losses, seconds = train(variant, seed, weights, args)
    gate = None if network.encoder.tubes is None else network.encoder.tubes.gate.detach().abs().mean().item()
    dice = held_out_dice(network, stacks(args.test_stacks, 3_000, args.look, args.shape), args.device)
    return {"dice": dice, "losses": losses, "seconds_a_step": seconds, "gate": gate}


@torch.no_grad()
def held_out_dice(network: DINeuro, data: Stacks, device: str) -> float:
    """Dice of the neuron voxels of all stacks together, each segmented whole."""
    network.eval()
    network.decoder.deep_supervision = False
    found = common = truth = 0
    for image, mask in data:
        prediction = network(image[None, None].to(device))[0].argmax(0).cpu()
        found, truth = found + int(prediction.sum()), truth + int(mask.sum())
        common += int((prediction * mask).sum())
    return 2 * common / max(1, found + truth)


def draw(path: Path, weights: dict[str, Tensor], args: argparse.Namespace) -> None:
    """Train `center, open` and draw the tubes of its brightest tokens on a held-out stack."""
    from nnunet_neurino.figures import png_bytes
    from nnunet_neurino.figures.tubes import brightest_tokens, tube_figure, tube_lines

    network, _, _ = train("center, open", args.seeds[0], weights, args)
    ((image, _),) = stacks(1, 3_000, args.look, args.shape)
    patch = image.numpy()
    lines = tube_lines(network.eval(), patch[None])
    figure = tube_figure(patch, lines, brightest_tokens(patch, lines[0].shape[:3], 5), SPACING)
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(png_bytes(figure))


def table(runs: dict[str, dict[int, dict[str, Any]]]) -> str:
    """What the runs say so far."""
    lines = [f"{'variant':<16} {'Dice of each seed':<26} {'mean':>6}  {'tubes add':<26} {'|gate|':>7} {'s/step':>7}"]
    for variant, by_seed in runs.items():
        if not by_seed:
            continue
        dice = {seed: record["dice"] for seed, record in by_seed.items()}
        base = runs.get(variant.removesuffix(", tubes"), {}) if variant.endswith(", tubes") else {}
        gains = " ".join(f"{value - base[seed]['dice']:+.4f}" for seed, value in dice.items() if seed in base)
        gates = [record["gate"] for record in by_seed.values() if record["gate"] is not None]
        gate = f"{statistics.fmean(gates):.3f}" if gates else ""
        seconds = statistics.median(record["seconds_a_step"] for record in by_seed.values())
        each = " ".join(f"{value:.4f}" for value in dice.values())
        mean = statistics.fmean(dice.values())
        lines.append(f"{variant:<16} {each:<26} {mean:>6.4f}  {gains:<26} {gate:>7} {seconds:>7.3f}")
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, default=Path("ablation_runs"), help="folder of runs (default: ablation_runs)")
    add("--quick", action="store_true", help="few steps, one seed: does it run? (a minute)")
    add("--vit", default="atto", choices=[name for name, size in VITS.items() if size.native], help="default: atto")
    add("--decoder", default="pyramid", choices=DECODERS, help="default: pyramid")
    add("--steps", type=int, default=200, help="training steps of every run (default: 200)")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    add("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS, help="default: all")
    add("--patch", type=int, nargs=3, default=[8, 64, 64], help="voxels z y x (default: 8 64 64)")
    add("--shape", type=int, nargs=3, default=[16, 96, 96], help="of the stacks, z y x (default: 16 96 96)")
    add("--batch", type=int, default=2, help="patches a step (default: 2)")
    add("--stacks", type=int, default=4, help="generated stacks to train on (default: 4)")
    add("--test-stacks", type=int, default=8, help="generated stacks to test on (default: 8)")
    add("--pretrain-steps", type=int, default=1500, help="steps of 2D pretraining (default: 1500)")
    add("--pretrain-stacks", type=int, default=64, help="generated stacks whose slices it sees (default: 64)")
    add("--lr", type=float, default=2e-3, help="AdamW's learning rate (default: 0.002)")
    add("--look", default="confocal", help="preset of the generated stacks (default: confocal)")
    add("--device", default="cpu", help="default: cpu")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: 1)")
    add("--minutes", type=float, default=float("inf"), help="start no further run after this time (default: never)")
    add("--picture", metavar="PNG", type=Path, help="only train one variant with open tubes and draw them")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    args.patch, args.shape = tuple(args.patch), tuple(args.shape)
    if args.quick:
        args.steps, args.seeds, args.pretrain_steps, args.pretrain_stacks = 10, [0], 30, 4
    return args


_DECIDES = (
    "vit",
    "decoder",
    "steps",
    "patch",
    "shape",
    "batch",
    "stacks",
    "test_stacks",
    "pretrain_steps",
    "pretrain_stacks",
    "lr",
    "look",
)


def main(argv: list[str] | None = None) -> int:
    """Run what is missing and print the table."""
    args = parse(argv)
    began = time.monotonic()
    weights = pretrained(args)
    if args.picture:
        draw(args.picture, weights, args)
        return 0
    what = json.loads(json.dumps({key: getattr(args, key) for key in _DECIDES}))
    runs: dict[str, dict[int, dict[str, Any]]] = {variant: {} for variant in args.variants}
    for seed in args.seeds:
        for variant in args.variants:
            path = args.output / f"{args.decoder}_{variant.replace(', ', '_')}_{seed}.json"
            record = json.loads(path.read_text()) if path.is_file() else {}
            if record.get("settings") != what:
                if time.monotonic() - began > 60 * args.minutes:
                    continue
                record = {"settings": what, **run(variant, seed, weights, args)}
                write_json(path, record)
            runs[variant][seed] = record
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU ({platform.machine()})"
    print(
        f"DINeuro-{args.vit}, {args.decoder}, {args.batch} x {args.patch}, {args.steps} steps, {device}, "
        f"torch {torch.__version__}"
    )
    print(table(runs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
