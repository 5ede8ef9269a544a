"""What is known of one case and can be drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import Tree, rasterise, share_inside


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

    def truth_mask(self) -> NDArray[np.bool_] | None:
        """The true mask: as given, else drawn from the true tree."""
        return self._mask(self.truth, self.truth_tree)

    def predicted_mask(self) -> NDArray[np.bool_] | None:
        """The predicted mask: as given, else drawn from the traced tree."""
        return self._mask(self.prediction, self.tree)

    def _mask(self, volume: NDArray | None, tree: Tree | None) -> NDArray[np.bool_] | None:
        if volume is not None:
            return np.asarray(volume) != 0
        if tree is None:
            return None
        return np.asarray(rasterise(tree, self.shape, spacing=self.voxel_size)).astype(bool)
