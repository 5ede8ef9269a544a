"""One function for every tracer: our own and the external ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.swc import Tree, to_micrometres
from nnunet_neurino.tracing.external import EXTERNAL, trace_external
from nnunet_neurino.tracing.settings import TraceSettings
from nnunet_neurino.tracing.tracer import trace

OWN = "neurino"
TRACERS: tuple[str, ...] = (OWN, *(tracer.name for tracer in EXTERNAL))


def trace_with(
    tracer: str,
    volume: NDArray,
    spacing: Sequence[float] = (1, 1, 1),
    image: NDArray | None = None,
    settings: TraceSettings | None = None,
    timeout: float = 3600.0,
) -> Tree:
    """Trace with the tracer of that name (see ``TRACERS``).

    External tracers get the mask or probability map alone: ``image`` and all settings but the unit are for our own.

    Args:
        tracer: "neurino" or the name of an external one.
        volume: (z, y, x) mask, or probabilities from 0 to 1.
        spacing: voxel size (z, y, x) in micrometres.
        image: (z, y, x) raw image.
        settings: of our own tracer.
        timeout: seconds that an external program may take.
    """
    if tracer == OWN:
        return trace(volume, spacing, image, settings)
    tree = trace_external(tracer, np.asarray(volume), spacing, timeout)
    return to_micrometres(tree, spacing) if settings is not None and settings.unit == "micrometre" else tree
