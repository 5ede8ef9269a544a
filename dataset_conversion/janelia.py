"""The Janelia stacks of the BigNeuron gold set as DINeuro uses them -> an nnU-Net raw data set.

Volumes are cut into blocks of 5 x 100 x 100 voxels (z y x), the patch of nnUNetTrainerDINeuro_paper; those with at
least 0.1 % of neuron voxels are kept. The blocks of one neuron stay on one side of every split. The published share is
not known; 0.1 % is our choice. For the layout of the folder see bigneuron.py.

example:
  python dataset_conversion/janelia.py gold166 --dataset-id 812 --output nnUNet_raw

"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bigneuron import SOURCE, gold_cases
from common import parser_for, run

BLOCK = (5, 100, 100)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    parser = parser_for(
        __doc__ or "",
        SOURCE,
        "Janelia",
        spacing=(1, 1, 1),
        unit="voxel",
        fix_orientation=True,
        mode="distance_binary",
        block=BLOCK,
        min_foreground=0.001,
    )
    parser.add_argument("data", type=Path, help="folder gold166")
    return run(parser, SOURCE, lambda args: gold_cases(args.data, "janelia"), argv)


if __name__ == "__main__":
    sys.exit(main())
