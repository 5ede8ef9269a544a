"""The BigNeuron gold set (gold166) -> an nnU-Net raw data set.

Unpack the release. Expected is a folder for each contributing laboratory and in it a folder for each neuron with
one stack and one manual tracing:

  gold166/p_checked7_taiwan_flycirciut/NEURON/NEURON.v3dpbd  .../NEURON.v3dpbd_...swc

A neuron with several tracings is refused with their names: leave the manual one there. The voxel size differs from
laboratory to laboratory and is not in the files; the published networks work on voxels as they are, which is the
default here. Vaa3D's y axis points up in some tracings: --fix-orientation is on.

example:
  python dataset_conversion/bigneuron.py gold166 --subset drosophila --dataset-id 811 --output nnUNet_raw

"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import subdirs
from common import Source, parser_for, run

from nnunet_neurino.conversion import Case, find_cases
from nnunet_neurino.conversion.names import case_name, stacks_in
from nnunet_neurino.conversion.pairing import refuse_duplicates
from nnunet_neurino.errors import NeurinoError

SOURCE = Source(
    "https://github.com/BigNeuron/Data/releases",
    "Manubens-Gil et al., BigNeuron: a resource to benchmark and predict performance of algorithms for automated "
    "tracing of neurons in light microscopy datasets, Nature Methods 2023; Peng et al., BigNeuron, Neuron 2015",
    "see the release: laboratories keep their own terms",
)
#: Laboratories of each subset, by the names of their folders.
SUBSETS = {
    "all": r".",
    "drosophila": r"fly|taiwan|fruitfly",
    "mouse": r"mouse",
    "zebrafish": r"zebrafish",
    "human": r"human",
    "janelia": r"janelia",
}


def gold_cases(root: Path, subset: str) -> tuple[list[Case], list[str]]:
    """Cases of the laboratories of ``subset``, named LABORATORY_NEURON."""
    if not root.is_dir():
        raise NeurinoError(f"{root}: no such folder; unpack the release there")
    rule = re.compile(SUBSETS[subset], re.IGNORECASE)
    names = [name for name in subdirs(str(root), join=False) if rule.search(name)]
    laboratories = [root / name for name in names if stacks_in(root / name)]
    if not laboratories:
        raise NeurinoError(f"{root}: no folder of the subset {subset} with stacks in it; see --help for the layout")
    cases, notes = [], []
    for folder in laboratories:
        short = re.sub(r"^[a-z]_checked\d*_", "", folder.name)
        found, unused = find_cases(folder, folder)
        cases += [replace(case, name=case_name(f"{short}_{case.name}")) for case in found]
        notes += unused
    return refuse_duplicates(cases), notes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""
    defaults = {"spacing": (1, 1, 1), "unit": "voxel", "fix_orientation": True}
    parser = parser_for(__doc__ or "", SOURCE, "BigNeuron", **defaults)
    parser.add_argument("data", type=Path, help="folder gold166")
    parser.add_argument("--subset", choices=SUBSETS, default="all", help="laboratories to take (default: all)")
    return run(parser, SOURCE, lambda args: gold_cases(args.data, args.subset), argv)


if __name__ == "__main__":
    sys.exit(main())
