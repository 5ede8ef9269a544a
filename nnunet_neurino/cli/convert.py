"""Turn SWC tracings (or masks) and image stacks into an nnU-Net raw data set.

Images and tracings are paired by name, or by a table (--pairs). What is odd in a file is mended and listed, each
tracing is compared with its image (flipped axes, counting from 1, micrometres), labels are drawn, and
conversion_report.json and contact_sheet.png show all of it. A case that cannot be used is listed and the others are
converted; the exit status is then 1, as it is when a tracing fits better elsewhere and that was neither fixed nor kept
(--keep-orientation). A stopped run goes on when the same command is given again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nnunet_neurino.cli.options import ZYX
from nnunet_neurino.errors import NeurinoError

EXAMPLE = """  neurino synth -o cells --count 4 --shape 32 96 96 --preset demo
  neurino convert --images cells/images --tracings cells/tracings --dataset-id 801 --name Cells --output nnUNet_raw"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--images", type=Path, metavar="DIR", help="folder with image stacks (and sub-folders)")
    data.add_argument("--tracings", type=Path, metavar="DIR", help="folder with .swc and .eswc files")
    data.add_argument("--masks", type=Path, metavar="DIR", help="folder with masks (above 0 is neuron), not tracings")
    text = "table with the columns image, tracing (or mask), case, specimen, set, in place of the folders"
    more = "paths count from the table; channels of one image are separated by ;"
    data.add_argument("--pairs", type=Path, metavar="CSV", help=f"{text}; {more}")
    add_output_arguments(parser)
    add_reading_arguments(parser)


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is written where; shared with the scripts of dataset_conversion."""
    out = parser.add_argument_group("data set")
    option = out.add_argument
    option("--dataset-id", type=int, required=True, metavar="N", help="nnU-Net's number, 1 to 999")
    option("--name", required=True, help="nnU-Net's name: letters, digits, - and _")
    option("--output", type=Path, metavar="FOLDER", help="nnUNet_raw folder (default: $nnUNet_raw)")
    text = "of the images (default: tiff)"
    option("--format", choices=("tiff", "nifti"), default="tiff", dest="file_format", help=text)
    option("--channel-names", nargs="+", default=(), metavar="NAME", help="nnU-Net's names of the channels")
    text = "found in case names; its first group names the specimen, whose cases stay on one side of every split"
    option("--specimen", metavar="REGEX", help=f"{text} (default: each case is a specimen)")
    option("--folds", type=int, default=5, help="cross-validation folds (default: 5)")
    text = "cut training volumes into blocks of this many voxels (default: whole volumes)"
    option("--block", type=int, **ZYX, help=text)
    text = "overlap of neighbouring blocks, voxels (default: 0 0 0)"
    option("--overlap", type=int, **ZYX, default=(0, 0, 0), help=text)
    text = "least share of neuron voxels, 0 to 1, of a block that is kept (default: 0, any but none)"
    option("--min-foreground", type=float, default=0.0, metavar="SHARE", help=text)
    option("--resume", action="store_true", help="go on with a finished data set: refused and new cases")
    option("--overwrite", action="store_true", help="remove what the data set's folder holds")
    option("--workers", type=int, metavar="N", help="cases at a time (default: up to 4)")


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how files are taken; shared with the scripts of dataset_conversion."""
    how = parser.add_argument_group("how files are taken")
    option = how.add_argument
    text = "voxel size in micrometres (default: what each file says)"
    option("--spacing", type=float, **ZYX, help=text)
    add_stack_arguments(how)
    option("--channel", type=int, help="the one channel to keep, from 0 (default: all)")
    option("--time", type=int, help="the one time point to keep, from 0 (default: refuse several)")
    text = "of the tracings; auto: what their comments say, else voxels (default: auto)"
    option("--unit", choices=("auto", "voxel", "micrometre"), default="auto", help=text)
    text = "apply a flip, count or unit that fits better beyond doubt (default: no, only say so)"
    option("--fix-orientation", action=argparse.BooleanOptionalAction, default=False, help=text)
    text = "tracings that fit better elsewhere are meant as they are: exit status 0 for them"
    option("--keep-orientation", action="store_true", help=text)
    text = "draw tubes of the tracings' radii, of one radius, or of a least radius (default: capsule)"
    option("--mode", choices=("capsule", "skeleton", "distance_binary"), default="capsule", help=text)
    option("--tube-radius", type=float, default=1.0, metavar="R", help="for skeleton, in voxels of x (default: 1)")
    text = "for distance_binary, in voxels of x (default: 1.5)"
    option("--minimum-radius", type=float, default=1.5, metavar="R", help=text)
    text = "in place of all radii, in the tracings' unit (default: the files' own)"
    option("--radius", type=float, metavar="R", help=text)
    option("--allow-empty", action="store_true", help="keep cases without any neuron voxel")


def add_stack_arguments(parser: argparse._ActionsContainer) -> None:
    """Declare how stacks are read; shared with ``neurino check``."""
    option = parser.add_argument
    option("--axes", help="stored axes of the images and masks, such as ZYX, CZYX, XYZ (default: what the files say)")
    text = "which of several numbers in the names of slices counts them, from 1 (default: refuse several)"
    option("--slice-number", type=int, metavar="N", help=text)
    text = "take what is left of a TIFF file whose chain of pages is broken (default: refuse it)"
    option("--allow-damaged", action="store_true", help=text)


def run(args: argparse.Namespace) -> int:
    """Convert; 0 when all cases were converted and none is misplaced, else 1."""
    from nnunet_neurino.conversion import find_cases, read_pairs

    notes: list[str] = []
    if args.pairs is not None:
        if args.images or args.tracings or args.masks:
            raise NeurinoError("--pairs names all files: leave out --images, --tracings and --masks")
        cases = read_pairs(args.pairs)
    elif args.images is None:
        raise NeurinoError("give --images DIR with --tracings DIR (or --masks DIR), or --pairs CSV")
    elif args.tracings and args.masks:
        raise NeurinoError("give either --tracings or --masks")
    else:
        cases, notes = find_cases(args.images, args.tracings, args.masks)
    return convert(cases, args, notes)


def convert(cases: Sequence, args: argparse.Namespace, notes: Sequence[str] = (), **about: Any) -> int:
    """Convert ``cases`` by the parsed options, print what happened, and return the exit status.

    Args:
        cases: from the pairing.
        args: options of :func:`add_output_arguments` and :func:`add_reading_arguments`.
        notes: lines for the report.
        about: licence and reference of the data.
    """
    from nnunet_neurino.conversion import ConvertSettings, convert_dataset
    from nnunet_neurino.conversion.workers import default_workers

    output = args.output or _folder_named("nnUNet_raw")
    if output is None:
        raise NeurinoError("where to? give --output FOLDER or set nnUNet_raw")
    given = {field.name: getattr(args, field.name) for field in fields(ConvertSettings) if field.name in args}
    about |= {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    settings = ConvertSettings(**about)
    workers = args.workers if args.workers is not None else default_workers(len(cases))
    if workers < 1:
        raise NeurinoError(f"--workers {workers}: expected at least 1")
    result = convert_dataset(
        cases,
        settings,
        output,
        workers=workers,
        resume=args.resume,
        overwrite=args.overwrite,
        notes=notes,
        preprocessed=_folder_named("nnUNet_preprocessed"),
    )
    for record in result.converted:
        for finding in record.findings:
            print(f"{record.case}: {finding}")
    for refusal in result.refused:
        print(f"{refusal.case}: REFUSED: {refusal.refused}")
    for note in result.notes:
        print(note)
    misplaced = [r.case for r in result.converted if r.alignment and r.alignment.misplaced]
    if misplaced and not args.keep_orientation:
        names = ", ".join(misplaced[:5]) + ", ..." * (len(misplaced) > 5)
        print(
            f"{len(misplaced)} tracings fit better elsewhere ({names}): "
            "--fix-orientation moves those that are clear, --keep-orientation takes all as they are"
        )
    n_test = sum(record.is_test for record in result.converted)
    print(
        f"{result.folder}: {len(result.converted) - n_test} training and {n_test} test cases converted, "
        f"{len(result.refused)} refused; look at contact_sheet.png and conversion_report.json"
    )
    bad = result.refused or not result.converted or (misplaced and not args.keep_orientation)
    return 1 if bad else 0


def _folder_named(variable: str) -> Path | None:
    """The folder that a variable of nnU-Net names."""
    return Path(os.environ[variable]) if os.environ.get(variable) else None
