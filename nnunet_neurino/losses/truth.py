"""What the localised loss needs to know of the truth: its cross-sections and what lies beside it. No gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.skeleton.components import label_components
from nnunet_neurino.skeleton.sections import SectionGraph, section_graph


@dataclass(frozen=True)
class Truth:
    """One class of one sample, analysed. Voxels are numbered in C order of the volume (z, y, x)."""

    mask: NDArray[np.bool_]
    """The class (z, y, x), ignored voxels off."""
    valid: NDArray[np.bool_] | None
    """Voxels that count (z, y, x); None where all do."""
    graph: SectionGraph
    flat: NDArray[np.int64]
    """Number of each mask voxel in the volume (n,)."""
    share: NDArray[np.float64]
    """Share of each mask voxel in its section's mean (n,); deep voxels count more. Sums to 1 in each section."""
    component_lengths: NDArray[np.int64]
    """Sections of each component; entry 0 is 0."""
    rim: NDArray[np.unsignedinteger]
    """Component (from 1) beside each voxel outside the mask, 0 elsewhere; as one flat array."""
    contested: NDArray[np.int64]
    """Voxels beside two components or more, one entry for each further component..."""
    contested_by: NDArray[np.int64]
    """...and the further component."""

    @property
    def section_size(self) -> float:
        """Mean number of voxels of a cross-section; 9 where there is no truth."""
        return len(self.flat) / self.graph.n_sections if self.graph.n_sections else 9.0

    @property
    def reference_length(self) -> float:
        """What missing and false lengths are divided by: the truth's sections, at the least one patch width."""
        return max(float(self.graph.n_sections), float(self.mask.size) ** (1 / 3))


def analyse_truth(mask: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None) -> Truth:
    """Cross-sections, components and surroundings of one class.

    Args:
        mask: the class (z, y, x).
        valid: voxels that count (z, y, x); None where all do.
    """
    if valid is not None:
        mask = mask & valid
    labels, n_components = label_components(mask)
    graph = section_graph(mask, labels)
    flat = np.flatnonzero(mask)
    depth = graph.core**2
    share = depth / np.maximum(np.bincount(graph.section, depth, graph.n_sections), 1e-12)[graph.section]
    label = labels.ravel()[flat].astype(np.min_scalar_type(n_components))
    of_section = np.zeros(graph.n_sections, np.int64)
    of_section[graph.section] = label
    lengths = np.bincount(of_section, minlength=n_components + 1)
    rim, contested, by = _surroundings(mask, flat, label)
    return Truth(mask, valid, graph, flat, share, lengths, rim, contested, by)


def _surroundings(
    mask: NDArray[np.bool_], flat: NDArray, label: NDArray
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64], NDArray[np.int64]]:
    shape = tuple(s + 2 for s in mask.shape)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    steps = (np.indices((3, 3, 3)).reshape(3, -1).T - 1) @ strides
    padded = (np.stack(np.unravel_index(flat, mask.shape), 1) + 1) @ strides
    rim = np.zeros(int(np.prod(shape)), label.dtype)
    beside = padded[:, None] + steps[None]
    rim[beside] = label[:, None]
    differs = rim[beside] != label[:, None]
    blocked = np.ones(shape, bool)
    blocked[1:-1, 1:-1, 1:-1] = mask
    blocked = blocked.ravel()
    rim[blocked] = 0
    rim = rim.reshape(shape)[1:-1, 1:-1, 1:-1].ravel()
    row, step = np.nonzero(differs)
    position = beside[row, step]
    inside = ~blocked[position]
    key = np.unique(np.stack([position[inside], label[row[inside]]]), axis=1) if inside.any() else np.zeros((2, 0), int)
    unpadded = np.stack(np.unravel_index(key[0], shape), 1) - 1
    contested = np.ravel_multi_index(tuple(unpadded.T), mask.shape) if key.shape[1] else np.zeros(0, np.int64)
    return rim, contested, key[1].astype(np.int64)
