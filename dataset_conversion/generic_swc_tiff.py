"""Any folder of TIFF (or other) stacks and SWC tracings -> an nnU-Net raw data set.

The same as `neurino convert`; copy this file when your own data need a rule of their own. Expected:

  DATA/cell1.tif  DATA/cell1.swc  DATA/cell2.tif  DATA/cell2.swc ...

or two folders (--tracings), or a folder for each neuron. Images without a tracing become test cases.

example:
  python dataset_conversion/generic_swc_tiff.py DATA --dataset-id 801 --spacing 1 0.5 0.5 --output nnUNet_raw

"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common import Source, parser_for, run

from nnunet_neurino.conversion import Case, find_cases

SOURCE = Source("your own", "your own", "your own")


def cases_of(args: argparse.Namespace) -> tuple[list[Case], list[str]]:
    """Pair by name."""
    return find_cases(args.data, args.tracings or args.data)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = parser_for(__doc__ or "", SOURCE, "Neurons")
    parser.add_argument("data", type=Path, help="folder with image stacks")
    parser.add_argument("--tracings", type=Path, metavar="DIR", help="folder with SWC files (default: the same)")
    return run(parser, SOURCE, cases_of, argv)


if __name__ == "__main__":
    sys.exit(main())
