"""Where a prediction adds cable that is not there: false pieces, false loops and bridges. No gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.losses.truth import Truth
from nnunet_neurino.skeleton.components import label_components

_END = 1.0
"""A false piece that hangs on a neuron costs its length and, for the end it adds, this many sections."""
_ISLAND = 16.0
"""One that touches no neuron costs this many: however small, it is one component too many."""


@dataclass(frozen=True)
class FalseVoxels:
    """Voxels predicted beyond the truth, and how much each adds to the three terms at probability 1."""

    flat: NDArray[np.int32]
    """Number of each voxel (n,) in C order of the volume."""
    kind: NDArray[np.int32]
    """Column of ``charge`` that holds for each voxel (n,)."""
    charge: NDArray[np.float32]
    """What a voxel of each kind adds to the node, edge and path terms (3, kinds)."""


def find_false_voxels(predicted: NDArray[np.bool_], truth: Truth) -> FalseVoxels:
    """Charge every component of the falsely predicted voxels for what it does to the truth's graph.

    A component that lies at the truth's surface only is thickness and free. Beyond it, its volume in units of the
    truth's cross-section is false length (node term), each superfluous contact with the same neuron is a false edge
    (edge term), and one that touches several true components joins them: it is charged with the length of all but
    the longest (path term). The charge is spread over the voxels that do the damage: those off the surface, and those
    beside two components at once.

    Args:
        predicted: voxels predicted to be of the class (z, y, x).
        truth: the analysed truth.
    """
    false = predicted > truth.mask
    if truth.valid is not None:
        false &= truth.valid
    labels, n = label_components(false)
    if n == 0:
        return FalseVoxels(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((3, 0), np.float32))
    around, critical = labels.ravel(), false.ravel()  # ``critical`` takes the place of ``false``: memory
    critical &= truth.rim == 0
    n_far = np.bincount(around[critical], minlength=n + 1)
    touched, contacts, joined = _contacts(labels, n, truth)
    critical[truth.contested] = around[truth.contested] > 0
    # A bridge across a cleft of two voxels has no voxel off both surfaces: then all of it is critical.
    all_critical = (np.bincount(around[critical], minlength=n + 1) == 0) & (joined > 0)
    if all_critical.any():
        critical |= all_critical[around]
    n_critical = np.maximum(np.bincount(around[critical], minlength=n + 1), 1)

    reference = truth.reference_length
    length = np.where(n_far > 0, np.where(touched > 0, _END, _ISLAND) + n_far / truth.section_size, 0.0)
    extra = np.where(n_far > 0, contacts, 0)
    far = np.stack(
        [
            length / np.maximum(n_far, 1) / (reference + length.sum()),
            extra / n_critical / (truth.graph.n_edges + 1 + extra.sum()),
            joined / n_critical / max(reference, joined.sum()),
        ]
    ).astype(np.float32)
    at_surface = far.copy()
    at_surface[0] = 0
    flat = np.flatnonzero(critical).astype(np.int32)
    kind = around[flat].astype(np.int32)
    kind[truth.rim[flat] > 0] += n + 1
    return FalseVoxels(flat, kind, np.concatenate([far, at_surface], 1))


def _contacts(
    labels: NDArray, n: int, truth: Truth
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each false piece: neurons touched, superfluous contacts, length joined to the longest neuron it touches."""
    around = labels.ravel()
    at_rim = (around > 0) & (truth.rim > 0)
    where = np.flatnonzero(at_rim)
    n_true = len(truth.component_lengths)
    key = around[where].astype(np.int64) * n_true + truth.rim[where]
    if len(truth.contested):
        piece = around[truth.contested].astype(np.int64)
        key = np.concatenate([key, (piece * n_true + truth.contested_by)[piece > 0]])
    pairs = np.unique(key)
    piece, component = pairs // n_true, pairs % n_true
    touched = np.bincount(piece, minlength=n + 1)
    lengths = truth.component_lengths[component].astype(float)
    longest = np.zeros(n + 1)
    np.maximum.at(longest, piece, lengths)
    joined = np.bincount(piece, lengths, n + 1) - longest

    patches, n_patches = label_components(at_rim.reshape(labels.shape))
    of_patch = np.zeros(n_patches + 1, np.int64)
    of_patch[patches.ravel()[where]] = around[where]
    n_contacts = np.bincount(of_patch[1:], minlength=n + 1)
    return touched, np.maximum(n_contacts - np.maximum(touched, 1), 0), joined
