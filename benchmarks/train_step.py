"""Time and peak memory of one training step: NeurINO beside other networks, in one run.

A step is forward, loss and backward with deep supervision; the loss is the sum over the heads of the mean square of the
logits, so that nothing but the network is measured. There is no optimiser. Networks:

  plainconvunet       nnU-Net's PlainConvUNet (features 32, 64, 128, 256, 320, 320): what the ratios refer to
  neurino             NeurINO, size --size, as trained
  neurino+checkpoint  the same with activation checkpointing
  neurino/conv3d      the same with PyTorch's own depthwise convolutions
  neurino/plain       the same with PyTorch's own operations everywhere
  mednext-B, -L       MedNeXt, kernel 3 (L with GRN is the one of the NeurINO paper), on this package's layers
  mednext-B/plain ... the same with PyTorch's own operations everywhere

Times are medians of --repeats steps, taken in turns: one step of each network, then the next round. Memory is the peak
beyond what was resident before the step, gradients included; on a CPU it is measured in a process of its own.

Examples:
  python benchmarks/train_step.py
  python benchmarks/train_step.py --batch 2 --networks plainconvunet neurino neurino/plain
  python benchmarks/train_step.py --device cuda --patch 128 --batch 2 --amp --compile
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from nnunet_neurino.networks import MedNeXt, NeurINO
from nnunet_neurino.networks.cpu import DepthwiseConv3d, voxelwise

NETWORKS = (
    "plainconvunet",
    "neurino",
    "neurino+checkpoint",
    "neurino/conv3d",
    "neurino/plain",
    "mednext-B",
    "mednext-B/plain",
    "mednext-L",
    "mednext-L/plain",
)
REFERENCE = "plainconvunet"


def plain_conv_unet() -> nn.Module:
    """nnU-Net's network for a patch of 64^3 or more, as its planner would build it."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    return PlainConvUNet(
        input_channels=1,
        n_stages=6,
        features_per_stage=(32, 64, 128, 256, 320, 320),
        conv_op=nn.Conv3d,
        kernel_sizes=3,
        strides=(1, 2, 2, 2, 2, 2),
        n_conv_per_stage=2,
        num_classes=2,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )


def build(name: str, size: str) -> nn.Module:
    """The network called ``name`` in the module's docstring."""
    family, _, way = name.replace("+", "/").partition("/")
    if family == "plainconvunet":
        return plain_conv_unet()
    if family == "neurino":
        network: nn.Module = NeurINO(size=size, checkpointing=way == "checkpoint")
    else:
        letter = family.rpartition("-")[2]
        network = MedNeXt(size=letter, grn=letter == "L")
    if way in ("conv3d", "plain"):
        for module in network.modules():
            if hasattr(module, "implementation"):
                module.implementation = "torch"  # type: ignore[assignment]
        assert any(isinstance(module, DepthwiseConv3d) for module in network.modules())
    return network


@contextlib.contextmanager
def operations(name: str) -> Iterator[None]:
    """The operations that the network called ``name`` is made of."""
    with contextlib.ExitStack() as stack:
        if name.endswith("/plain"):
            stack.enter_context(mock.patch.object(voxelwise, "_SMALL", sys.maxsize))
        yield


class Step:
    """One network with its input, ready to take training steps."""

    def __init__(self, name: str, options: argparse.Namespace, batch: int) -> None:
        torch.manual_seed(0)
        self.name = name
        self.device = torch.device(options.device)
        self.amp = options.amp
        self.clock = time.process_time if options.clock == "cpu" else time.perf_counter
        self.network = build(name, options.size).to(self.device).train()
        self.forward: Callable[[Tensor], list[Tensor]] = (
            torch.compile(self.network) if options.compile else self.network
        )
        self.image = torch.randn(batch, 1, *(options.patch,) * 3, device=self.device)

    def __call__(self) -> None:
        with operations(self.name):
            with torch.autocast(self.device.type, enabled=self.amp):
                loss = sum(logits.float().square().mean() for logits in self.forward(self.image))
            loss.backward()  # type: ignore[union-attr]
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Drop the gradients."""
        self.network.zero_grad(set_to_none=True)

    def seconds(self) -> float:
        """Time of one step."""
        start = self.clock()
        self()
        taken = self.clock() - start
        self.forget()
        return taken


def _resident(field: str) -> float:
    """``VmRSS`` or ``VmHWM`` (the peak) of this process in MiB; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def _measure_child(name: str, options: argparse.Namespace, batch: int, channel: object) -> None:
    torch.set_num_threads(options.threads)
    step = Step(name, options, batch)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _resident("VmRSS")
    step()
    channel.send(_resident("VmHWM") - before)  # type: ignore[attr-defined]


def peak_memory(name: str, options: argparse.Namespace, batch: int) -> float | None:
    """Peak memory of the first step beyond what was resident, in MiB; None where it cannot be measured."""
    if options.device != "cpu":
        step = Step(name, options, batch)
        step.seconds()  # compile, choose algorithms
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return None
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_measure_child, args=(name, options, batch, theirs))
    child.start()
    theirs.close()
    try:
        return float(ours.recv())
    except EOFError:
        return None
    finally:
        child.join()


def medians(steps: list[Step], warmup: int, repeats: int) -> dict[str, float]:
    """Median seconds of a step of each network, measured in turns."""
    taken: dict[str, list[float]] = {step.name: [] for step in steps}
    for number in range(warmup + repeats):
        for step in steps:
            seconds = step.seconds()
            if number >= warmup:
                taken[step.name].append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def describe(options: argparse.Namespace) -> str:
    """The device and the settings, in one line."""
    device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    threads = f", {options.threads} threads" if options.device == "cpu" else ""
    return (
        f"{device}{threads}, PyTorch {torch.__version__}, patch {options.patch}^3, "
        f"{'mixed precision' if options.amp else 'float32'}{', torch.compile' if options.compile else ''}, "
        f"{options.clock} time, median of {options.repeats} steps in turns"
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    parser.add_argument("--size", default="tiny", help="size of NeurINO: tiny (default), small, base, large")
    parser.add_argument("--patch", type=int, default=64, help="voxels along each axis (default: 64)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="patches in a step (default: 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--repeats", type=int, default=5, help="measured steps of each network (default: 5)")
    parser.add_argument("--warmup", type=int, default=1, help="steps before that (default: 1)")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="wall (default), or processor time of the process: with --threads 1, for a machine that is busy otherwise",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision, as nnU-Net trains on GPUs")
    parser.add_argument("--compile", action="store_true", help="torch.compile, as nnU-Net trains on GPUs")
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print one table for each batch size."""
    options = parse(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda, but PyTorch finds no CUDA device here; use --device cpu", file=sys.stderr)
        return 1
    torch.set_num_threads(options.threads)
    print(describe(options))
    table = []
    for batch in options.batch:
        memory = {} if options.no_memory else {n: peak_memory(n, options, batch) for n in options.networks}
        steps = [Step(name, options, batch) for name in options.networks]
        seconds = medians(steps, options.warmup, options.repeats)
        base = seconds.get(REFERENCE)
        print(f"\nbatch {batch}\n{'network':<20}{'parameters':>12}{'step s':>9}{'ratio':>7}{'peak MiB':>10}")
        for step in steps:
            count = sum(parameter.numel() for parameter in step.network.parameters())
            ratio = seconds[step.name] / base if base else None
            peak = memory.get(step.name)
            print(
                f"{step.name:<20}{count:>12,}{seconds[step.name]:>9.3f}"
                f"{f'{ratio:.2f}' if ratio else '-':>7}{f'{peak:,.0f}' if peak else '-':>10}"
            )
            table.append(
                {"network": step.name, "batch": batch, "seconds": seconds[step.name], "ratio": ratio, "peak_mib": peak}
            )
    if options.json:
        options.json.write_text(json.dumps({"settings": describe(options), "rows": table}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
