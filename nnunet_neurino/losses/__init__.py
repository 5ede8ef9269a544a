"""Losses that see the neuron's graph, and nnU-Net's own in portions. Plain ``nn.Module``s, for any trainer."""

from nnunet_neurino.losses.combine import WithTASL
from nnunet_neurino.losses.portioned import PortionedDiceCE
from nnunet_neurino.losses.tasl import PUBLISHED_WEIGHTS, TASL

__all__ = ["PUBLISHED_WEIGHTS", "TASL", "PortionedDiceCE", "WithTASL"]
