"""What TASL does to the topology of a segmentation: a small U-Net on generated neurons whose label has gaps.

Every arm sees the same volumes, patches, initial weights and number of steps for a seed; only the loss differs. The
scores are those of the predictions (probability above 0.5, nothing removed) on volumes that none was trained on:
the Betti-0 error is the difference between the numbers of 26-connected components, the skeleton recall is the share
of the true centreline that is covered, F1 is the voxels' F1 (Dice). A finished run is kept in the results file and not
run again. The whole table takes about 7 minutes of one core.

Example: python benchmarks/tasl_effect.py --out tasl_effect.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_neurino.files import write_json
from nnunet_neurino.losses import TASL, WithTASL
from nnunet_neurino.skeleton import label_components, skeletonise
from nnunet_neurino.synth import GrowthSettings, MicroscopeSettings, SynthSettings, generate

SETTINGS = SynthSettings(
    shape=(64, 64, 64),
    growth=GrowthSettings(neurons=(1, 2), soma_probability=0.3, stems=(2, 4), branch_distance=18.0, radius=(1.1, 1.6)),
    microscope=MicroscopeSettings(gap_distance=25.0, gap_length=(2.0, 6.0), gap_depth=0.85, puncta=400.0),
)


class SmallUNet(nn.Module):
    """Three levels, two convolutions each; widths (w, 2w, 4w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.down = nn.ModuleList([_double(1, widths[0]), _double(widths[0], widths[1]), _double(widths[1], widths[2])])
        self.up = nn.ModuleList([nn.ConvTranspose3d(widths[i + 1], widths[i], 2, 2) for i in (1, 0)])
        self.merge = nn.ModuleList([_double(2 * widths[i], widths[i]) for i in (1, 0)])
        self.head = nn.Conv3d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, 2, z, y, x) of images (batch, 1, z, y, x); sides must be multiples of 4."""
        skips = []
        for i, block in enumerate(self.down):
            x = block(nn.functional.max_pool3d(x, 2) if i else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skips.pop()], 1))
        return self.head(x)


def _double(n_in: int, n_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n in (n_in, n_out):
        layers += [nn.Conv3d(n, n_out, 3, padding=1, bias=False), nn.InstanceNorm3d(n_out, affine=True)]
        layers.append(nn.LeakyReLU(inplace=True))
    return nn.Sequential(*layers)


def make_loss(arm: str, weight: float) -> nn.Module:
    """nnU-Net's Dice + CE, alone or with TASL."""
    base = DC_and_CE_loss(
        {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}, {}, dice_class=MemoryEfficientSoftDiceLoss
    )
    if arm == "dice_ce":
        return base
    return WithTASL(base, TASL(arm), weight=0.1 if arm == "published" else weight)


def volumes(count: int, first: int) -> list[tuple[NDArray, NDArray]]:
    """Standardised images and masks."""
    made = [generate(SETTINGS, seed=(7, first + i)) for i in range(count)]
    images = [v.image.astype(np.float32) for v in made]
    return [((i - i.mean()) / i.std(), v.mask > 0) for i, v in zip(images, made, strict=True)]


def patches(data: list[tuple[NDArray, NDArray]], side: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Two random patches, the first around a voxel of a neuron, flipped and turned at random."""
    batch = []
    for forced in (True, False):
        image, mask = data[rng.integers(len(data))]
        inside = np.argwhere(mask)
        centre = inside[rng.integers(len(inside))] if forced else rng.integers(0, mask.shape)
        start = np.clip(centre - side // 2, 0, np.array(mask.shape) - side)
        box = tuple(slice(s, s + side) for s in start)
        order = rng.permutation(3)
        flips = tuple(slice(None, None, s) for s in rng.choice([-1, 1], 3))
        batch.append([np.ascontiguousarray(a[box].transpose(order)[flips]) for a in (image, mask)])
    images, masks = (np.stack(parts)[:, None] for parts in zip(*batch, strict=True))
    return torch.from_numpy(images), torch.from_numpy(masks.astype(np.int64))


def train(arm: str, seed: int, args: argparse.Namespace, data: list[tuple[NDArray, NDArray]]) -> nn.Module:
    """One run; the same seed gives the same network and the same patches in every arm."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = SmallUNet(args.width)
    loss = make_loss(arm, args.weight)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-4)
    for step in tqdm(range(args.steps), f"{arm} seed {seed}", leave=False):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / args.steps) ** 0.9
        if isinstance(loss, WithTASL):
            loss.ramp = min(1.0, step / (0.2 * args.steps))
        image, mask = patches(data, args.patch, rng)
        optimiser.zero_grad(set_to_none=True)
        loss(network(image), mask).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimiser.step()
    return network.eval()


@torch.no_grad()
def score(network: nn.Module, data: list[tuple[NDArray, NDArray]]) -> dict[str, list[float]]:
    """Scores of each volume."""
    scores: dict[str, list[float]] = {key: [] for key in ("betti0_error", "components", "recall", "f1")}
    for image, truth in data:
        logits = network(torch.from_numpy(image)[None, None])[0]
        predicted = (logits[1] > logits[0]).numpy()
        n_true, n_predicted = label_components(truth)[1], label_components(predicted)[1]
        skeleton = skeletonise(truth)
        scores["components"].append(n_predicted)
        scores["betti0_error"].append(abs(n_predicted - n_true))
        scores["recall"].append(float(predicted[skeleton].mean()))
        scores["f1"].append(float(2 * (predicted & truth).sum() / max(predicted.sum() + truth.sum(), 1)))
    return scores


def table(results: dict[str, dict], arms: list[str], seeds: list[int]) -> str:
    """Mean over seeds of each arm's scores, and each arm against Dice + CE."""
    lines = [f"{'loss':<12}{'Betti-0 error':>15}{'change':>9}{'skeleton recall':>17}{'F1':>8}{'s/run':>8}{'seeds':>7}"]
    baseline = None
    for arm in arms:
        runs = [results[f"{arm}/{seed}"] for seed in seeds if f"{arm}/{seed}" in results]
        if not runs:
            continue
        error = float(np.mean([r["betti0_error"] for r in runs]))
        recall = float(np.median([r["recall"] for r in runs]))
        f1 = float(np.mean([r["f1"] for r in runs]))
        baseline = error if arm == "dice_ce" else baseline
        change = f"{100 * (error / baseline - 1):+.0f} %" if baseline else "-"
        seconds = np.mean([r["seconds"] for r in runs])
        lines.append(f"{arm:<12}{error:>15.2f}{change:>9}{recall:>17.4f}{f1:>8.4f}{seconds:>8.0f}{len(runs):>7}")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("tasl_effect.json"), help="results file (default: %(default)s)"
    )
    parser.add_argument("--arms", nargs="+", default=["dice_ce", "localised", "published"], help="losses to compare")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds (default: 0 1 2)")
    parser.add_argument("--steps", type=int, default=400, help="training steps of each run (default: %(default)s)")
    parser.add_argument("--patch", type=int, default=32, help="side of the patches in voxels (default: %(default)s)")
    parser.add_argument("--width", type=int, default=8, help="channels of the U-Net's first level (default: 8)")
    parser.add_argument("--weight", type=float, default=1.0, help="weight of localised TASL (default: %(default)s)")
    parser.add_argument("--train", type=int, default=12, help="training volumes of 64^3 (default: %(default)s)")
    parser.add_argument("--test", type=int, default=12, help="test volumes of 64^3 (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="start no run after so long (default: none)"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    setup = {k: getattr(args, k) for k in ("steps", "patch", "width", "weight", "train", "test")}
    stored = json.loads(args.out.read_text()) if args.out.exists() else {"setup": setup, "runs": {}}
    if stored["setup"] != setup:
        raise SystemExit(f"{args.out} holds other settings ({stored['setup']}); give another --out")
    results = stored["runs"]
    begin = time.perf_counter()
    training, testing = volumes(args.train, 0), volumes(args.test, 1000)
    for seed in args.seeds:
        for arm in args.arms:
            if f"{arm}/{seed}" in results or time.perf_counter() - begin > 60 * args.minutes:
                continue
            start = time.perf_counter()
            network = train(arm, seed, args, training)
            seconds = time.perf_counter() - start
            results[f"{arm}/{seed}"] = score(network, testing) | {"seconds": seconds}
            write_json(args.out, stored)
    print(f"CPU, {args.threads} thread(s), {setup}")
    print(table(results, args.arms, args.seeds))


if __name__ == "__main__":
    main()
