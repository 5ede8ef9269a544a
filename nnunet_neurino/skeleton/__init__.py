"""Voxel skeletons and graph primitives: one implementation for the trees, the loss, the tracer and the scores."""

from nnunet_neurino.skeleton.components import label_components
from nnunet_neurino.skeleton.thinning import skeletonise

__all__ = ["label_components", "skeletonise"]
