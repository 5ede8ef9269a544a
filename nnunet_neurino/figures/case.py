"""What is known of one case and can be drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.skeleton import skeletonise
from nnunet_neurino.swc import Tree, centre_voxels, share_inside
from nnunet_neurino.swc.edges import MAX_VOXELS

_LONGEST = 2e6  # voxels of cable that are compared in some seconds


@dataclass(frozen=True, eq=False)
class CaseView:
    """One case to look at; everything but one of the volumes or trees may be missing."""

    name: str  # shown as the title
    image: NDArray | None = None  # raw voxels (z, y, x), any number type
    truth: NDArray | None = None  # mask (z, y, x), non-zero is neuron
    prediction: NDArray | None = None  # mask (z, y, x), non-zero is neuron
    truth_tree: Tree | None = None  # in voxels of the image (x, y, z), or micrometres with ``spacing``
    tree: Tree | None = None  # the tree traced from the prediction; same units
    # voxel size z, y, x in micrometres; None when unknown (then voxels are cubes and there is no scale bar)
    spacing: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        for what in ("image", "truth", "prediction"):
            volume = getattr(self, what)
            if volume is None:
                continue
            if volume.ndim != 3 or volume.size == 0:
                raise NeurinoError(f"{self.name}: {what} of shape {volume.shape}: expected one stack (z, y, x)")
            if volume.shape != self.shape:
                raise NeurinoError(
                    f"{self.name}: {what} has shape {volume.shape}, the other volumes {self.shape} (z, y, x): "
                    "give stacks of the same voxels"
                )
        if self.spacing is not None and not (len(self.spacing) == 3 and min(self.spacing) > 0):
            raise NeurinoError(f"{self.name}: spacing {self.spacing}: expected three sizes z, y, x, all above 0")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x: of a volume, else so many that the trees have room."""
        for volume in (self.image, self.truth, self.prediction):
            if volume is not None:
                return volume.shape
        points = [self.in_voxels(tree) for tree in (self.truth_tree, self.tree) if tree is not None and len(tree)]
        if not points:
            raise NeurinoError(f"{self.name}: nothing to draw: give an image, a mask or a tree with nodes")
        far = np.maximum(np.ceil(np.concatenate(points).max(axis=0)).astype(int) + 3, 4)
        return int(far[2]), int(far[1]), int(far[0])

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Voxel size z, y, x, in micrometres or, when the spacing is unknown, 1."""
        return self.spacing or (1.0, 1.0, 1.0)

    def in_voxels(self, tree: Tree) -> NDArray[np.float64]:
        """Nodes of a tree (n, 3), x, y, z, in voxels."""
        if tree.unit != "micrometre":
            return tree.xyz
        if self.spacing is None:
            raise NeurinoError(
                f"{self.name}: the tree is in micrometres, the voxel size is unknown: give --spacing Z Y X"
            )
        return np.asarray(tree.xyz / np.array(self.spacing[::-1]))

    def _longest_cable(self) -> float:
        """Voxels of the longer tree's centre line."""
        trees = [tree for tree in (self.truth_tree, self.tree) if tree is not None]
        return max(float(np.abs(np.diff(self.in_voxels(t)[t.edges()], axis=1)).max(axis=2).sum()) for t in trees)

    def doubts(self) -> list[str]:
        """What looks wrong though it can be drawn: a line for each tree that mostly lies outside the volumes."""
        if self.image is None and self.truth is None and self.prediction is None:
            return []
        found = []
        for what, tree in (("true tree", self.truth_tree), ("traced tree", self.tree)):
            if tree is None or len(tree) == 0:
                continue
            outside = 1 - share_inside(replace(tree, xyz=self.in_voxels(tree), unit="voxel"), self.shape)
            if outside <= 0.5:
                continue
            line = f"{self.name}: {round(outside * len(tree))} of {len(tree)} nodes of the {what} lie outside the image"
            if tree.unit != "micrometre" and self.spacing is not None:
                as_micrometres = 1 - share_inside(replace(tree, unit="micrometre"), self.shape, self.spacing)
                if as_micrometres <= outside / 2:
                    line += "; they would lie inside if they were micrometres"
            found.append(line)
        return found

    def cables(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Voxels (n, 3; z, y, x) of the centre lines of truth and prediction; None where one of them is missing.

        They are those of the tree where there is one, else the mask's skeleton.
        """
        pairs = (self.truth_tree, self.truth), (self.tree, self.prediction)
        if any(tree is None and mask is None for tree, mask in pairs):
            return None
        alone = self.image is None and self.truth is None and self.prediction is None
        if alone and (math.prod(self.shape) > MAX_VOXELS or self._longest_cable() > _LONGEST):
            raise NeurinoError(
                f"{self.name}: the trees reach to {self.shape[::-1]} voxels (x y z): expected voxels, or micrometres "
                "and --spacing Z Y X"
            )
        true, predicted = (
            np.argwhere(skeletonise(np.asarray(mask) != 0))
            if tree is None
            else centre_voxels(tree, self.shape, self.voxel_size)
            for tree, mask in pairs
        )
        return true, predicted
