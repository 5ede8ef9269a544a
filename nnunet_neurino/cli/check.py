"""Look for trouble in SWC files and image stacks without converting them.

One line a finding, then one line a file. The exit status is 0 when all files are usable (what is broken can be mended),
1 when at least one is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nnunet_neurino.cli.convert import add_stack_arguments
from nnunet_neurino.errors import NeurinoError

EXAMPLE = """  neurino synth -o cells --count 1 --shape 32 96 96 --preset demo
  neurino check cells"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "SWC or eSWC file, image stack, folder of slices, or a folder that is searched for all of them"
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=text)
    add_stack_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="tell only what is refused")


def run(args: argparse.Namespace) -> int:
    """Check each file; 1 when one is refused."""
    refused = 0
    for path in _files(args.files):
        try:
            how = {name: getattr(args, name) for name in ("axes", "slice_number", "allow_damaged")}
            findings, summary = check_file(path, **how)
        except (NeurinoError, OSError) as error:
            refused += 1
            text = " ".join(str(error).split())
            print(f"{path}: REFUSED: {text.removeprefix(f'{path}: ')}")
            continue
        if not args.quiet:
            for finding in findings:
                print(f"{path}: {finding}")
            print(f"{path}: usable: {summary}")
    return 1 if refused else 0


def check_file(path: Path, **how: Any) -> tuple[list[str], str]:
    """Findings about a file, a line each, and what it is; NeurinoError when it is refused.

    ``how`` are keyword arguments of :func:`~nnunet_neurino.images.read_stack`.
    """
    from nnunet_neurino.swc.read import SUFFIXES, inspect_swc, read_swc

    if path.name.lower().endswith(SUFFIXES):
        tree = read_swc(path)
        unit = "" if tree.unit == "unknown" else f", in {tree.unit}s"
        return [str(f) for f in inspect_swc(path)], f"{tree.n_nodes} nodes, {tree.n_pieces} connected piece(s){unit}"
    if path.is_dir() and not any(path.iterdir()):
        raise NeurinoError(f"{path}: an empty folder; give SWC files, image stacks, or a folder that holds some")
    return _check_stack(path, how)


def _check_stack(path: Path, how: dict[str, Any]) -> tuple[list[str], str]:
    from nnunet_neurino.conversion.reading import check_values
    from nnunet_neurino.images import read_stack

    stack = read_stack(path, **how)
    for channel in stack.channels:
        check_values(channel, path)
    sizes = " x ".join(str(n) for n in stack.shape)
    channels = f", {len(stack.channels)} channels" if len(stack.channels) > 1 else ""
    spacing = "unknown" if stack.spacing is None else "{:g} {:g} {:g} micrometres".format(*stack.spacing)
    summary = f"{sizes} voxels (z y x){channels} of {stack.voxels.dtype.name}, voxel size {spacing}"
    return [str(f) for f in stack.findings], summary


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files, and what is in the folders that are not folders of slices."""
    from nnunet_neurino.conversion.names import stacks_in, tracings_in
    from nnunet_neurino.images.slices import is_slice_folder

    for path in paths:
        if not path.is_dir() or is_slice_folder(path):
            yield path
            continue
        yield from sorted({*stacks_in(path), *tracings_in(path)}) or [path]
