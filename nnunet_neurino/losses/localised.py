"""The localised TASL: how well a prediction supports the truth's graph, with a gradient that lies on the fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_neurino.losses.faults import FalseVoxels
from nnunet_neurino.losses.truth import Truth

_FLOOR = 0.01
"""Below this probability the pull on a lost voxel fades, so that the loss stays bounded."""
_MARGIN = 0.5
"""A section of the truth counts as found from this mean probability on, a false voxel as gone below it."""
_SHARPNESS = 10.0
"""How strictly the weakest section decides on a path."""
_KEY_WEIGHT = 2.0
"""Ends and branchings count as this many sections more."""


@dataclass(frozen=True)
class Graded:
    """One class of one sample: truth and false voxels, and where they lie in the batch."""

    sample: int
    class_: int
    truth: Truth
    false: FalseVoxels


def graph_terms(parts: Sequence[Graded], p: Tensor) -> Tensor:
    """Node, edge and path terms (3,), the mean over samples and classes.

    Each is the mean of a missing half (along the truth's graph) and a false half (along what was predicted beyond it).

    - node: mean error of the sections, ends and branchings counting more; false cable as a share of all.
    - edge: the weakest section of each unbranched run, weighted by the run's length; false loops.
    - path: the share of the cable that a gap separates from its neuron's root (the weakest section on the way
      decides); the share of the cable that a bridge joins to another neuron.

    Args:
        parts: what was analysed.
        p: for each part the probabilities of the truth's voxels, then those of the false voxels.
    """
    lengths = [n for part in parts for n in (len(part.truth.flat), len(part.false.flat))]
    pieces = p.split(lengths)
    missing = _missing_terms([part.truth for part in parts], torch.cat(pieces[::2]) if parts else p)
    total = missing
    for part, found in zip(parts, pieces[1::2], strict=True):
        total = total + _constant(part.false.charge, p) @ _error(1 - found)
    return total / (2 * max(len(parts), 1))


def _missing_terms(truths: Sequence[Truth], p: Tensor) -> Tensor:
    """The missing halves (3,), summed over ``truths``; ``p`` are the probabilities of all their voxels in order."""
    graphs = [t.graph for t in truths]
    offsets = np.cumsum([0, *(g.n_sections for g in graphs)])
    n = int(offsets[-1])
    if n == 0:
        return p.new_zeros(3)
    section = np.concatenate([g.section + o for g, o in zip(graphs, offsets, strict=False)])
    share = np.concatenate([t.share for t in truths])
    support = p.new_zeros(n).index_add(0, _index(section, p), p * _constant(share, p))
    error = _error(support)

    counted = [1 + _KEY_WEIGHT * g.is_key for g in graphs]
    node = np.concatenate([c / max(c.sum(), t.reference_length) for c, t in zip(counted, truths, strict=True)])
    each = np.concatenate([np.full(t.graph.n_sections, 1 / t.reference_length) for t in truths])

    # Smooth maximum of the errors of a set: log(1 + sum(exp(s e) - 1)) / s; 0 for a set without an error.
    strain = torch.expm1(_SHARPNESS * error)
    edge_offsets = np.cumsum([0, *(g.n_edges for g in graphs)])
    edge = np.concatenate([g.edge + o for g, o in zip(graphs, edge_offsets, strict=False)])
    per_edge = p.new_zeros(int(edge_offsets[-1])).index_add(0, _index(edge, p), strain)
    edge_length = np.bincount(edge, each)
    reach = _sum_to_root(strain, graphs, offsets)
    return torch.stack(
        [
            _constant(node, p) @ error,
            _constant(edge_length, p) @ torch.log1p(per_edge) / _SHARPNESS,
            _constant(each, p) @ torch.log1p(reach) / _SHARPNESS,
        ]
    )


def _sum_to_root(values: Tensor, graphs: Sequence, offsets: NDArray) -> Tensor:
    """Sum of ``values`` over each section and all sections between it and its root, in log2(depth) rounds."""
    nowhere = int(offsets[-1])
    parents = [np.where(g.parent < 0, nowhere, g.parent + o) for g, o in zip(graphs, offsets, strict=False)]
    jump = np.concatenate([*parents, [nowhere]])
    zero = values.new_zeros(1)
    while (jump != nowhere).any():
        values = values + torch.cat([values, zero]).index_select(0, _index(jump[:-1], values))
        jump = jump[jump]
    return values


def _error(p: Tensor) -> Tensor:
    """0 from the margin on, 1 at probability 0; logarithmic in between, so that a confident mistake pulls hard."""
    scale = float(np.log((_MARGIN + _FLOOR) / _FLOOR))
    return torch.relu((np.log(_MARGIN + _FLOOR) - torch.log(p.clamp_min(0) + _FLOOR)) / scale)


def _constant(values: NDArray, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype).to(like.device)


def _index(values: NDArray, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.long).to(like.device)
