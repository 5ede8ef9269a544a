"""Cutting a volume into equal blocks that cover it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

Box = tuple[slice, slice, slice]


def block_boxes(shape: Sequence[int], block: Sequence[int], overlap: Sequence[int] = (0, 0, 0)) -> Iterator[Box]:
    """Boxes (z, y, x slices) of ``block`` voxels that cover a volume; neighbours share ``overlap`` voxels.

    The last block of an axis is moved back to end with the volume. An axis shorter than the block is taken whole.

    Examples:
        >>> [(box[2].start, box[2].stop) for box in block_boxes((1, 1, 10), (1, 1, 4), (0, 0, 1))]
        [(0, 4), (3, 7), (6, 10)]
    """
    starts = []
    for n, size, shared in zip(shape, block, overlap, strict=True):
        step, last = size - shared, max(0, n - size)
        starts.append([*range(0, last, step), last])
    for origin in itertools.product(*starts):
        yield tuple(slice(o, min(o + b, n)) for o, b, n in zip(origin, block, shape, strict=True))  # type: ignore[misc]
