"""SWC neurons: read, check, mend, resample, rasterise, write. One :class:`Tree` type for the whole house."""

from nnunet_neurino.swc.rasterise import MODES, distance_band, rasterise
from nnunet_neurino.swc.read import inspect_swc, read_swc
from nnunet_neurino.swc.tree import UNITS, Finding, Tree, Unit
from nnunet_neurino.swc.write import write_swc

__all__ = [
    "MODES",
    "UNITS",
    "Finding",
    "Tree",
    "Unit",
    "distance_band",
    "inspect_swc",
    "rasterise",
    "read_swc",
    "write_swc",
]
