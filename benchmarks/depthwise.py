"""Depthwise 3-D convolution: this package's ``depthwise_conv3d`` beside PyTorch's ``conv3d``, forward and backward.

Every shape is measured in both memory formats. The gradients of both ways are compared as well: the last column is the
largest difference relative to the largest value, over the result and the three gradients. Times are medians in
milliseconds, one call of each way in turns.

Examples:
  python benchmarks/depthwise.py
  python benchmarks/depthwise.py --shapes 1x96x32 1x48x64 --kernels 3x7x7 3x3x3
  python benchmarks/depthwise.py --device cuda --shapes 2x96x64 --dtype float16
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_neurino.networks.cpu.depthwise import depthwise_conv3d

FORMATS = {"channels-last": torch.channels_last_3d, "contiguous": torch.contiguous_format}
WAYS = ("torch", "fast")
CASES = ("1x96x32 3x7x7", "1x192x16 3x7x7", "1x384x8 3x7x7", "1x768x4 3x7x7", "1x48x64 3x3x3", "1x96x32 3x3x3")


def numbers(text: str) -> tuple[int, ...]:
    """ "1x96x32" -> (1, 96, 32)."""
    return tuple(int(part) for part in text.split("x"))


class Case:
    """One convolution with its input and its gradient."""

    def __init__(self, shape: str, kernel: str, memory: str, device: str, dtype: torch.dtype) -> None:
        samples, channels, *size = numbers(shape)
        size = size * 3 if len(size) == 1 else size
        taps = numbers(kernel)
        self.padding = [tap // 2 for tap in taps]
        place = {"device": device, "dtype": dtype}
        volume = torch.randn(samples, channels, *size, **place)  # type: ignore[arg-type]
        self.leaves = [
            volume.contiguous(memory_format=FORMATS[memory]),
            torch.randn(channels, 1, *taps, **place),  # type: ignore[arg-type]
            torch.randn(channels, **place),  # type: ignore[arg-type]
        ]
        for leaf in self.leaves:
            leaf.requires_grad_()
        self.grad = torch.randn_like(self.leaves[0])

    def forward(self, way: str) -> Tensor:
        return depthwise_conv3d(*self.leaves, self.padding, implementation=way)

    def backward(self, value: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(value, self.leaves, self.grad, retain_graph=True)

    def difference(self) -> float:
        """Largest relative difference between the two ways."""
        results = []
        for way in WAYS:
            value = self.forward(way)
            results.append((value, *self.backward(value)))
        pairs = zip(*results, strict=True)
        return max(((ours - theirs).abs().max() / theirs.abs().max()).item() for theirs, ours in pairs)


def timed(call: Callable[[], object], device: str, clock: str) -> float:
    """Time of a call in milliseconds."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    start = now()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (now() - start) * 1e3


def measure(case: Case, device: str, repeats: int, clock: str) -> dict[str, float]:
    """Median milliseconds of "torch forward", "fast backward", ..."""
    taken: dict[str, list[float]] = {f"{way} {part}": [] for way in WAYS for part in ("forward", "backward")}
    values = {way: case.forward(way) for way in WAYS}
    for number in range(repeats + 1):  # the first round warms up
        for way in WAYS:
            calls = {"forward": lambda: case.forward(way), "backward": lambda: case.backward(values[way])}  # noqa: B023
            for part, call in calls.items():
                milliseconds = timed(call, device, clock)
                if number:
                    taken[f"{way} {part}"].append(milliseconds)
    return {name: statistics.median(times) for name, times in taken.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", help="samples x channels x size, such as 1x96x32 or 1x32x20x64x64")
    parser.add_argument("--kernels", nargs="+", default=["3x7x7"], help="taps z x y x x, for each of --shapes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--repeats", type=int, default=5, help="measured calls (default: 5)")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="wall (default), or processor time of the process: with --threads 1, for a machine that is busy otherwise",
    )
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda, but PyTorch finds no CUDA device here; use --device cpu", file=sys.stderr)
        return 1
    torch.set_num_threads(options.threads)
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    print(
        f"{name}, {options.threads} threads, PyTorch {torch.__version__}, {options.dtype}, {options.clock} milliseconds"
    )
    print(f"{'':<33}|{'forward':^17}|{'backward':^26}|")
    heads = f"{'conv3d':>8}{'ours':>8}"
    print(f"{'shape':<12}{'kernel':<8}{'memory':<13}|{heads} |{heads}{'times':>9} | diff.")
    cases = [f"{shape} {kernel}" for shape in options.shapes for kernel in options.kernels] if options.shapes else CASES
    for text in cases:
        shape, kernel = text.split()
        for memory in FORMATS:
            case = Case(shape, kernel, memory, options.device, getattr(torch, options.dtype))
            ms = measure(case, options.device, options.repeats, options.clock)
            print(
                f"{shape:<12}{kernel:<8}{memory:<13}|{ms['torch forward']:>8.1f}{ms['fast forward']:>8.1f} |"
                f"{ms['torch backward']:>8.1f}{ms['fast backward']:>8.1f}"
                f"{ms['torch backward'] / ms['fast backward']:>9.1f} | {case.difference():.0e}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
