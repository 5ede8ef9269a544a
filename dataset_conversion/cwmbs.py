"""The CWMBS set (blocks of 256 voxels out of whole mouse brains) -> an nnU-Net raw data set.

Expected are the images and the folder swc of the repository: SN1.tif, ... and swc/SN1.tif.swc, ... Every radius in
these tracings is 1 and most have no root; labels are drawn with a radius of at least 1.5 voxels. Names begin with SN
or WS and do not tell which blocks are of one brain: where you know, say so with --specimen.

example:
  python dataset_conversion/cwmbs.py CWMBS --dataset-id 813 --output nnUNet_raw

"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common import Source, parser_for, run

from nnunet_neurino.conversion import Case, find_cases

SOURCE = Source(
    "https://github.com/crz22/CWMBS",
    "the publication named in the repository",
    "the repository names none: ask its authors before you pass anything on",
)


def cases_of(args: argparse.Namespace) -> tuple[list[Case], list[str]]:
    """Pair SN1.tif with swc/SN1.tif.swc."""
    folder = args.data / "swc"
    return find_cases(args.data, folder if folder.is_dir() else args.data)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    defaults = {"spacing": (1, 1, 1), "unit": "voxel", "mode": "distance_binary"}
    parser = parser_for(__doc__ or "", SOURCE, "CWMBS", **defaults)
    parser.add_argument("data", type=Path, help="folder with the images and swc")
    return run(parser, SOURCE, cases_of, argv)


if __name__ == "__main__":
    sys.exit(main())
