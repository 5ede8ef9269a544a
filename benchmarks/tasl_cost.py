"""What TASL costs: forward and backward of the loss beside other topology losses and beside a whole training step.

All on the same generated neurons, batch 2, full resolution, in one process. Predictions: ``realistic`` (the blurred
truth with noise, Dice about 0.9), ``blurred`` noise (half of the volume on, in blobs) and ``untrained`` (white noise).

- Skeleton Recall: thinning and dilating the truth (in the loader) and the recall of it (in the loss).
- clDice: the soft skeletons of truth and prediction, 10 iterations.
- networkx: the published TASL as its description says, a graph object of every pair of neighbouring voxels.
- MiB: most resident memory during ``localised``, the gradient of the logits (two maps) included.
- step: forward and backward of NeurINO-T with Dice + CE, to which the share refers.

Example: python benchmarks/tasl_cost.py --sides 64 --predictions realistic untrained
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import threading
import time
from collections.abc import Callable

import networkx as nx
import numpy as np
import psutil
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize
from torch import Tensor

from nnunet_neurino.losses import TASL
from nnunet_neurino.skeleton import skeletonise
from nnunet_neurino.synth import GrowthSettings, SynthSettings, generate

CROSS = ndimage.generate_binary_structure(3, 1)


def truths(side: int) -> NDArray[np.bool_]:
    """Two masks (2, z, y, x) of one or two neurons each."""
    settings = SynthSettings(shape=(side,) * 3, growth=GrowthSettings(branch_distance=20.0))
    return np.stack([generate(settings, seed=(3, i)).mask > 0 for i in range(2)])


def predictions(truth: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    """Foreground logits by name."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(truth.shape)
    blurred = ndimage.gaussian_filter(noise, (0, 1, 1, 1))
    near = ndimage.gaussian_filter(truth.astype(float), (0, 0.7, 0.7, 0.7))
    named = {
        "realistic": 8 * (near - 0.4) + 2.5 * blurred,
        "blurred": 4 * ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 1.5)),
        "untrained": 0.3 * noise,
    }
    return {name: logits.astype(np.float32) for name, logits in named.items()}


def dice_ce(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice and cross-entropy."""
    p = torch.softmax(logits, 1)[:, 1]
    truth = (target[:, 0] == 1).float()
    dice = (2 * (p * truth).sum((1, 2, 3)) + 1e-5) / (p.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1e-5)
    return 1 - dice.mean() + F.cross_entropy(logits, target[:, 0])


def skeleton_recall(logits: Tensor, tube: Tensor) -> Tensor:
    """Skeleton Recall (Kirchhoff et al., 2024) on the truth's dilated skeleton (batch, z, y, x)."""
    p = torch.softmax(logits, 1)[:, 1]
    return -((p * tube).sum((1, 2, 3)) / tube.sum((1, 2, 3)).clamp_min(1)).mean()


def recall_tubes(truth: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What Skeleton Recall's loader does."""
    return np.stack([ndimage.binary_dilation(skeletonize(t), CROSS, 2) & t for t in truth])


def soft_skeleton(p: Tensor, iterations: int = 10) -> Tensor:
    """The soft skeleton of clDice (Shit et al., 2021)."""

    def erode(x: Tensor) -> Tensor:
        axes = [-F.max_pool3d(-x, k, 1, tuple(s // 2 for s in k)) for k in ((3, 1, 1), (1, 3, 1), (1, 1, 3))]
        return torch.minimum(torch.minimum(axes[0], axes[1]), axes[2])

    skeleton = F.relu(p - F.max_pool3d(erode(p), 3, 1, 1))
    for _ in range(iterations):
        p = erode(p)
        delta = F.relu(p - F.max_pool3d(erode(p), 3, 1, 1))
        skeleton = skeleton + F.relu(delta - skeleton * delta)
    return skeleton


def cl_dice(logits: Tensor, target: Tensor) -> Tensor:
    """clDice with soft skeletons."""
    p = torch.softmax(logits, 1)[:, 1:]
    truth = target.float()
    thin_p, thin_t = soft_skeleton(p), soft_skeleton(truth)
    precision = (thin_p * truth).sum() / thin_p.sum().clamp_min(1e-6)
    recall = (thin_t * p).sum() / thin_t.sum().clamp_min(1e-6)
    return 1 - 2 * precision * recall / (precision + recall).clamp_min(1e-6)


def published_by_networkx(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """The published TASL of one pair of masks, with graph objects."""
    graphs, points = [], []
    for mask in (predicted, truth):
        tube = np.argwhere(ndimage.binary_dilation(skeletonize(mask), CROSS) & mask)
        graph = nx.Graph()
        graph.add_nodes_from(range(len(tube)))
        if len(tube):
            for i, j in cKDTree(tube).query_pairs(2.0):
                graph.add_edge(i, j)
        graphs.append(graph)
        points.append(tube)
    if not len(points[0]) or not len(points[1]):
        return 0.5
    node = sum(cKDTree(a).query(b)[0].mean() for a, b in itertools.permutations(points)) / 2
    edges = [g.number_of_edges() for g in graphs]
    lengths = [np.mean([len(c) for c in nx.connected_components(g)]) for g in graphs]
    return float(node + 0.5 * abs(edges[0] - edges[1]) / edges[1] + 0.5 * abs(lengths[0] - lengths[1]) / lengths[1])


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Shortest CPU time of this thread over some calls, the first of several left out."""
    times = []
    for _ in range(repeats + (repeats > 1)):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return min(times)


def extra_memory(call: Callable[[], object]) -> float:
    """Most resident memory during a call beyond that before it, MiB (Linux; the logits' gradient included)."""
    process = psutil.Process()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # give free memory back, or its reuse would not be seen
        ctypes.CDLL(None).malloc_trim(0)
    before = most = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.0005):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    done.set()
    watcher.join()
    return (most - before) / 2**20


def step_seconds(side: int, repeats: int) -> float:
    """CPU time of forward and backward of NeurINO-T with Dice + CE at all scales, batch 2."""
    from nnunet_neurino.networks import NeurINO

    network = NeurINO()
    image = torch.randn(2, 1, side, side, side)
    target = torch.zeros(2, 1, side, side, side, dtype=torch.long)

    def step() -> None:
        network.zero_grad(set_to_none=True)
        outputs = network(image)
        losses = []
        for output in outputs:
            factor = [a // b for a, b in zip(target.shape[2:], output.shape[2:], strict=True)]
            losses.append(dice_ce(output, target[:, :, :: factor[0], :: factor[1], :: factor[2]]))
        sum(losses).backward()

    return seconds(step, repeats)


def measure(side: int, names: list[str], repeats: int, with_step: bool, with_networkx: bool) -> None:
    """Print the table for one size."""
    truth = truths(side)
    target = torch.from_numpy(truth[:, None].astype(np.int64))
    step = step_seconds(side, min(repeats, 2)) if with_step else float("nan")
    tube_seconds = seconds(lambda: recall_tubes(truth), repeats)
    tube = torch.from_numpy(recall_tubes(truth)).float()
    tasl, published = TASL(), TASL(mode="published")
    truth_seconds = seconds(lambda: tasl._analyse(target.numpy(), 2), repeats)
    thin = seconds(lambda: [skeletonise(t) for t in truth], repeats)
    map_size = 2 * side**3 * 4 / 2**20
    print(f"\n2 x {side}^3, {truth.mean():.2%} foreground; CPU times in ms; a probability map is {map_size:.0f} MiB")
    print(f"NeurINO-T step {1000 * step:.0f}; TASL's share of it is 'share'")
    print(
        f"the truth's side: TASL {1000 * truth_seconds:.1f} (included in 'localised'), thinning {1000 * thin:.1f}, "
        f"Skeleton Recall's loader {1000 * tube_seconds:.1f} (not included in 'sk.recall')"
    )
    header = [
        "prediction",
        "Dice",
        "Dice+CE",
        "localised",
        "share",
        "MiB",
        "published",
        "networkx",
        "times",
        "sk.recall",
        "clDice",
    ]
    print("".join(f"{h:>11}" for h in header))
    for name, logits in predictions(truth).items():
        if name not in names:
            continue
        half = torch.from_numpy(logits) / 2
        z = torch.stack([-half, half], 1).requires_grad_()
        predicted = logits > 0

        def timed(loss: Callable[[Tensor], Tensor], z: Tensor = z, times: int = repeats) -> float:
            def run() -> None:
                z.grad = None
                loss(z).backward()

            return seconds(run, times)

        localised = timed(lambda z: tasl(z, target))
        z.grad = None
        memory = extra_memory(lambda z=z: tasl(z, target).backward())
        ours = timed(lambda z: published(z, target))
        graph = float("nan")
        if with_networkx:
            graph = seconds(
                lambda p=predicted: [published_by_networkx(*pair) for pair in zip(p, truth, strict=True)], 1
            )
        row = [
            f"{2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()):.2f}",
            f"{1000 * timed(lambda z: dice_ce(z, target)):.1f}",
            f"{1000 * localised:.1f}",
            f"{localised / step:.1%}",
            f"{memory:.0f}",
            f"{1000 * ours:.1f}",
            f"{1000 * graph:.0f}",
            f"{graph / ours:.1f}",
            f"{1000 * timed(lambda z: skeleton_recall(z, tube)):.1f}",
            f"{1000 * timed(lambda z: cl_dice(z, target), times=1):.0f}",
        ]
        print("".join(f"{cell:>11}" for cell in [name, *row]), flush=True)


def main() -> None:
    """Print a table for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 96], help="sides of the patches (default: 64 96)")
    parser.add_argument(
        "--predictions", nargs="+", default=["realistic", "blurred", "untrained"], help="which (default: all)"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="calls of which the fastest counts (default: %(default)s)"
    )
    parser.add_argument(
        "--no-step", action="store_true", help="leave out the training step (minutes on a small machine)"
    )
    parser.add_argument("--no-networkx", action="store_true", help="leave out networkx (minutes for noise at 96^3)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("CPU, 1 thread; time of the thread, so that other work on the machine counts little")
    for side in args.sides:
        measure(side, args.predictions, args.repeats, not args.no_step, not args.no_networkx)


if __name__ == "__main__":
    main()
