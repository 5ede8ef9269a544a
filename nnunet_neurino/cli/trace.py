"""Trace the neurons of a mask or a probability map: one SWC file, one root for each neuron.

The mask is cleaned of small components and traced along its middle, gaps are bridged where a neurite plainly goes on
(along bright paths if --image is given), neurites of different neurons that plainly cross are taken apart, and each
neuron's root is put into its thickest place. Coordinates are voxels (x, y, z; a whole number is the middle of a voxel)
unless --unit micrometre.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_neurino import __version__
from nnunet_neurino.cli.options import ZYX
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import Stack, read_stack
from nnunet_neurino.images.foreground import looks_raw
from nnunet_neurino.images.record import spacing_beside
from nnunet_neurino.swc import write_pieces, write_swc
from nnunet_neurino.tracing import TRACERS, TraceSettings, trace_with

EXAMPLE = """  neurino synth -o synthetic --count 1 --shape 32 64 64
  neurino trace synthetic/masks/case_000.tif -o traced.swc --image synthetic/images/case_000.tif"""

_NUMBERS = (
    ("--low", "low", "P", "lower threshold of probabilities"),
    ("--high", "high", "P", "upper threshold of probabilities"),
    ("--min-voxels", "min_voxels", "N", "components with fewer voxels are noise"),
    ("--min-length", "min_length", "L", "pieces with less cable are noise, in voxels of the finest axis"),
    ("--bridge", "bridge_length", "L", "longest gap to bridge, in voxels of the finest axis; 0 for none"),
    ("--prune", "prune", "S", "cut side branches that stick out by less than this many radii"),
    ("--node-spacing", "node_spacing", "L", "distance between nodes, in voxels of the finest axis; 0 for as traced"),
)
"""Options that are settings of the tracer: option, setting, name of the value, meaning."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, default = parser.add_argument, TraceSettings()
    add("mask", metavar="MASK", type=Path, help="mask (0 and 1) or probability map (0 to 1, or 0 to 255 in 8 bits)")
    add("-o", "--output", metavar="FILE.swc", type=Path, required=True, help="SWC file to write")
    add("--image", metavar="RAW", type=Path, help="raw image: gaps are then bridged along bright paths only")
    text = "voxel size in micrometres (default: MASK's own, or that in nnU-Net's file beside it, or 1)"
    add("--spacing", type=float, **ZYX, help=text)
    add("--unit", choices=["voxel", "micrometre"], default=default.unit, help="unit of the result (default: voxel)")
    add("--root", type=float, **ZYX, help="voxel near which a root is wanted (default: none)")
    for option, setting, metavar, meaning in _NUMBERS:
        usual = getattr(default, setting)
        text = f"{meaning} (default: {usual:g})"
        add(option, dest=setting, metavar=metavar, type=type(usual), default=argparse.SUPPRESS, help=text)
    text = "how many neurons there are; 1: nothing is taken apart, all in reach is joined (default: judged by shape)"
    add("--neurons", metavar="N", type=int, help=text)
    add("--no-split", action="store_true", help="leave crossing neurites joined (default: take them apart)")
    add("--step", dest="node_spacing", type=float, default=argparse.SUPPRESS, help=argparse.SUPPRESS)  # its old name
    add("--each", action="store_true", help="also write each neuron to FILE_1.swc, FILE_2.swc, ... (default: no)")
    add("--tracer", choices=TRACERS, default=TRACERS[0], help="program that traces (default: neurino, our own)")
    text = "seconds an external tracer may take (default: 3600)"
    add("--timeout", metavar="S", type=float, default=3600.0, help=text)


def run(args: argparse.Namespace) -> int:
    if args.output.suffix.lower() != ".swc":
        raise NeurinoError(f"{args.output}: expected a name that ends in .swc")
    numbers = {setting: getattr(args, setting) for _, setting, _, _ in _NUMBERS if setting in args}
    mask = _single(args.mask, args.spacing)
    if not {"low", "high"} & set(numbers) and looks_raw(np.asarray(mask.voxels)):
        raise NeurinoError(
            f"{args.mask}: looks like a raw image and no probability map: few of its voxels are near 0 or 255; segment "
            "it first, or say with --low and --high (0 to 1, times 255) above which values neurites lie"
        )
    image = None if args.image is None else _single(args.image, args.spacing)
    spacing = mask.spacing or (image.spacing if image else None)
    if spacing is None and args.unit == "micrometre":
        raise NeurinoError(f"{args.mask}: the voxel size is unknown; give --spacing Z Y X in micrometres")
    settings = TraceSettings(
        **numbers, split_crossings=not args.no_split, neurons=args.neurons, root=args.root, unit=args.unit
    )
    with _notes_on_stderr():
        try:
            tree = trace_with(
                args.tracer,
                np.asarray(mask.voxels),
                spacing or (1.0, 1.0, 1.0),
                None if image is None else np.asarray(image.voxels),
                settings,
                args.timeout,
            )
        except NeurinoError as error:
            raise NeurinoError(f"{args.mask}: {error}") from error
    if not len(tree):
        print("note: nothing to trace; the SWC file has no nodes", file=sys.stderr)
    write_swc(tree, args.output, [f"traced by neurino {__version__} from {args.mask.name}"])
    print(f"{args.output}: {tree.n_pieces} trees, {len(tree)} nodes, {tree.length:.1f} {tree.unit}s of cable")
    if args.each:
        for path in write_pieces(tree, args.output):
            print(path)
    return 0


def _single(path: Path, spacing: list[float] | None) -> Stack:
    stack = read_stack(path, spacing=spacing)
    if stack.voxels.ndim != 3:
        raise NeurinoError(f"{path}: {stack.voxels.shape[0]} channels; expected one: save that channel alone")
    return replace(stack, spacing=stack.spacing or spacing_beside(path))


@contextmanager
def _notes_on_stderr() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
