"""What the image says about a gap: the brightest way across, and how bright it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.graph import route_through_array

from nnunet_neurino.tracing.lines import Floats

_MARGIN = 3  # voxels around the straight line in which the way may run


@dataclass(frozen=True)
class Evidence:
    """Brightness between pieces.

    Attributes:
        image: (z, y, x) intensities or probabilities; what is not finite counts as background.
        background: typical value beside the neurites.
        scale: (3,) size of a voxel z, y, x in the unit of the positions.
    """

    image: NDArray
    background: float
    scale: Floats

    @classmethod
    def of(cls, image: NDArray, mask: NDArray[np.bool_], scale: Floats) -> Evidence:
        """Take the median of the background, seen at up to a million voxels, for its typical value."""
        every = max(image.size // 1_000_000, 1)
        sample = image.ravel()[::every][~mask.ravel()[::every]]
        sample = sample[np.isfinite(sample)]
        return cls(image, float(np.median(sample)) if len(sample) else 0.0, scale)

    def path(self, start: Floats, goal: Floats) -> tuple[Floats, float]:
        """The brightest way from ``start`` to ``goal`` and its brightness.

        Returns:
            Positions (n, 3) from start to goal, and the weakest three-voxel mean of the way's brightness between the
            two ends, 0 being the background and 1 the darker of the two ends.
        """
        ends = np.stack([start, goal]) / self.scale
        size = np.array(self.image.shape)
        low = np.maximum(np.floor(ends.min(axis=0)).astype(int) - _MARGIN, 0)
        high = np.minimum(np.ceil(ends.max(axis=0)).astype(int) + _MARGIN + 1, size)
        box = self.image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].astype(np.float64)
        voxels = np.clip(np.rint(ends).astype(int), 0, size - 1) - low
        box[~np.isfinite(box)] = self.background  # a cost that is no number would make the search write anywhere
        at_ends = [_bright(box, v) for v in voxels]
        contrast = max(min(at_ends) - self.background, 1e-12)
        relative = np.clip((box - self.background) / contrast, 0.0, 1.0)
        way, _ = route_through_array(
            1.0 / (0.05 + relative), tuple(voxels[0]), tuple(voxels[1]), fully_connected=True, geometric=True
        )
        values = np.array([relative[place] for place in way])
        places = (np.array(way, dtype=np.float64) + low) * self.scale
        places[0], places[-1] = start, goal
        if len(values) > 4:
            values = np.convolve(values, np.ones(3) / 3, mode="valid")
        return _thin_out(places), float(values.min())


def _bright(box: NDArray, voxel: NDArray) -> float:
    around = tuple(slice(max(v - 1, 0), v + 2) for v in voxel)
    return float(np.percentile(box[around], 75))


def _thin_out(places: Floats) -> Floats:
    """Ends and every second position between, averaged with its neighbours: voxel steps are jagged."""
    if len(places) < 4:
        return places[[0, -1]]
    means = (places[:-2] + places[1:-1] + places[2:]) / 3
    return np.concatenate([places[:1], means[1:-1:2], places[-1:]])
