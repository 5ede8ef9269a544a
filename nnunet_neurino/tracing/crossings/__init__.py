"""Crossings: where neurites of different neurons touch in the mask, and which of these places to take apart."""

from nnunet_neurino.tracing.crossings.parting import part_neurons

__all__ = ["part_neurons"]
