"""The localised TASL: how well a prediction supports the truth's graph, with a gradient that lies on the fault."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from nnunet_neurino.losses.truth import Truth
from nnunet_neurino.skeleton.sections import SectionGraph

_FLOOR = 0.01
"""Below this probability the pull on a lost voxel fades, so that the loss stays bounded."""
_MARGIN = 0.5
"""A section of the truth counts as found from this mean probability on, a false voxel as gone below it."""
_SCALE = float(np.log((_MARGIN + _FLOOR) / _FLOOR))
_SHARPNESS = 10.0
"""How strictly the weakest section decides on a path."""
_KEY_WEIGHT = 2.0
"""Ends and branchings count as this many sections more."""


def graph_terms(truths: Sequence[Truth], p: Tensor, false: Tensor) -> Tensor:
    """Node, edge and path terms (3,), the mean over samples and classes.

    Each is the mean of a missing half (along the truth's graph) and a false half (along what was predicted beyond it).

    - node: mean error of the sections, ends and branchings counting more; false cable as a share of all.
    - edge: the weakest section of each unbranched run, weighted by the run's length; false loops.
    - path: the share of the cable that a gap separates from its neuron's root (the weakest section on the way
      decides); the share of the cable that a bridge joins to another neuron.

    All are 0 or greater. Node is at most 1. Edge and path are at most 1 + log(n) / 20 for n sections: the weakest of n
    is a smooth maximum, which counts many that are lost for a little more than one.

    Args:
        truths: the analysed classes of all samples.
        p: the probabilities of all their voxels in order.
        false: the false halves (3,), summed over ``truths``: each false voxel's charge times its error.
    """
    return (_missing_terms(truths, p) + false) / (2 * max(len(truths), 1))


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
    missing = error(support)

    counted = [1 + _KEY_WEIGHT * g.is_key for g in graphs]
    node = np.concatenate([c / max(c.sum(), t.reference_length) for c, t in zip(counted, truths, strict=True)])
    each = np.concatenate([np.full(t.graph.n_sections, 1 / t.reference_length) for t in truths])

    # Smooth maximum of the errors of a set: log(1 + sum(exp(s e) - 1)) / s; 0 for a set without an error.
    strain = torch.expm1(_SHARPNESS * missing)
    edge_offsets = np.cumsum([0, *(g.n_edges for g in graphs)])
    edge = np.concatenate([g.edge + o for g, o in zip(graphs, edge_offsets, strict=False)])
    per_edge = p.new_zeros(int(edge_offsets[-1])).index_add(0, _index(edge, p), strain)
    edge_length = np.bincount(edge, each)
    reach = _sum_to_root(strain, graphs, offsets)
    return torch.stack(
        [
            _constant(node, p) @ missing,
            _constant(edge_length, p) @ torch.log1p(per_edge) / _SHARPNESS,
            _constant(each, p) @ torch.log1p(reach) / _SHARPNESS,
        ]
    )


def _sum_to_root(values: Tensor, graphs: Sequence[SectionGraph], offsets: NDArray) -> Tensor:
    """Sum of ``values`` over each section and all sections between it and its root, in log2(depth) rounds.

    Where a section has several parents that nothing tells apart, the mean of their sums goes on.
    """
    parent = np.concatenate([np.where(g.parent < 0, -1, g.parent + o) for g, o in zip(graphs, offsets, strict=False)])
    also = np.concatenate([g.also + o for g, o in zip(graphs, offsets, strict=False)])
    if len(also):
        return _sum_over_all_ways(values, parent, also)
    nowhere = len(parent)
    jump = np.append(np.where(parent < 0, nowhere, parent), nowhere)
    zero = values.new_zeros(1)
    while (jump != nowhere).any():
        values = values + torch.cat([values, zero]).index_select(0, _index(jump[:-1], values))
        jump = jump[jump]
    return values


def _sum_over_all_ways(values: Tensor, parent: NDArray, also: NDArray) -> Tensor:
    """The same with further parents ``also`` (m, 2): slower, as steps are matrices then."""
    n = len(parent)
    child = np.flatnonzero(parent >= 0)
    rows, columns = np.concatenate([np.stack([child, parent[child]], 1), also]).T
    step = sparse.csr_matrix((1 / np.bincount(rows, minlength=n)[rows], (rows, columns)), shape=(n, n))
    while step.nnz:
        taken = step.tocoo()
        share = values.index_select(0, _index(taken.col, values)) * _constant(taken.data, values)
        values = values.index_add(0, _index(taken.row, values), share)
        step = step @ step
    return values


def error(p: Tensor) -> Tensor:
    """0 from the margin on, 1 at probability 0; logarithmic in between, so that a confident mistake pulls hard."""
    return torch.relu((np.log(_MARGIN + _FLOOR) - torch.log(p.clamp_min(0) + _FLOOR)) / _SCALE)


def error_slope(p: Tensor) -> Tensor:
    """Derivative of :func:`error`."""
    return torch.where(p < _MARGIN, -1 / (_SCALE * (p.clamp_min(0) + _FLOOR)), 0)


def _constant(values: NDArray, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=like.dtype).to(like.device)


def _index(values: NDArray, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.long).to(like.device)
