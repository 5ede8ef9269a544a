"""An epoch of DINOWindow's decoder with tokens from the cache beside one with tokens computed at every step.

Both train on the same batches: the same copies of the same generated cases, written as nnU-Net preprocesses them, with
the trainer's own loader, loss and two passes. Steps are taken in turns, one with the cache and one without; times are
those of an epoch of --iterations steps at the median of --steps. Both passes ask for the tokens of every window, so
that without a cache every window is encoded twice, unless there is only one. The largest difference of the losses is
printed too: the cache rounds to float16.

The weights are random; that costs the same time.

Examples:
  python benchmarks/token_cache.py --quick
  python benchmarks/token_cache.py
  python benchmarks/token_cache.py --device cuda --vit small_v3 base_v3 --volume 64 192 192 --window 32 96 96
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch import Tensor

from nnunet_neurino.losses import PortionedDiceCE
from nnunet_neurino.networks import VITS, DINOWindow
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.networks.two_pass import two_pass
from nnunet_neurino.trainers.windows.copies import CopyRecipe
from nnunet_neurino.trainers.windows.loader import WindowLoader
from nnunet_neurino.trainers.windows.token_cache import TokenCache

LABELS = SimpleNamespace(has_regions=False, ignore_label=None, all_labels=[0, 1])


def write_cases(folder: Path, count: int, shape: Triple) -> nnUNetDatasetBlosc2:
    """Noisy volumes with a bright ball, as nnU-Net keeps preprocessed cases."""
    random = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    for number in range(count):
        centre = np.array([random.uniform(0.3 * n, 0.7 * n) for n in shape])
        ball = (np.linalg.norm(places - centre, axis=-1) < 0.15 * max(shape))[None]
        image = random.standard_normal((1, *shape), dtype=np.float32) + 2 * ball
        inside = np.argwhere(ball)
        nnUNetDatasetBlosc2.save_case(
            image,
            ball.astype(np.int8),
            {"class_locations": {1: inside}},
            str(folder / f"case{number}"),
            chunks=image.shape,
            blocks=image.shape,
        )
    return nnUNetDatasetBlosc2(str(folder))


def trainer(network: DINOWindow, loader: WindowLoader, device: torch.device) -> Callable[[], tuple[float, float]]:
    """A step of the training: it gives its seconds and its loss."""
    optimiser = torch.optim.AdamW(network.decoder.parameters(), 1e-3)
    criterion = PortionedDiceCE()

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        batch = next(loader)
        target = batch["target"].to(device)

        def loss(logits: Tensor) -> Tensor:
            return criterion(logits, target)

        value = float(two_pass(network.decoder, batch["data"].to(device, non_blocking=True), loss))
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        return time.perf_counter() - start, value

    return step


def measure(vit: str, window: Triple, args: argparse.Namespace, folder: Path) -> str:
    """A row of the table."""
    device = torch.device(args.device)
    data = write_cases(folder, args.cases, args.volume)
    recipe = CopyRecipe(args.copies, quarter_turns=args.volume[1] == args.volume[2])

    def network() -> DINOWindow:
        torch.manual_seed(0)
        # Without dropout, whose numbers the two would draw from one stream in turns.
        return DINOWindow(vit=vit, window=window, dropout=0.0).to(device).train()

    kept = TokenCache(folder / "tokens", network(), recipe, args.volume, data, {})
    start = time.perf_counter()
    kept.prepare(data.identifiers, lambda line: None)
    filled = time.perf_counter() - start
    size = sum(path.stat().st_size for path in kept.folder.glob("*.npy"))
    steps = {}
    for name, cache in (("kept", kept), ("computed", None)):
        ours = network()
        loader = WindowLoader(data, data.identifiers, ours, args.volume, args.batch, recipe, cache, 0, 0.33, LABELS)
        steps[name] = trainer(ours, loader, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    largest = 0.0
    for number in range(args.steps + 1):
        losses = []
        for name, step in steps.items():
            seconds, loss = step()
            losses.append(loss)
            if number:  # the first is a warm-up
                times[name].append(seconds)
        largest = max(largest, abs(losses[0] - losses[1]))
    one, two = (args.iterations * statistics.median(times[name]) for name in ("kept", "computed"))
    count = len(kept.open(data.identifiers[0], 0))
    return (
        f"{vit:<9} {'x'.join(map(str, window)):>11} {count:>7} {one:>9.1f} {two:>11.1f} {two / one:>6.1f} "
        f"{size / 2**20:>9.1f} {filled:>8.1f} {largest:>10.1e}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    three = {"type": int, "nargs": 3, "metavar": ("Z", "Y", "X")}
    parser.add_argument("--vit", nargs="+", choices=list(VITS), default=["small_v3", "atto_v3"], help="encoders")
    parser.add_argument("--volume", **three, default=[32, 96, 96], help="voxels of a case (default: 32 96 96)")
    parser.add_argument(
        "--window", **three, action="append", help="voxels of a window; again for more (default: 32 96 96, 16 48 48)"
    )
    parser.add_argument("--cases", type=int, default=2, help="cases (default: 2)")
    parser.add_argument("--copies", type=int, default=2, help="copies of each case in the cache (default: 2)")
    parser.add_argument("--batch", type=int, default=1, help="volumes of a step (default: 1)")
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each (default: 5)")
    parser.add_argument("--iterations", type=int, default=100, help="steps of an epoch (default: 100, the trainer's)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--quick", action="store_true", help="a few seconds: very small, to see that it runs")
    args = parser.parse_args()
    args.window = args.window or [[32, 96, 96], [16, 48, 48]]
    if args.quick:
        args.vit, args.volume, args.window, args.steps = ["atto_v3"], [8, 32, 32], [[8, 32, 32], [4, 16, 16]], 3
    args.volume = tuple(args.volume)
    torch.set_num_threads(args.threads)
    where = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor() or "CPU"
    print(f"{where}, {args.threads} thread(s), PyTorch {torch.__version__}; {args.cases} cases of {args.volume} voxels")
    print(f"x {args.copies} copies, batch {args.batch}, {args.iterations} steps an epoch")
    print(
        f"{'ViT':<9} {'window':>11} {'windows':>7} {'cache, s':>9} {'computed, s':>11} {'ratio':>6} {'MiB':>9} "
        f"{'fill, s':>8} {'loss diff.':>10}"
    )
    for vit in args.vit:
        for window in args.window:
            with tempfile.TemporaryDirectory() as folder:
                print(measure(vit, tuple(window), args, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
