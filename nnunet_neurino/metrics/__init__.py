"""Scores: voxels, topology, trees, cable length, connectivity; one case, a data set, two methods."""

from nnunet_neurino.metrics.connectivity import ConnectivityScores, connectivity_scores
from nnunet_neurino.metrics.length import LengthScores, TreeCounts, length_scores, tree_counts
from nnunet_neurino.metrics.neuron_distance import NeuronDistance, neuron_distance
from nnunet_neurino.metrics.topology import Betti, TopologyScores, betti_numbers, topology_scores
from nnunet_neurino.metrics.voxel import SurfaceDistance, VoxelScores, surface_distance, voxel_scores

__all__ = [
    "Betti",
    "ConnectivityScores",
    "LengthScores",
    "NeuronDistance",
    "SurfaceDistance",
    "TopologyScores",
    "TreeCounts",
    "VoxelScores",
    "betti_numbers",
    "connectivity_scores",
    "length_scores",
    "neuron_distance",
    "surface_distance",
    "topology_scores",
    "tree_counts",
    "voxel_scores",
]
