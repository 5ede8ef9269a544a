"""Scores: voxels, topology, trees, cable length, connectivity; one case, a data set, two methods."""

from nnunet_neurino.metrics.connectivity import connectivity_scores, tree_connectivity_scores
from nnunet_neurino.metrics.length import length_scores, tree_counts
from nnunet_neurino.metrics.neuron_distance import neuron_distance
from nnunet_neurino.metrics.topology import betti_numbers, topology_scores
from nnunet_neurino.metrics.voxel import surface_distance, voxel_scores

__all__ = [
    "betti_numbers",
    "connectivity_scores",
    "length_scores",
    "neuron_distance",
    "surface_distance",
    "topology_scores",
    "tree_connectivity_scores",
    "tree_counts",
    "voxel_scores",
]
