"""Voxel skeletons and their graphs: one implementation for the loss, the tracer and the scores."""

from nnunet_neurino.skeleton.components import label_components
from nnunet_neurino.skeleton.graph import SkeletonGraph, graph_of_skeleton, skeleton_graph
from nnunet_neurino.skeleton.thinning import skeletonise

__all__ = ["SkeletonGraph", "graph_of_skeleton", "label_components", "skeleton_graph", "skeletonise"]
