"""Does the tracing lie on bright voxels? Compare it with the seven flips, counting from 1, and the other unit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from nnunet_neurino.conversion.offset import find_offset
from nnunet_neurino.conversion.placement import Placement, inside_share
from nnunet_neurino.swc import Tree

_FLIPS = ("", "x", "y", "z", "xy", "xz", "yz", "xyz")
_MOST_POINTS = 6000
_SAMPLE = 2_000_000
# Consecutive voxels of a branch are no independent witnesses; about this many count as one.
_RUN = 12
# Chance of a mistake by which another placement must beat the stored one (16 to 32 of them are tried); two that
# differ only in counting from 0 or 1, neither of them the stored one, are told apart more readily. And the least
# difference that matters.
_DOUBT, _COUNT_DOUBT = 1e-4, 0.02
_SURE_GAIN = 0.01
# A tracing that lies on its neuron has at least this contrast; the worst of the real ones tried has 0.77.
_LEAST_CONTRAST = 0.6
_LEAST_INSIDE = 0.9
# Coordinates beyond this lie in no image; lengths would overflow.
_FAR = 1e6
# Weights of a voxel and its neighbours on an axis: the signal of a thin neurite, less noise.
_SMOOTH = np.array([0.25, 0.5, 0.25])


@dataclass(frozen=True)
class Alignment:
    """How well a tracing lies on its image as stored, and the placement that fits best.

    Contrast is the chance that a voxel under the tracing is brighter than a voxel anywhere in the image: 0.5 for a
    tracing that has nothing to do with the image, 1 for a perfect one.

    Attributes:
        stored: the placement that the file and the user declare.
        stored_contrast: its contrast.
        best: the placement with the highest contrast; ``stored`` unless another is better beyond doubt.
        best_contrast: its contrast.
        inside: share of the nodes inside the image as stored.
        clear: the image can tell: the best placement beats every other flip beyond doubt.
        runner_up: the next best flip and its contrast, when ``clear`` is false.
    """

    stored: Placement
    stored_contrast: float
    best: Placement
    best_contrast: float
    inside: float
    clear: bool
    runner_up: str = ""

    @property
    def differs(self) -> bool:
        """The stored placement is not the best one."""
        return self.best != self.stored


def check_alignment(
    image: np.ndarray, tree: Tree, spacing: Sequence[float] | None = None, unit: str | None = None
) -> Alignment:
    """Compare image intensity under the tracing for all flips, counting from 0 or 1, and both units.

    Args:
        image: (z, y, x).
        tree: the tracing as read, nothing applied.
        spacing: voxel size (z, y, x) in micrometres; None leaves micrometres out.
        unit: "voxel" or "micrometre" when it is known; None tries both when the tree does not say.

    Returns:
        The best placement. Of two that the image cannot tell apart the stored one, then the simpler one is taken.
    """
    shape = image.shape
    known = unit or (tree.unit if tree.unit != "unknown" else None)
    stored = Placement(micrometre=known == "micrometre" and spacing is not None)
    units = [stored.micrometre]
    if known is None and spacing is not None and tuple(spacing) != (1, 1, 1):
        units = [False, True]
    rank = _ranks(image)
    runs: dict[Placement, np.ndarray] = {}
    contrast: dict[Placement, float] = {}
    for micrometre in units:
        points, run = _points(tree, spacing if micrometre else None)
        for first, flips in itertools.product((0, 1), _FLIPS):
            placement = Placement(micrometre, first, flips)
            if placement != stored and _impossible(placement, tree.xyz, shape, spacing):
                continue
            share, score = _brightness(image, rank, placement.voxels(points, shape, spacing))
            contrast[placement] = float(share.mean())
            runs[placement] = np.bincount(run, score) / np.maximum(np.bincount(run), 1)
    # Simpler placements first: of equal ones the simplest is taken.
    order = sorted(runs, key=lambda p: (p != stored, p.micrometre != stored.micrometre, p.first, len(p.flips), p.flips))
    best = stored
    for placement in order:
        same_but_count = best != stored and placement.flips == best.flips and placement.micrometre == best.micrometre
        if contrast[placement] >= _LEAST_CONTRAST and _beats(
            runs, placement, best, _COUNT_DOUBT if same_but_count else _DOUBT
        ):
            best = placement
    if best == stored and inside_share(stored.voxels(tree.xyz, shape, spacing), shape) < _LEAST_INSIDE:
        moved = _cut_out(image, rank, tree, stored, spacing)
        if moved is not None:
            return moved
    rivals = [p for p in order if p.flips != best.flips]
    rival = max(rivals, key=contrast.__getitem__) if rivals else None
    clear = contrast[best] >= _LEAST_CONTRAST and (rival is None or _beats(runs, best, rival))
    return Alignment(
        stored=stored,
        stored_contrast=contrast[stored],
        best=best,
        best_contrast=contrast[best],
        inside=inside_share(stored.voxels(tree.xyz, shape, spacing), shape),
        clear=clear,
        runner_up="" if clear or rival is None else f"{rival} (contrast {contrast[rival]:.3f})",
    )


def _cut_out(
    image: np.ndarray, rank: np.ndarray, tree: Tree, stored: Placement, spacing: Sequence[float] | None
) -> Alignment | None:
    """The alignment of a tracing of a larger volume, of which the image is a part; None where none is found."""
    points, _ = _points(tree, spacing if stored.micrometre else None)
    candidates = {f: replace(stored, flips=f).voxels(points, image.shape, spacing) for f in _FLIPS}
    found = find_offset(image, rank, candidates, lambda xyz: _brightness(image, rank, xyz))
    if found is None:
        return None
    share, _ = _brightness(image, rank, stored.voxels(points, image.shape, spacing))
    return Alignment(
        stored=stored,
        stored_contrast=float(share.mean()),
        best=replace(stored, flips=found.flips, shift=found.shift),
        best_contrast=found.contrast,
        inside=inside_share(stored.voxels(tree.xyz, image.shape, spacing), image.shape),
        clear=True,
    )


def _impossible(placement: Placement, xyz: np.ndarray, shape: Sequence[int], spacing: Sequence[float] | None) -> bool:
    return inside_share(placement.voxels(xyz, shape, spacing), shape) < _LEAST_INSIDE


def _beats(runs: dict[Placement, np.ndarray], one: Placement, other: Placement, doubt: float = _DOUBT) -> bool:
    """Is ``one`` better beyond doubt? Student's test over the runs: paired, unless the units differ."""
    a, b = runs[one], runs[other]
    gain = float(a.mean() - b.mean())
    if gain <= _SURE_GAIN or min(len(a), len(b)) < 2:
        return False
    if len(a) == len(b):
        error = float((a - b).std(ddof=1)) / np.sqrt(len(a))
    else:
        error = float(np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)))
    return error == 0 or float(stats.t.sf(gain / error, min(len(a), len(b)) - 1)) < doubt


def _points(tree: Tree, spacing: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) along the tracing about a voxel apart, in the tree's own coordinates, and the run of each."""
    edges = tree.edges()
    if not len(edges):
        return tree.xyz, np.arange(len(tree.xyz))
    near = np.clip(tree.xyz, -_FAR, _FAR)
    start, end = near[edges[:, 0]], near[edges[:, 1]]
    step = np.array(spacing, dtype=np.float64)[::-1] if spacing is not None else np.ones(3)
    length = np.linalg.norm((end - start) / step, axis=1)
    # Coarser for long tracings, and never more than a bounded number for absurd coordinates.
    distance = max(1.0, float(length.sum()) / _MOST_POINTS)
    along = np.cumsum(length) - length
    place = np.arange(0.0, float(length.sum()) + 1e-9, distance)
    edge = np.clip(np.searchsorted(along, place, side="right") - 1, 0, len(edges) - 1)
    t = np.where(length[edge] > 0, (place - along[edge]) / np.where(length[edge] > 0, length[edge], 1), 0)
    points = start[edge] + np.clip(t, 0, 1)[:, None] * (end - start)[edge]
    return points, (place // max(_RUN, distance)).astype(np.int64)


def _ranks(image: np.ndarray) -> np.ndarray:
    """Sorted intensities of voxels spread over the whole image."""
    step = max(1, round((image.size / _SAMPLE) ** (1 / 3)))
    sample = np.asarray(image[::step, ::step, ::step], dtype=np.float32).ravel()
    return np.sort(sample)


def _brightness(image: np.ndarray, rank: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each point the weighted mean over the voxels around it of two measures; 0 outside the image.

    The first is the share r of the image's voxels that are darker; the second, -log10(1 - r) up to 3 decades and
    scaled to 1, tells the bright middle of a neurite from its rim, where r is close to 1 all over.
    """
    shape = np.array(image.shape)
    centre = np.floor(np.clip(xyz[:, ::-1], -_FAR, _FAR) + 0.5).astype(np.int64)
    share, score = np.zeros(len(centre)), np.zeros(len(centre))
    for offset in itertools.product((-1, 0, 1), repeat=3):
        at = centre + offset
        inside = ((at >= 0) & (at < shape)).all(axis=1)
        at = np.clip(at, 0, shape - 1)
        value = np.asarray(image[at[:, 0], at[:, 1], at[:, 2]], dtype=np.float32)
        # The middle of the ranks of equal values: half of an all-black image is not brighter than the rest.
        darker = (np.searchsorted(rank, value, "left") + np.searchsorted(rank, value, "right")) / (2 * len(rank))
        weight = np.prod(_SMOOTH[np.array(offset) + 1]) * inside
        share += weight * darker
        score += weight * -np.log10(1.001 - darker) / 3
    return share, score
