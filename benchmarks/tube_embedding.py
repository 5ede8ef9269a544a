"""Memory and time of DINeuro's tubes, sampled once for each token, beside a snake convolution at every voxel.

1. Tubes: what the three views keep for the backward pass, and the time of the embedding (tubes and inflated patch
   kernel), forward and backward, as a share of the whole network's step, for several blocks.
2. Dense: a deformable line of the same kind at every voxel, three views, written here after the same description as
   the tubes are (offsets from a 3 x 3 x 3 convolution, summed from the centre outwards; trilinear samples; a
   convolution along the line). It is run at short lengths; what it keeps for each voxel and tap is constant, from
   which 256 taps are extrapolated.
3. Decoders: parameters, time and memory of `pyramid` and `upernet` on the same encoder.

Kept bytes are counted by saved-tensor hooks, every storage once, parameters left out. Times are medians of --repeats
runs; on a busy machine compare only what one call prints.

Examples:
  python benchmarks/tube_embedding.py
  python benchmarks/tube_embedding.py --vit base --blocks 128x128x16 96x96x96 --lengths 9 17 33
  python benchmarks/tube_embedding.py --device cuda --amp --compile
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.networks import VITS, DINeuro
from nnunet_neurino.networks.tubes import LENGTH, centre_of, curve_basis

MB = 1e6


class DenseSnake(nn.Module):
    """Lines of ``length`` taps along the three axes at every voxel, joined by a mean."""

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.length = length
        self.offsets = nn.ModuleList(nn.Conv3d(1, 2 * length, 3, padding=1) for _ in range(3))
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(channels, length) / length) for _ in range(3))
        self.register_buffer("basis", curve_basis(length, length), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, Z, Y, X) -> (N, channels, Z, Y, X)."""
        shape = image.shape[2:]
        grids = torch.meshgrid(
            *(torch.arange(n, device=image.device, dtype=torch.float32) for n in shape), indexing="ij"
        )
        taps = torch.arange(self.length, device=image.device, dtype=torch.float32) - centre_of(self.length)
        total: Tensor | None = None
        for axis, (head, weight) in enumerate(zip(self.offsets, self.weights, strict=True)):
            steps = torch.tanh(head(image)).unflatten(1, (2, self.length)).movedim(2, -1)
            offsets = steps @ self.basis
            others = [a for a in range(3) if a != axis]
            places = [grid[None, ..., None].expand(*offsets.shape[:1], *shape, self.length) for grid in grids]
            places[axis] = places[axis] + taps
            for number, other in enumerate(others):
                places[other] = places[other] + offsets[:, number]
            relative = [(2 * place + 1) / n - 1 for place, n in zip(reversed(places), reversed(shape), strict=True)]
            grid = torch.stack(relative, dim=-1).flatten(1, 3).unsqueeze(3)
            samples = F.grid_sample(image, grid, "bilinear", "zeros", align_corners=False).squeeze(-1)[:, 0]
            tokens = samples @ weight.T
            total = tokens if total is None else total + tokens
        assert total is not None
        return total.unflatten(1, shape).movedim(-1, 1)


def bytes_kept(run: Callable[[], object], module: nn.Module) -> int:
    """Bytes of all storages that a forward pass keeps for the backward pass, the module's parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        outputs = run()
    del outputs
    return sum(kept.values())


def seconds(run: Callable[[], object], repeats: int, device: str) -> float:
    """Median wall time, after one run that warms up."""
    times = []
    for _ in range(repeats + 1):
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def step(network: nn.Module, image: Tensor, autocast: Callable[[], contextlib.AbstractContextManager]) -> None:
    """Forward, a loss at every scale, backward."""
    with autocast():
        outputs = network(image)
        loss = sum(output.float().square().mean() for output in outputs)
    assert isinstance(loss, Tensor)
    loss.backward()


def size_of(text: str) -> tuple[int, int, int]:
    """``128x128x16`` (x, y, z, as blocks are called in the paper) as (z, y, x)."""
    x, y, z = (int(part) for part in text.split("x"))
    return z, y, x


def tubes_table(args: argparse.Namespace, autocast: Callable[[], contextlib.AbstractContextManager]) -> None:
    """Part 1."""
    print(
        f"{'block':<14} {'tokens':>7} {'3 views keep':>13} {'embedding':>10} {'whole step':>11} {'share':>6} "
        f"{'peak':>9}"
    )
    for block in args.blocks:
        shape = size_of(block)
        torch.manual_seed(0)
        network = DINeuro(1, 2, vit=args.vit, tube_gate=1.0).to(args.device).train()
        encoder = network.encoder
        image = torch.randn(1, 1, *shape, device=args.device)
        padded = encoder.magnified(image)
        plain = encoder.patch_embed(padded).detach()
        kept = bytes_kept(lambda e=encoder, p=padded, t=plain: e.tubes(p, t), encoder.tubes)

        def embed(encoder=encoder, padded=padded) -> None:
            with autocast():
                tokens = encoder.tubes(padded, encoder.patch_embed(padded))
            tokens.float().square().mean().backward()

        part = seconds(embed, args.repeats, args.device)
        whole_network = torch.compile(network) if args.compile else network
        if args.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        whole = seconds(lambda n=whole_network, i=image: step(n, i, autocast), args.repeats, args.device)
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB" if args.device.startswith("cuda") else ""
        tokens = plain.shape[1] * plain.shape[2] * plain.shape[3]
        print(
            f"{block:<14} {tokens:>7} {kept / MB:>10.1f} MB {part:>8.3f} s {whole:>9.3f} s {part / whole:>6.1%} "
            f"{peak:>9}"
        )


def dense_table(args: argparse.Namespace) -> None:
    """Part 2."""
    shape = size_of(args.dense_block)
    voxels = shape[0] * shape[1] * shape[2]
    width = VITS[args.vit].width
    print(f"{'taps':<6} {'keeps':>12} {'bytes a voxel, view and tap':>28} {'forward + backward':>19}")
    rates = []
    for length in args.lengths:
        torch.manual_seed(0)
        dense = DenseSnake(width, length).to(args.device)
        image = torch.randn(1, 1, *shape, device=args.device)
        kept = bytes_kept(lambda d=dense, i=image: d(i), dense)
        took = seconds(lambda d=dense, i=image: d(i).square().mean().backward(), 1, args.device)
        rates.append(kept / voxels / 3 / length)
        print(f"{length:<6} {kept / MB:>9.1f} MB {rates[-1]:>28.1f} {took:>17.3f} s")
    for block in args.blocks:
        z, y, x = size_of(block)
        extrapolated = rates[-1] * z * y * x * 3 * LENGTH / 2**30
        print(f"extrapolated to {LENGTH} taps, {block}, three views: {extrapolated:.1f} GiB")


def decoder_table(args: argparse.Namespace, autocast: Callable[[], contextlib.AbstractContextManager]) -> None:
    """Part 3."""
    print(f"{'decoder':<9} {'its parameters':>15} {'it keeps':>10} {'whole step':>11}")
    shape = size_of(args.blocks[0])
    for decoder in ("pyramid", "upernet"):
        torch.manual_seed(0)
        network = DINeuro(1, 2, vit=args.vit, decoder=decoder).to(args.device).train()
        image = torch.randn(1, 1, *shape, device=args.device)
        with torch.no_grad():
            features = network.encoder(network.levels.pad(image))
        padded = network.levels.pad(image)
        kept = bytes_kept(lambda n=network, f=features, p=padded: n.decoder(f, p), network.decoder)
        whole = seconds(lambda n=network, i=image: step(n, i, autocast), args.repeats, args.device)
        count = sum(parameter.numel() for parameter in network.decoder.parameters())
        print(f"{decoder:<9} {count / 1e6:>13.1f} M {kept / MB:>7.0f} MB {whole:>9.3f} s")


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--vit", default="small", choices=list(VITS), help="default: small")
    add("--blocks", nargs="+", default=["128x128x16", "112x112x5"], help="x x y x z (default: 128x128x16 112x112x5)")
    add("--dense-block", default="48x48x8", help="block of the dense convolution (default: 48x48x8)")
    add("--lengths", type=int, nargs="+", default=[9, 17], help="taps of the dense convolution (default: 9 17)")
    add("--repeats", type=int, default=3, help="runs a median is of (default: 3)")
    add("--device", default="cpu", help="default: cpu")
    add("--amp", action="store_true", help="float16 autocast on CUDA")
    add("--compile", action="store_true", help="torch.compile the network")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: 1)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)

    def autocast() -> contextlib.AbstractContextManager:
        return torch.autocast("cuda", torch.float16) if args.amp else contextlib.nullcontext()

    is_cuda = args.device.startswith("cuda")
    device = torch.cuda.get_device_name() if is_cuda else f"CPU ({platform.machine()}, {args.threads} thread(s))"
    print(f"DINeuro, ViT {args.vit}, batch 1, {device}, torch {torch.__version__}\n")
    tubes_table(args, autocast)
    print()
    dense_table(args)
    print()
    decoder_table(args, autocast)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
