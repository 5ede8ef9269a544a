"""DINOWindow's choices side by side: one loss over the volume or one a window, many windows or one, seams or blending.

Every variant trains the same decoder on the same frozen tokens of generated MR-like volumes (one small structure of 1
to 2 % of the volume, `neurino synth --kind blob`), the trainer's copies of them, in the same order, with the same
learning rate, and is judged by the Dice of held-out volumes. Beside each stands what its predictions cost at the seams
between windows: the mean step of the probability across a seam over that elsewhere (1: none to be seen).

The frozen encoder is --weights, or a small ViT (--vit) that first learns, without any labels, to fill in hidden parts
of slices of other generated volumes (--pretrain-steps, 0 for a random one). Every finished run is kept as JSON in
--output; starting again goes on with the missing ones.

Examples:
  python benchmarks/window_ablation.py --quick
  python benchmarks/window_ablation.py --output window_runs
  python benchmarks/window_ablation.py --vit small_v3 --weights dinov3_vits16.safetensors --device cuda
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_neurino.files import atomic_path, write_json
from nnunet_neurino.losses import PortionedDiceCE
from nnunet_neurino.networks import VITS, DINOWindow
from nnunet_neurino.networks.slice_encoder import SliceEncoder, brightness
from nnunet_neurino.networks.two_pass import Windows, per_window, two_pass
from nnunet_neurino.networks.window_grid import WindowGrid
from nnunet_neurino.synth import BlobSettings, generate_blob
from nnunet_neurino.trainers.windows.copies import CopyRecipe, VolumeCopy
from nnunet_neurino.transfer.vit import fill_slice_encoder, load_vit_weights

MULTI = (32, 32, 32)
"""Voxels (z, y, x) of a window where there are several."""


@dataclass(frozen=True)
class Variant:
    """What differs.

    Attributes:
        single: one window, the whole volume.
        loss_over: ``volume`` or ``window``.
        layers: ``four`` or ``last``.
        head: the dense head over the volume.
        arms: an arm for each position.
        shifts: whether copies are moved by parts of a window.
    """

    single: bool = False
    loss_over: str = "volume"
    layers: str = "four"
    head: bool = False
    arms: bool = False
    shifts: bool = True


VARIANTS = {
    "two passes": Variant(),
    "loss per window": Variant(loss_over="window"),
    "single window": Variant(single=True),
    "two passes, head": Variant(head=True),
    "two passes, last layer": Variant(layers="last"),
    "two passes, arm per window": Variant(arms=True),
    "two passes, unmoved copies": Variant(shifts=False),
}


class Kept:
    """A volume's windows with tokens that were computed once."""

    def __init__(self, network: DINOWindow, bright: Tensor) -> None:
        self.grid: WindowGrid = network.grid(bright.shape[2:])
        self._tokens = [network.tokens(window) for window in self.grid.disassemble(bright)]

    def tokens(self, number: int) -> Tensor:
        """Of window ``number``."""
        return self._tokens[number]


def volumes(count: int, first: int, size: int) -> list[tuple[Tensor, Tensor]]:
    """Z-scored images (1, 1, z, y, x) and masks of the same shape, as nnU-Net preprocesses them."""
    made = []
    for number in range(count):
        volume = generate_blob(BlobSettings(shape=(size, size, size)), seed=(first, number))
        image = torch.from_numpy(volume.image.astype(np.float32))[None, None]
        made.append(((image - image.mean()) / image.std(), torch.from_numpy(volume.mask.astype(np.int16))[None, None]))
    return made


def build(variant: Variant, args: argparse.Namespace) -> DINOWindow:
    """The network of a variant, its encoder still random."""
    window = (args.volume,) * 3 if variant.single else MULTI
    arms = [n // w for n, w in zip((args.volume,) * 3, window, strict=True)] if variant.arms else None
    layers = [VITS[args.vit].depth - 1] if variant.layers == "last" else None
    return DINOWindow(1, 2, args.vit, window, layers=layers, channels=args.channels, arms=arms, dense_head=variant.head)


def pretrained(args: argparse.Namespace) -> dict[str, Tensor]:
    """The state of the frozen encoder."""
    encoder = build(Variant(), args).encoder
    if args.weights:
        weights = load_vit_weights(args.weights)
        assert weights is not None, "--weights none"
        network = build(Variant(), args)
        fill_slice_encoder(network, weights)
        return network.encoder.state_dict()
    path = args.output / f"encoder_{args.vit}_{args.volume}_{args.pretrain_steps}.pt"
    if path.is_file():
        return torch.load(path, weights_only=True)
    torch.manual_seed(0)
    state = {name: tensor.cpu() for name, tensor in filled_in(encoder, args).items()}
    with atomic_path(path) as unfinished:
        torch.save(state, unfinished)
    return state


def filled_in(encoder: SliceEncoder, args: argparse.Namespace) -> dict[str, Tensor]:
    """Train the encoder to tell what was in hidden squares of 8 x 8 pixels; no label is seen."""
    pool = torch.cat([brightness(image)[0, 0] for image, _ in volumes(args.pretrain_volumes, 9_000, args.volume)])
    encoder.requires_grad_(True).to(args.device)
    guess = nn.Conv2d(encoder.width, 64, 1).to(args.device)
    parameters = [*encoder.parameters(), *guess.parameters()]
    optimiser = torch.optim.AdamW(parameters, 1e-3, weight_decay=1e-2)
    random = np.random.default_rng(0)
    with torch.enable_grad(), tqdm(range(args.pretrain_steps), desc="filling in") as bar:
        for step in bar:
            slices = pool[torch.from_numpy(random.integers(len(pool), size=24))].to(args.device)
            hidden = torch.rand(len(slices), 1, args.volume // 8, args.volume // 8, device=args.device) < 0.5
            mask = F.interpolate(hidden.float(), scale_factor=8)[:, 0] > 0
            found = guess(encoder.with_gradient(slices.masked_fill(mask, 0.5)))
            loss = F.mse_loss(F.pixel_shuffle(found, 8)[:, 0][mask], slices[mask])
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * min(1, (step + 1) / 50) * (1 - step / args.pretrain_steps)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            bar.set_postfix(error=f"{loss.item():.4f}")
    encoder.requires_grad_(False).cpu()
    return encoder.state_dict()


def run(variant: Variant, seed: int, encoder: dict[str, Tensor], args: argparse.Namespace) -> dict[str, float]:
    """Train and judge one variant: Dice and seams with blending windows and without, seconds a step."""
    torch.manual_seed(seed)
    network = build(variant, args)
    network.encoder.load_state_dict(encoder)  # whose state is the same for any layers
    network.to(args.device).train()
    training = copies(variant, seed, network, args)
    loss = PortionedDiceCE()
    optimiser = torch.optim.AdamW(network.decoder.parameters(), args.lr, weight_decay=1e-2)
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(training)) for _ in range(-(-args.steps // len(training)))])
    began = time.perf_counter()
    for step in range(args.steps):
        windows, target = training[order[step]]
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 20) * (1 - step / args.steps) ** 0.9
        optimiser.zero_grad()
        if variant.loss_over == "volume":
            two_pass(network.decoder, windows, partial(_loss, loss, target))
        else:
            per_window(network.decoder, windows, target, loss)
        nn.utils.clip_grad_norm_(network.decoder.parameters(), 12.0)
        optimiser.step()
    seconds = (time.perf_counter() - began) / args.steps
    network.eval()
    found: dict[str, float] = {"seconds": seconds}
    for name, overlap in (("apart", 0.0), ("blended", 0.5)):
        network.overlap = 0.0 if variant.arms else overlap
        scores, seams = zip(
            *(judged(network, image, mask, args) for image, mask in test_volumes(seed, args)), strict=True
        )
        found |= {f"dice_{name}": statistics.fmean(scores), f"seam_{name}": statistics.fmean(seams)}
    return found


def copies(variant: Variant, seed: int, network: DINOWindow, args: argparse.Namespace) -> list[tuple[Windows, Tensor]]:
    """The trainer's copies of the training volumes: tokens and masks."""
    recipe = CopyRecipe(args.copies, mirroring=False, shifts=variant.shifts)  # the structure has one side
    made: list[tuple[Windows, Tensor]] = []
    for number, (image, mask) in enumerate(volumes(args.volumes, seed, args.volume)):
        for copy in range(recipe.distinct):
            shape = (args.volume,) * 3
            # The moves are those of several windows for all variants.
            volume = VolumeCopy.of(f"{seed}_{number}", copy, recipe, shape, shape, MULTI)
            bright = torch.from_numpy(volume.image(image[0].numpy()))[None].to(args.device)
            labels = torch.from_numpy(volume.labels(mask[0].numpy()))[None].to(args.device)
            made.append((Kept(network, bright), labels))
    return made


def _loss(loss: PortionedDiceCE, target: Tensor, logits: Tensor) -> Tensor:
    return loss(logits, target)


def test_volumes(seed: int, args: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """Held-out volumes."""
    return volumes(args.test_volumes, 5_000 + seed, args.volume)


def judged(network: DINOWindow, image: Tensor, mask: Tensor, args: argparse.Namespace) -> tuple[float, float]:
    """Dice of a volume, and the step of the probability across the seams of ``MULTI`` over that elsewhere."""
    with torch.no_grad():
        probability = network(image.to(args.device)).softmax(1)[0, 1].cpu()
    found, truth = probability > 0.5, mask[0, 0] > 0
    dice = float(2 * (found & truth).sum() / (found.sum() + truth.sum()).clamp(min=1))
    across, elsewhere = [], []
    for axis, length in enumerate(MULTI):
        steps = probability.diff(dim=axis).abs()
        at_seam = torch.arange(steps.shape[axis]) % length == length - 1
        if not at_seam.any():
            continue
        across.append(steps.index_select(axis, torch.nonzero(at_seam)[:, 0]).mean())
        elsewhere.append(steps.index_select(axis, torch.nonzero(~at_seam)[:, 0]).mean())
    if not across:
        return dice, 1.0
    return dice, float(torch.stack(across).mean() / torch.stack(elsewhere).mean().clamp(min=1e-9))


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """What the runs say."""
    lines = [
        "| variant | Dice, seeds | mean | windows apart | seam, blended | seam, apart | s a step |",
        "| --- " * 7 + "|",
    ]
    for name, results in runs.items():
        if not results:
            continue
        mean = {key: statistics.fmean(result[key] for result in results) for key in results[0]}
        seeds = " ".join(f"{result['dice_blended']:.3f}" for result in results)
        keys = (("dice_blended", 3), ("dice_apart", 3), ("seam_blended", 2), ("seam_apart", 2), ("seconds", 2))
        lines.append(" | ".join([f"| {name}", seeds, *(f"{mean[key]:.{digits}f}" for key, digits in keys)]) + " |")
    return "\n".join(lines)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--output", type=Path, default=Path("window_runs"), help="folder of finished runs (default: window_runs)")
    add("--quick", action="store_true", help="few steps, one seed: does it run? (a minute)")
    add("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS), help="default: all")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    add("--steps", type=int, default=300, help="training steps of every run (default: 300)")
    add("--volume", type=int, default=64, help="voxels of a side of a volume, a multiple of 32 (default: 64)")
    add("--volumes", type=int, default=6, help="training volumes (default: 6)")
    add("--copies", type=int, default=4, help="of each training volume (default: 4)")
    add("--test-volumes", type=int, default=6, help="held-out volumes (default: 6)")
    add("--vit", default="atto_v3", choices=list(VITS), help="frozen encoder (default: atto_v3)")
    add("--weights", help="2D weights for it: whatever neurino weights takes (default: pretrained here)")
    add("--pretrain-steps", type=int, default=400, help="steps of filling in (default: 400)")
    add("--pretrain-volumes", type=int, default=12, help="volumes whose slices it sees (default: 12)")
    add("--channels", type=int, default=64, help="of the decoding arm (default: 64)")
    add("--lr", type=float, default=1e-3, help="AdamW's peak learning rate (default: 0.001)")
    add("--device", default="cpu", help="default: cpu")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: 1)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.quick:
        args.seeds, args.steps, args.volume, args.volumes, args.test_volumes = [0], 10, 64, 2, 1
        args.pretrain_steps, args.pretrain_volumes, args.channels = 20, 2, 16
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing and print the table."""
    args = parse(argv)
    encoder = pretrained(args)
    what = {key: value for key, value in vars(args).items() if key not in _DECIDES_NOTHING}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in args.variants}
    for seed in args.seeds:
        for name in args.variants:
            path = args.output / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}.json"
            record = json.loads(path.read_text()) if path.is_file() else {}
            if record.get("settings") != what:
                record = {"settings": what, "result": run(VARIANTS[name], seed, encoder, args)}
                write_json(path, record)
                print(f"seed {seed}, {name}: {record['result']}", flush=True)
            runs[name].append(record["result"])
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else f"CPU ({platform.machine()})"
    print(f"ViT {args.vit}, {args.volumes} volumes of {args.volume}^3, {args.steps} steps, {device}\n{table(runs)}")
    return 0


_DECIDES_NOTHING = ("output", "quick", "variants", "seeds", "device", "threads")

if __name__ == "__main__":
    raise SystemExit(main())
