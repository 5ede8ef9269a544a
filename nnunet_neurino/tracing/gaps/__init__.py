"""Gaps: where a neurite plainly goes on behind one, and the bridge across it."""

from nnunet_neurino.tracing.gaps.bridge import bridge_gaps
from nnunet_neurino.tracing.gaps.evidence import Evidence
from nnunet_neurino.tracing.gaps.nearest import join_nearest

__all__ = ["Evidence", "bridge_gaps", "join_nearest"]
