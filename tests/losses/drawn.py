"""Drawn trees, predictions with faults, the 48 orientations of a cube, and the published TASL as a plain graph."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import networkx as nx
import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import skeletonize

from nnunet_neurino.losses import TASL

SHAPE = (32, 32, 32)
RADII = [0.5, 1.0, 1.5, 2.5]
STRAIGHT = [((16, 16, 4), (16, 16, 27))]
BRANCHING = [((16, 16, 3), (16, 16, 28)), ((16, 16, 12), (16, 27, 20)), ((16, 16, 18), (6, 9, 26))]
TWO_NEURONS = [((9, 10, 4), (9, 10, 27)), ((22, 20, 4), (19, 23, 27)), ((21, 21, 14), (28, 10, 20))]
TREES = {"straight": STRAIGHT, "branching": BRANCHING, "two neurons": TWO_NEURONS}


def draw(segments, radius=1.5, shape=SHAPE):
    """Capsules (bool, z y x) around straight segments."""
    voxels = np.indices(shape).reshape(3, -1).T.astype(float)
    nearest = np.full(len(voxels), np.inf)
    for start, end in segments:
        a, b = np.array(start, float), np.array(end, float)
        along = np.clip((voxels - a) @ (b - a) / max((b - a) @ (b - a), 1e-9), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(voxels - a - along[:, None] * (b - a), axis=1))
    return (nearest <= radius).reshape(shape)


def random_tree(seed, shape=SHAPE, radius=1.5, segments=5):
    rng = np.random.default_rng(seed)
    ends = [rng.uniform(0.3, 0.7, 3) * shape]
    drawn = []
    for _ in range(segments):
        start = ends[rng.integers(len(ends))]
        end = np.clip(start + rng.normal(0, 0.25, 3) * shape, 2, np.array(shape) - 3)
        drawn.append((start, end))
        ends += [end, (start + end) / 2]
    return draw(drawn, radius, shape)


def probabilities(mask, inside=0.95, outside=0.05):
    return np.where(mask, inside, outside)


def to_logits(probability, dtype=torch.float32):
    """Two-class logits (1, 2, z, y, x) of a foreground probability."""
    half = torch.logit(torch.as_tensor(np.ascontiguousarray(probability), dtype=torch.float64)) / 2
    return torch.stack([-half, half])[None].to(dtype)


def to_target(mask):
    return torch.as_tensor(np.ascontiguousarray(mask))[None, None].long()


def orientations() -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """All flips and axis permutations."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            flips = tuple(slice(None, None, s) for s in signs)
            yield lambda a, order=order, flips=flips: np.ascontiguousarray(a.transpose(order)[flips])


def value_of(probability: np.ndarray, truth: np.ndarray, **settings: float) -> float:
    """The localised TASL of foreground probabilities (z, y, x)."""
    return float(TASL(**settings)(to_logits(probability), to_target(truth)))


def published_by_graph(predicted, truth, weights=(1.0, 0.5, 0.5), eps=1e-6):
    """The published TASL as its description says: two graphs of tube voxels, every pair of voxels compared."""
    graphs = [_tube_graph(m) for m in (predicted, truth)]
    points = [np.array(list(g.nodes), float).reshape(-1, 3) for g in graphs]
    node = edge = 0.0
    if len(points[0]) and len(points[1]):
        to_truth = _nearest(points[0], points[1])
        to_predicted = _nearest(points[1], points[0])
        node = 0.5 * (to_truth.mean() + to_predicted.mean())
    n_p, n_t = (g.number_of_edges() for g in graphs)
    if n_p and n_t:
        edge = abs(n_p - n_t) / (n_t + eps)
    path = 1.0
    if all(g.number_of_nodes() >= 2 for g in graphs):
        l_p, l_t = (np.mean([len(c) for c in nx.connected_components(g)]) for g in graphs)
        path = abs(l_p - l_t) / (l_t + eps)
    return weights[0] * node + weights[1] * edge + weights[2] * path


def _tube_graph(mask):
    graph = nx.Graph()
    if not mask.any():
        return graph
    skeleton = skeletonize(mask, method="lee") > 0
    tube = ndimage.binary_dilation(skeleton, ndimage.generate_binary_structure(3, 1)) & mask
    nodes = {tuple(map(int, v)) for v in np.argwhere(tube)}
    graph.add_nodes_from(nodes)
    steps = [s for s in itertools.product(range(-2, 3), repeat=3) if 0 < sum(c * c for c in s) <= 4]
    assert len(steps) == 32
    for node in nodes:
        for step in steps:
            other = tuple(a + b for a, b in zip(node, step, strict=True))
            if other in nodes:
                graph.add_edge(node, other)
    return graph


def _nearest(of, to):
    return np.array([np.sqrt(((to - point) ** 2).sum(1).min()) for point in of])
