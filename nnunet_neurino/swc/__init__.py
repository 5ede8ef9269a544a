"""SWC neurons: read, check, mend, resample, rasterise, write. One :class:`Tree` type for the whole package."""

from nnunet_neurino.findings import Finding
from nnunet_neurino.swc.geometry import flip, flip_y, from_one_based, share_inside, shift, to_micrometres, to_voxels
from nnunet_neurino.swc.rasterise import MODES, centre_voxels, distance_band, rasterise
from nnunet_neurino.swc.read import inspect_swc, read_swc
from nnunet_neurino.swc.repair import portable_types, repair_radii
from nnunet_neurino.swc.shape import crop, prune, resample, sections
from nnunet_neurino.swc.touching import merge_touching
from nnunet_neurino.swc.tree import UNITS, Tree, Unit, join_trees, parents_first, take
from nnunet_neurino.swc.write import write_pieces, write_swc

__all__ = [
    "MODES",
    "UNITS",
    "Finding",
    "Tree",
    "Unit",
    "centre_voxels",
    "crop",
    "distance_band",
    "flip",
    "flip_y",
    "from_one_based",
    "inspect_swc",
    "join_trees",
    "merge_touching",
    "parents_first",
    "portable_types",
    "prune",
    "rasterise",
    "read_swc",
    "repair_radii",
    "resample",
    "sections",
    "share_inside",
    "shift",
    "take",
    "to_micrometres",
    "to_voxels",
    "write_pieces",
    "write_swc",
]
