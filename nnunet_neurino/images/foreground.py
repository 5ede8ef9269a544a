"""What counts as neurite: a mask as it is, a probability map by hysteresis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nnunet_neurino.errors import NeurinoError

MOST_LABELS = 20  # whole numbers up to this are labels, more of them an 8-bit probability map
# A probability map has at most this share of voxels above 0.1, and of these at least this share above 0.9.
_MOST_POSSIBLE, _LEAST_CERTAIN = 0.2, 0.05
_ROUNDING = 1e-3  # by which probabilities may leave 0 to 1 when they were computed or resampled


def foreground(volume: NDArray, low: float, high: float, name: str = "the mask") -> tuple[NDArray[np.bool_], str]:
    """Make a mask of a mask or a probability map.

    Args:
        volume: (z, y, x). Two different values at most, or whole numbers up to 20: a mask (or label image) whose
            foreground is everything above 0. Numbers between 0 and 1: probabilities. Other 8-bit numbers: probabilities
            times 255.
        low, high: everything above ``low`` that is connected (26 neighbours) to something above ``high`` is
            foreground.
        name: what messages call the volume.

    Returns:
        The mask, and a note if ``volume`` was taken for a probability map (else "").

    Raises:
        NeurinoError: not three axes, no voxels, NaN, or other values.
    """
    if volume.ndim != 3:
        raise NeurinoError(f"{name}: {volume.ndim} axes {volume.shape}; expected z, y, x: pick one channel")
    if not volume.size:
        raise NeurinoError(f"{name}: no voxels; expected an image with z, y and x above 0")
    if volume.dtype == bool:
        return volume, ""
    if volume.dtype.kind not in "iuf":
        raise NeurinoError(f"{name}: voxels of type {volume.dtype}; expected a mask of 0 and 1")
    least, most = float(volume.min()), float(volume.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise NeurinoError(f"{name}: contains NaN or infinite values; expected a mask of 0 and 1, or probabilities")
    if least >= -_ROUNDING:
        whole = volume.dtype.kind in "iu" or bool((volume == np.rint(volume)).all())
        if (whole and most <= MOST_LABELS) or bool(((volume == 0) | (volume == most)).all()):
            return volume > 0, ""
        if most <= 1 + _ROUNDING or (whole and most <= 255):
            scale = 1.0 if most <= 1 + _ROUNDING else 255.0
            taken = f"values from {least:.3g} to {most:.3g} were taken for probabilities"
            taken += " times 255" if scale > 1 else ""
            limits = f"{high:g}" if low == high else f"{high:g} where connected down to {low:g}"
            return _hysteresis(volume, low * scale, high * scale), f"{taken}; foreground is above {limits}"
    raise NeurinoError(
        f"{name}: values from {least:.6g} to {most:.6g}; expected a mask (0 and 1, or labels up to {MOST_LABELS}) or "
        "probabilities (0 to 1, or 0 to 255): threshold the image first"
    )


def looks_raw(volume: NDArray) -> bool:
    """Whether an 8-bit volume is rather a raw image than a mask or a probability map.

    It has many values, and a probability map's are near 0 in most of the image and near 255 in some of the rest.
    """
    if volume.dtype != np.uint8 or not volume.size:
        return False
    counts = np.bincount(volume.ravel(), minlength=256)
    possible, certain = int(counts[26:].sum()), int(counts[230:].sum())
    many = np.count_nonzero(counts) > MOST_LABELS
    return bool(many and (possible > _MOST_POSSIBLE * volume.size or certain < _LEAST_CERTAIN * possible))


def _hysteresis(volume: NDArray, low: float, high: float) -> NDArray[np.bool_]:
    """Components above ``low`` (26 neighbours, as everywhere in tracing) that have something above ``high``."""
    certain = volume > high
    if low == high:
        return certain
    labels, count = ndimage.label(volume > low, np.ones((3, 3, 3), dtype=bool))
    wanted = np.zeros(count + 1, dtype=bool)
    wanted[labels[certain]] = True
    return wanted[labels]
