"""How a mask becomes trees: every number that tracing decides by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nnunet_neurino.errors import NeurinoError


@dataclass(frozen=True)
class TraceSettings:
    """Settings of :func:`nnunet_neurino.tracing.trace`.

    Lengths are in voxels of the finest axis: with voxels of 2.5 x 1 x 1 micrometres a length of 4 is 4 micrometres.

    Attributes:
        low, high: thresholds of a probability map (0 to 1): everything above ``low`` that is connected to something
            above ``high`` is foreground. Tune them on validation cases.
        min_voxels: connected components with fewer voxels are noise.
        min_length: pieces with less cable after bridging are noise (the longest piece always stays).
        bridge_length: longest gap to bridge; 0 switches bridging off.
        bridge_angle: greatest angle in degrees between a neurite's end and the bridge.
        bridge_evidence: with an image or a probability map, the brightness that a bridge must have on average, from
            0 (background) to 1 (the neurite on its two sides).
        split_crossings: take two neurites apart that merely cross (each goes straight on, and the pieces are long).
        neurons: how many neurons there are, if that is known: of one, nothing is taken apart, and pieces that are left
            over are joined to the nearest ones, up to twice ``bridge_length`` away, until so many are left.
        prune: a side branch is a spur when it sticks out of its parent by less than ``prune`` times its radius.
        smooth: rounds of smoothing of the centre line.
        node_spacing: distance between nodes of the result; 0 keeps the nodes as traced.
        root: voxel (z, y, x) near which the root of its neuron is to be; ``None``: the thickest place.
        unit: unit of the result, "voxel" or "micrometre" (needs the voxel size).
    """

    low: float = 0.35
    high: float = 0.5
    min_voxels: int = 8
    min_length: float = 10.0
    bridge_length: float = 10.0
    bridge_angle: float = 50.0
    bridge_evidence: float = 0.15
    split_crossings: bool = True
    neurons: int | None = None
    prune: float = 1.0
    smooth: int = 2
    node_spacing: float = 0.0
    root: tuple[float, float, float] | None = None
    unit: Literal["voxel", "micrometre"] = "voxel"

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise NeurinoError(
                f"thresholds {self.low} and {self.high}: expected 0 <= low <= high <= 1; swap or correct them"
            )
        for name in ("bridge_angle",):
            if not 0 < getattr(self, name) < math.inf:
                raise NeurinoError(f"{name} {getattr(self, name)}: expected a number above 0")
        for name in ("min_voxels", "min_length", "bridge_length", "prune", "smooth", "node_spacing"):
            if not 0 <= getattr(self, name) < math.inf:
                raise NeurinoError(f"{name} {getattr(self, name)}: expected 0 or more")
        if self.neurons is not None and self.neurons < 1:
            raise NeurinoError(f"neurons {self.neurons}: expected 1 or more")
        if self.root is not None and not (len(self.root) == 3 and all(map(math.isfinite, self.root))):
            raise NeurinoError(f"root {tuple(self.root)}: expected three numbers z, y, x in voxels")
        if self.unit not in ("voxel", "micrometre"):
            raise NeurinoError(f"unit {self.unit!r}: expected voxel or micrometre")
