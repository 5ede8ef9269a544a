"""What counts as neurite: a mask as it is, a probability map by hysteresis, and a word about what it was taken for."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from skimage.filters import apply_hysteresis_threshold

from nnunet_neurino.errors import NeurinoError

_DENSE = 0.5  # a neurite mask that fills more of the image than this is no neurite mask


def foreground(volume: NDArray, low: float, high: float) -> tuple[NDArray[np.bool_], bool]:
    """Make a mask of a mask or a probability map.

    Args:
        volume: (z, y, x). Two different values at most, or whole numbers up to 20: a mask (or label image) whose
            foreground is everything above 0. Numbers between 0 and 1: probabilities. Other 8-bit images: probabilities
            times 255.
        low, high: everything above ``low`` that is connected to something above ``high`` is foreground.

    Returns:
        The mask, and whether ``volume`` was taken for a probability map.

    Raises:
        NeurinoError: not three axes, values that are neither, NaN, or nearly everything is foreground.
    """
    if volume.ndim != 3:
        raise NeurinoError(f"expected a mask with the axes z, y, x, got {volume.ndim} axes {volume.shape}; pick a channel")
    if not volume.size:
        raise NeurinoError("the mask has no voxels; expected an image with z, y and x above 0")
    mask, is_probability = _split(volume, low, high)
    share = np.count_nonzero(mask) / mask.size
    if share > _DENSE and mask.size > 1000:
        raise NeurinoError(
            f"{share:.0%} of the image is foreground: expected a mask of thin neurites; invert the mask or use "
            "higher thresholds"
        )
    return mask, is_probability


def _split(volume: NDArray, low: float, high: float) -> tuple[NDArray[np.bool_], bool]:
    if volume.dtype == bool:
        return volume, False
    least, most = float(volume.min()), float(volume.max())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise NeurinoError("the mask contains NaN or infinite values: expected 0 and 1, or probabilities")
    if np.issubdtype(volume.dtype, np.integer):
        if least >= 0 and (most <= 20 or _two_values(volume, most)):
            return volume > 0, False
        if least >= 0 and most <= 255:
            warnings.warn(
                f"values from {least:g} to {most:g} instead of 0 and 1: taken for a probability map times 255", stacklevel=4
            )
            return apply_hysteresis_threshold(volume, low * 255, high * 255), True
    elif least >= 0 and most <= 1 and not _two_values(volume, most):
        return apply_hysteresis_threshold(volume, low, high), True
    elif least >= 0 and (_two_values(volume, most) or (most <= 20 and bool((volume == np.rint(volume)).all()))):
        return volume > 0, False
    raise NeurinoError(
        f"values from {least:g} to {most:g} in {volume.dtype}: expected a mask (0 and 1, or labels up to 20) or a "
        "probability map (0 to 1, or 0 to 255 in 8 bits); threshold the image first"
    )


def _two_values(volume: NDArray, most: float) -> bool:
    """Whether nothing but 0 and one other value occurs."""
    return bool(((volume == 0) | (volume == most)).all())
