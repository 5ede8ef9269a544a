"""Growing neurons: seeded random walks that branch, taper, swell, cross and touch.

Everything here is in in-plane voxels, coordinates x, y, z; ``grow_trees`` converts to voxels at the end.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from nnunet_neurino.swc import Tree
from nnunet_neurino.swc.tree import AXON, DENDRITE, SOMA
from nnunet_neurino.synth.settings import GrowthSettings, SynthSettings
from nnunet_neurino.synth.walks import FloatArray, first_outside, flatness, spread_directions, unit, walk, wandering

_SHORTEST_BRANCH = 5  # nodes
_LARGE = 160.0  # voxels: in larger volumes neurons are larger and not denser
_SMALLEST_NEURON = 0.4  # voxels of length, for each voxel of the volume's longest side


@dataclass
class _Neuron:
    """A neuron under construction: one node per row, parents before children."""

    types: list[int] = field(default_factory=list)
    points: list[FloatArray] = field(default_factory=list)
    radii: list[float] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def add(self, kind: int, point: FloatArray, radius: float, parent: int) -> int:
        self.types.append(kind)
        self.points.append(point)
        self.radii.append(radius)
        self.parents.append(parent)
        return len(self.parents) - 1

    def add_path(self, kind: int, points: FloatArray, radii: FloatArray, parent: int) -> list[int]:
        rows = []
        for point, radius in zip(points, radii, strict=True):
            parent = self.add(kind, point, float(radius), parent)
            rows.append(parent)
        return rows


@dataclass(frozen=True)
class _Sprout:
    """A branch that waits to be grown."""

    parent: int
    start: FloatArray
    heading: FloatArray
    radius: float
    length: float
    kind: int
    order: int


def grow_trees(settings: SynthSettings, rng: np.random.Generator) -> tuple[Tree, ...]:
    """Grow the neurons of one volume: one ``Tree`` each, in voxels of the volume, at least one edge, all inside it.

    The radii are in in-plane voxels.
    """
    growth = settings.growth
    scale = np.array(settings.voxel_size[::-1])
    size = (np.array(settings.shape[::-1]) - 1) * scale
    neurons: list[_Neuron] = []
    wanted = int(rng.integers(growth.neurons[0], growth.neurons[1] + 1))
    for _ in range(20 * max(wanted, 1)):  # a cramped volume may refuse some
        if len(neurons) == wanted:
            break
        neuron = _grow_neuron(growth, size, _Obstacles(neurons), rng)
        if len(neuron.parents) > max(_SHORTEST_BRANCH, _SMALLEST_NEURON * size.max()):
            neurons.append(neuron)
    grown = list(neurons)
    for touching, limits in ((False, growth.crossings), (True, growth.touches)):
        for _ in range(int(rng.integers(limits[0], limits[1] + 1))):
            neurons.append(_grow_fibre(growth, size, grown, touching, rng))
    if not neurons:
        neurons.append(_grow_fibre(growth, size, [], False, rng))
    return tuple(_as_tree(neuron, scale) for neuron in neurons)


def _as_tree(neuron: _Neuron, scale: FloatArray) -> Tree:
    count = len(neuron.parents)
    return Tree(
        ids=np.arange(1, count + 1),
        types=np.array(neuron.types, dtype=np.int64),
        # Three decimals are what SWC files usually hold; so the tree in memory and the tree on disk are the same.
        xyz=np.round(np.array(neuron.points) / scale, 3),
        radii=np.round(np.array(neuron.radii), 3),
        parents=np.array(neuron.parents, dtype=np.int64),
        unit="voxel",
    )


class _Obstacles:
    """The neurites that are there already, for keeping a distance."""

    def __init__(self, neurons: list[_Neuron]) -> None:
        self.points = np.array([point for neuron in neurons for point in neuron.points]).reshape(-1, 3)
        self.radii = np.array([radius for neuron in neurons for radius in neuron.radii])
        self.tree = cKDTree(self.points) if len(self.points) else None

    def first_hit(self, points: FloatArray, radii: FloatArray, clearance: float) -> int:
        """Row of the first point whose surface comes nearer than ``clearance``, or the number of points."""
        if self.tree is None or clearance < 0:
            return len(points)
        reach = float(radii.max() + self.radii.max() + clearance)
        for row, near in enumerate(self.tree.query_ball_point(points, reach)):
            if near:
                gap = np.linalg.norm(self.points[near] - points[row], axis=1) - self.radii[near] - radii[row]
                if gap.min() < clearance:
                    return row
        return len(points)


def _grow_neuron(growth: GrowthSettings, size: FloatArray, others: _Obstacles, rng: np.random.Generator) -> _Neuron:
    neuron = _Neuron()
    sprouts = deque(_first_sprouts(neuron, growth, size, rng))
    while sprouts:
        sprout = sprouts.popleft()
        points = walk(growth, sprout.start, sprout.heading, sprout.length, size, rng)
        radii = _radius_profile(growth, sprout, len(points), rng)
        stop = min(first_outside(points, size), others.first_hit(points, radii, growth.clearance))
        # A branch may be near its own neuron where it begins.
        free = math.ceil(4 + 4 * sprout.radius + max(growth.clearance, 0))
        if sprout.order == 0 and neuron.types and neuron.types[0] == SOMA:
            free += math.ceil(2 * neuron.radii[0])
        if stop > free:
            own = _Obstacles([neuron])
            stop = min(stop, free + own.first_hit(points[free:], radii[free:], growth.clearance))
        if stop < _SHORTEST_BRANCH:
            continue
        points, radii = points[:stop], radii[:stop]
        rows = neuron.add_path(sprout.kind, points, radii, sprout.parent)
        sprouts.extend(_daughters(growth, sprout, rows, points, radii, size, rng))
    return neuron


def _first_sprouts(
    neuron: _Neuron, growth: GrowthSettings, size: FloatArray, rng: np.random.Generator
) -> list[_Sprout]:
    longest = float(size.max())
    if rng.random() >= growth.soma_probability:
        start, heading = _entrance(size, rng)
        radius = rng.uniform(*growth.radius)
        root = neuron.add(AXON, start, radius, -1)
        length = longest * rng.uniform(*growth.reach) * 1.5
        return [_Sprout(root, start, heading, radius, length, AXON, 0)]
    # In a shallow volume the cell body is cut by the volume's faces like in a real section.
    radius = min(rng.uniform(*growth.soma_radius), 0.3 * float(np.sort(size)[1]))
    centre = size * rng.uniform(0.3, 0.7, 3)
    root = neuron.add(SOMA, centre, radius, -1)
    sprouts = []
    for number, heading in enumerate(
        spread_directions(int(rng.integers(growth.stems[0], growth.stems[1] + 1)), size, rng)
    ):
        stem = rng.uniform(*growth.radius)
        parent, start = root, centre
        if number == 0:  # the cell body tapers into its thickest neurite
            stem = growth.radius[1]
            for share, width in ((0.45, 0.85), (0.9, 0.6)):
                start = centre + share * radius * heading
                if first_outside(start[None], size):
                    parent = neuron.add(SOMA, start, max(width * radius, stem), parent)
                else:
                    start = centre
                    break
        kind = AXON if number == 1 else DENDRITE
        length = longest * rng.uniform(*growth.reach)
        sprouts.append(_Sprout(parent, start, heading, stem, length, kind, 0))
    return sprouts


def _entrance(size: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """A point on a face of the volume and a direction that leads inwards; large faces are met more often."""
    areas = np.array([size[1] * size[2], size[0] * size[2], size[0] * size[1]])
    axis = int(rng.choice(3, p=areas / areas.sum()))
    if size[axis] < 0.4 * size.max():  # a shallow volume is entered from the side
        axis = int(np.argmax(size))
    start = size * rng.uniform(0.2, 0.8, 3)
    low = rng.random() < 0.5
    start[axis] = 0.0 if low else size[axis]
    target = size * rng.uniform(0.35, 0.65, 3)
    return start, unit(target - start)


def _radius_profile(growth: GrowthSettings, sprout: _Sprout, count: int, rng: np.random.Generator) -> FloatArray:
    path = np.arange(1, count + 1)
    radii = sprout.radius * (1 - growth.taper * path / max(sprout.length, count))
    radii = np.maximum(radii * (1 + 0.08 * wandering(count, 4.0, rng)[:, 0]), growth.min_radius)
    if math.isfinite(growth.bouton_distance):
        places = np.cumsum(rng.gamma(3.0, growth.bouton_distance / 3.0, 2 + int(2 * count / growth.bouton_distance)))
        sizes = growth.bouton_swelling * rng.uniform(0.4, 1.2, len(places))
        if sprout.kind != AXON:
            sizes *= 0.4
        swelling = sizes * np.exp(-0.5 * ((path[:, None] - places) / 1.3) ** 2)
        radii = radii * (1 + swelling.max(axis=1))
    return np.asarray(radii)


def _daughters(
    growth: GrowthSettings,
    sprout: _Sprout,
    rows: list[int],
    points: FloatArray,
    radii: FloatArray,
    size: FloatArray,
    rng: np.random.Generator,
) -> list[_Sprout]:
    if sprout.order >= growth.max_order:
        return []
    daughters = []
    distance = growth.branch_distance * max(1.0, float(size.max()) / _LARGE)
    place = rng.exponential(distance) + 6
    while place < len(points) - 6:
        at = int(place)
        along = unit(points[at] - points[at - 3])
        angle = math.radians(float(np.clip(rng.normal(growth.branch_angle, 12.0), 25.0, 110.0)))
        aside = unit(np.cross(along, rng.standard_normal(3)))
        radius = max(float(np.min(radii[at - 3 : at + 4])) * growth.daughter_ratio, growth.min_radius)
        length = (sprout.length - at) * rng.uniform(0.5, 1.0)
        if length >= 12:
            heading = math.cos(angle) * along + math.sin(angle) * aside
            daughters.append(_Sprout(rows[at], points[at], heading, radius, length, sprout.kind, sprout.order + 1))
        place += rng.exponential(distance) + 6
    return daughters


def _grow_fibre(
    growth: GrowthSettings, size: FloatArray, neurons: list[_Neuron], touching: bool, rng: np.random.Generator
) -> _Neuron:
    """An unbranched fibre through the volume that crosses (or touches from outside) one of the neurons."""
    radius = max(float(rng.uniform(*growth.radius)) * 0.8, growth.min_radius)
    target = size * rng.uniform(0.35, 0.65, 3)
    along = unit(rng.standard_normal(3))
    across = unit(np.cross(along, rng.standard_normal(3) * flatness(size)))
    if neurons:
        neuron = neurons[int(rng.integers(len(neurons)))]
        inner = [row for row in range(3, len(neuron.parents)) if neuron.types[row] != SOMA]
        row = inner[int(rng.integers(len(inner)))]
        target = neuron.points[row]
        along = unit(target - neuron.points[neuron.parents[row]])
        across = unit(np.cross(along, rng.standard_normal(3) * flatness(size)))
        if touching:  # side by side where they are closest, so that the fibre does not run into the neurite
            aside = unit(np.cross(along, across))
            target = np.clip(target + aside * (neuron.radii[row] + radius), 0, size)
    heading = unit(across + 0.3 * along)
    halves = []
    for direction in (heading, -heading):
        half = walk(growth, target, direction, 1.5 * float(size.max()), size, rng)
        halves.append(half[: first_outside(half, size)])
    points = np.concatenate([halves[0][::-1], target[None], halves[1]])
    if len(points) < 2:  # the target lies in a corner
        points = np.stack([target, target + unit(size / 2 - target)])
    whole = _Sprout(-1, points[0], heading, radius, 4.0 * len(points), AXON, 0)
    fibre = _Neuron()
    fibre.add_path(AXON, points, _radius_profile(growth, whole, len(points), rng), -1)
    return fibre
