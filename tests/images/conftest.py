"""A stack that every format's tests write and read."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def voxels() -> np.ndarray:
    """(7, 5, 6) uint16, no two voxels alike (four planes would be taken for colours by the TIFF writer)."""
    return np.random.default_rng(0).permutation(7 * 5 * 6).reshape(7, 5, 6).astype(np.uint16) * 300
