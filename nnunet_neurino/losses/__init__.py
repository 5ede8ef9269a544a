"""Losses that see the neuron's graph. Plain ``nn.Module``s, for any trainer."""

from nnunet_neurino.losses.combine import WithTASL
from nnunet_neurino.losses.tasl import PUBLISHED_WEIGHTS, TASL

__all__ = ["PUBLISHED_WEIGHTS", "TASL", "WithTASL"]
