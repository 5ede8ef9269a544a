"""Pictures and one HTML page: overlays of cases, traced trees, errors, training curves, encoder features.

Each case is drawn as maximum projections in three directions, to scale: the raw image, outlines of truth (blue,
solid) and prediction (orange, dashed), trees, and boxes where the skeletons disagree. Give files for one case, or
folders, whose files are matched by name. The page holds its pictures and needs no server.
"""

from __future__ import annotations

import argparse
import math
import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures import (
    Page,
    load_case,
    match_cases,
    png_bytes,
    projection_figure,
    read_training_log,
    section_figure,
    training_figure,
)
from nnunet_neurino.figures.load import ROLES
from nnunet_neurino.files import atomic_path

EXAMPLE = """\
  neurino synth -o synthetic --count 4 --seed 1 --shape 32 64 64 --preset demo
  neurino view --image synthetic/images --truth synthetic/masks --tree synthetic/tracings -o page.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``neurino view``."""
    add = parser.add_argument
    add("--image", metavar="RAW", type=Path, help="image stack, or folder of stacks")
    add("--truth", metavar="FILE", type=Path, help="true mask or SWC tree, or folder")
    add("--prediction", metavar="FILE", type=Path, help="predicted mask or probability map, or folder")
    add("--tree", metavar="SWC", type=Path, help="traced tree, or folder")
    text = "voxel size in micrometres (default: what the files say; cubes where they say nothing)"
    add("--spacing", metavar=("Z", "Y", "X"), nargs=3, type=float, help=text)
    add("--channel", type=int, default=0, help="channel of the image, from 0 (default: 0)")
    text = "foreground of a probability map lies above, 0 to 1 (default: 0.5)"
    add("--threshold", type=float, default=0.5, help=text)
    text = "skeletons farther apart than so many in-plane voxels disagree (default: 3)"
    add("--tolerance", type=float, default=3.0, help=text)
    text = "slices through the middle of the masks in place of projections (for MR images and the like)"
    add("--slices", action="store_true", help=text)
    text = "training curves of nnU-Net fold folders (.../fold_0), several drawn together"
    add("--training", metavar="FOLD", nargs="+", type=Path, help=text)
    trust = "nnU-Net opens the checkpoint, which can run code: use models you trust"
    text = "nnU-Net model folder: encoder features on the (first) image as colours, after and before training"
    add("--features", metavar="MODEL", type=Path, help=f"{text}. {trust}")
    text = "with --features: a row with these 2D weights, untrained (neurino weights)"
    add("--weights", metavar="WEIGHTS", help=text)
    text = "nnU-Net model folder of a DINeuro trainer: the bent lines its embedding samples, over the (first) image"
    add("--tubes", metavar="MODEL", type=Path, help=f"{text}. {trust}")
    add("--title", default="Neurons", help="heading of the page (default: Neurons)")
    text = "page.html, or picture.png for one picture"
    add("-o", "--output", metavar="FILE", type=Path, required=True, help=text)


def run(args: argparse.Namespace) -> int:
    """Run ``neurino view``."""
    if args.output.suffix.lower() not in (".html", ".htm", ".png"):
        raise NeurinoError(f"-o {args.output}: expected a name that ends in .html or .png")
    if not 0 <= args.tolerance < math.inf:
        raise NeurinoError(f"--tolerance {args.tolerance}: expected 0 or more in-plane voxels")
    sources = {role: path for role in ROLES if (path := getattr(args, role)) is not None}
    if not sources and not args.training:
        raise NeurinoError("nothing to look at: give --image, --truth, --prediction, --tree or --training")
    if args.features and not args.image:
        raise NeurinoError("--features needs --image: features of which image?")
    if args.tubes and not args.image:
        raise NeurinoError("--tubes needs --image: tubes over which image?")
    cases = _select(match_cases(sources)) if sources else {}
    pictures = len(cases) + bool(args.training) + bool(args.features) + bool(args.tubes)
    if args.output.suffix.lower() == ".png" and pictures != 1:
        raise NeurinoError(f"-o {args.output}: {pictures} pictures do not fit into a PNG file: write a page, .html")

    page = Page(args.title)
    drawn, failed = _draw_cases(page, cases, args)
    if args.training:
        logs = {_run_name(folder, args.training): read_training_log(folder) for folder in args.training}
        drawn.append(png_bytes(training_figure(logs if len(logs) > 1 else next(iter(logs.values())))))
        page.heading("Training").figure(drawn[-1], "Losses and pseudo Dice by epoch, from nnU-Net's logs.")
    if args.features:
        drawn.append(_features(args, cases))
        page.heading("Features of the encoder")
        page.figure(drawn[-1], "Three main components of each stage's features as red, green and blue.")
    if args.tubes:
        drawn.append(_tubes(args, cases))
        page.heading("Tubes")
        page.figure(drawn[-1], "Where the tubes of some tokens take their samples; a dot is the middle of a tube.")
    if not drawn:
        raise NeurinoError("no case could be drawn, nothing was written")
    if args.output.suffix.lower() == ".png":
        with atomic_path(args.output) as unfinished:
            unfinished.write_bytes(drawn[0])
    else:
        page.write(args.output)
    print(args.output)
    return 1 if failed else 0


def _select(cases: dict[str, dict[str, Path]]) -> dict[str, dict[str, Path]]:
    """Leave out images that nothing else belongs to, where other images have something."""
    more = {name: files for name, files in cases.items() if set(files) != {"image"}}
    if more and len(more) < len(cases):
        count = len(cases) - len(more)
        print(
            f"neurino view: {count} of {len(cases)} images have nothing beside them and are left out", file=sys.stderr
        )
    return more or cases


def _draw_cases(page: Page, cases: dict[str, dict[str, Path]], args: argparse.Namespace) -> tuple[list[bytes], bool]:
    """Add all cases to the page; one that cannot be read is named on stderr and on the page, and skipped."""
    drawn: list[bytes] = []
    failed = False
    roles = {role for files in cases.values() for role in files}
    for name, files in tqdm(cases.items(), desc="drawing", unit="case", disable=None if len(cases) > 1 else True):
        page.heading(name)
        if lacking := [f"--{role}" for role in ROLES if role in roles and role not in files]:
            page.text(f"Not there for this case: {', '.join(lacking)}.")
            print(f"neurino view: {name}: not there: {', '.join(lacking)}", file=sys.stderr)
            failed = True
        try:
            spacing = tuple(args.spacing) if args.spacing else None
            case = load_case(name, files, spacing, args.channel, args.threshold)
            for doubt in case.doubts():
                page.text(doubt)
                print(f"neurino view: {doubt}", file=sys.stderr)
            draw = section_figure if args.slices else partial(projection_figure, tolerance=args.tolerance)
            drawn.append(png_bytes(draw(case, title="")))
            size = " x ".join(f"{step:g}" for step in case.spacing) + " µm" if case.spacing else "unknown"
            shape = " x ".join(map(str, case.shape))
            page.figure(drawn[-1], f"{name}: {shape} voxels (z, y, x), voxel size {size}.")
        except (NeurinoError, OSError, MemoryError) as error:
            if len(cases) == 1:
                raise
            said = str(error) or type(error).__name__
            page.text(said)
            print(f"neurino view: {said}", file=sys.stderr)
            failed = True
    return drawn, failed


def _features(args: argparse.Namespace, cases: dict[str, dict[str, Path]]) -> bytes:
    from nnunet_neurino.cli.model_features import model_feature_figure

    image = next(files["image"] for files in cases.values() if "image" in files)
    spacing = tuple(args.spacing) if args.spacing else None
    return png_bytes(model_feature_figure(args.features, image, spacing, args.weights))


def _tubes(args: argparse.Namespace, cases: dict[str, dict[str, Path]]) -> bytes:
    from nnunet_neurino.cli.model_tubes import model_tube_figure

    image = next(files["image"] for files in cases.values() if "image" in files)
    spacing = tuple(args.spacing) if args.spacing else None
    return png_bytes(model_tube_figure(args.tubes, image, spacing))


def _run_name(folder: Path, folders: list[Path]) -> str:
    """What tells this run from the others: the parts of its path that not all of them share."""
    absolute = [one.resolve().parts for one in folders]
    mine = folder.resolve().parts
    own = [part for at, part in enumerate(mine) if any(len(other) <= at or other[at] != part for other in absolute)]
    return " ".join(own) or folder.name
