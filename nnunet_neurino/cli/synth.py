"""Generate neurons: image stacks as a light microscope would take them, with the exact tracings and masks.

Writes DIR/images/case_000.tif, DIR/tracings/case_000.swc (voxels of the image) and DIR/masks/case_000.tif, a layout
that `neurino convert --images DIR/images --tracings DIR/tracings` takes as it is. The same options and seed give the
same bytes, and cases already there are kept, so that an interrupted run goes on. With --from-swc your own tracings
are photographed instead of generated ones; with --kind blob the volumes look like MR images with one small structure.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import psutil
from tqdm import tqdm

from nnunet_neurino import __version__, synth
from nnunet_neurino.cli.options import ZYX
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import write_json
from nnunet_neurino.images import write_tiff
from nnunet_neurino.swc import Tree, read_swc, write_swc
from nnunet_neurino.swc.read import SUFFIXES

EXAMPLE = "  neurino synth -o synthetic --count 4 --seed 1 --shape 32 64 64 --preset demo"

_RECORD = "synth.json"
_BYTES_PER_VOXEL = 32  # measured at the peak


def add_arguments(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("-o", "--output", metavar="DIR", type=Path, required=True, help="folder to write to")
    option("--count", metavar="N", type=int, help="number of cases (default: 10, or one for each SWC file)")
    option("--seed", metavar="S", type=int, default=0, help="whole number from 0 up (default: 0)")
    text = "size in voxels (default: the preset's; the extent of the tracing with --from-swc)"
    option("--shape", type=int, **ZYX, help=text)
    option("--spacing", type=float, **ZYX, help="voxel size in micrometres (default: the preset's)")
    option("--preset", metavar="NAME", default="confocal", help=f"{', '.join(synth.PRESETS)} (default: confocal)")
    text = "take pictures of these tracings (or folders of them)"
    option("--from-swc", metavar="FILE", nargs="+", type=Path, help=text)
    text = "unit of the --from-swc files (default: what the file says, else voxel)"
    option("--unit", choices=("voxel", "micrometre"), help=text)
    text = "neuron, or blob: MR-like, one structure of 1 to 2 %% of the volume, no tracings (default: neuron)"
    option("--kind", choices=("neuron", "blob"), default="neuron", help=text)


def run(args: argparse.Namespace) -> int:
    if args.seed < 0:
        raise NeurinoError(f"--seed {args.seed}: expected a whole number from 0 up")
    if args.count is not None and args.count < 1:
        raise NeurinoError(f"--count {args.count}: expected at least 1")
    sources = _swc_files(args.from_swc) if args.from_swc else []
    if args.kind == "blob":
        count, make, recipe = _blobs(args)
    elif sources:
        count, make, recipe = _pictures(args, sources)
    else:
        count, make, recipe = _neurons(args)
    if args.shape:
        _check_memory(tuple(args.shape))
    recipe |= {"seed": args.seed, "kind": args.kind, "version": __version__}
    _check_record(args.output, recipe)
    write_json(args.output / _RECORD, recipe)
    digits = max(3, len(str(count - 1)))
    for number in tqdm(range(count), desc="generating", unit="case", disable=None):
        name = f"case_{number:0{digits}d}"
        image, mask = (args.output / kind / f"{name}.tif" for kind in ("images", "masks"))
        tracing = args.output / "tracings" / f"{name}.swc"
        if image.is_file() and mask.is_file() and (tracing.is_file() or args.kind == "blob"):
            continue
        volume = make(number)
        write_tiff(mask, volume.mask, volume.spacing)
        if volume.trees:
            write_swc(volume.tree, tracing)
        write_tiff(image, volume.image, volume.spacing)  # last: an image is never without its truth
    print(f"{count} cases in {args.output}")
    truth = "tracings" if args.kind == "neuron" else "masks"
    folders = f"--images {args.output / 'images'} --{truth} {args.output / truth}"
    print(f"next: neurino convert {folders} --dataset-id 1 --name Synthetic")
    return 0


def _check_memory(shape: tuple[int, int, int]) -> None:
    needed, free = math.prod(shape) * _BYTES_PER_VOXEL, psutil.virtual_memory().available
    if needed > free:
        raise NeurinoError(
            f"--shape {' '.join(map(str, shape))}: needs about {needed / 2**30:.1f} GiB of memory, "
            f"{free / 2**30:.1f} GiB are free: choose a smaller one"
        )


Maker = Callable[[int], synth.SynthVolume]


def _given(args: argparse.Namespace) -> dict:
    """Shape and spacing, where they were given."""
    return {name: tuple(value) for name in ("shape", "spacing") if (value := getattr(args, name))}


def _neurons(args: argparse.Namespace) -> tuple[int, Maker, dict]:
    settings = synth.preset(args.preset, **_given(args))
    recipe = {"preset": args.preset, "settings": asdict(settings)}
    return args.count or 10, lambda number: synth.generate(settings, (args.seed, number)), recipe


def _blobs(args: argparse.Namespace) -> tuple[int, Maker, dict]:
    if args.from_swc:
        raise NeurinoError("--kind blob and --from-swc exclude each other: drop one")
    settings = synth.BlobSettings(**_given(args))
    recipe = {"settings": asdict(settings)}
    return args.count or 10, lambda number: synth.generate_blob(settings, (args.seed, number)), recipe


def _pictures(args: argparse.Namespace, sources: list[Path]) -> tuple[int, Maker, dict]:
    settings = synth.preset(args.preset, **_given(args))

    def make(number: int) -> synth.SynthVolume:
        path = sources[number % len(sources)]
        tree: Tree = read_swc(path)
        if len(tree) == 0:
            raise NeurinoError(f"{path}: has no nodes to take a picture of")
        if args.unit:
            tree = replace(tree, unit=args.unit)
        try:
            tree, shape = synth.place(tree, settings.spacing, tuple(args.shape) if args.shape else None)
        except NeurinoError as error:
            raise NeurinoError(f"{path}: {error}") from None
        _check_memory(shape)
        return synth.photograph((tree,), replace(settings, shape=shape), (args.seed, number))

    recipe = {
        "preset": args.preset,
        "settings": asdict(settings),
        "shape": args.shape,
        "unit": args.unit,
        "from_swc": [str(path) for path in sources],
    }
    return args.count or len(sources), make, recipe


def _swc_files(paths: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES)
            if not inside:
                raise NeurinoError(f"{path}: expected .swc files in this folder, found none")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise NeurinoError(f"{path}: no such file or folder")
    return files


def _check_record(folder: Path, recipe: dict) -> None:
    """Refuse to mix cases of different settings in one folder."""
    record = folder / _RECORD
    if not record.is_file():
        if any((folder / "images").glob("case_*.tif")):
            raise NeurinoError(f"{folder}: holds cases but no {_RECORD}: choose another folder with -o")
        return
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise NeurinoError(f"{record}: cannot be read: delete the folder or choose another with -o") from None
    if before != json.loads(json.dumps(recipe)):
        raise NeurinoError(
            f"{folder}: holds cases made with other options (see {record.name}): delete it or choose another with -o"
        )
