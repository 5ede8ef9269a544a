"""From a mask or a probability map to trees: the steps, in order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images.foreground import foreground
from nnunet_neurino.skeleton.graph import adjacency, search
from nnunet_neurino.swc import Tree
from nnunet_neurino.swc.tree import SOMA
from nnunet_neurino.tracing.centre_lines import centre_lines
from nnunet_neurino.tracing.crossings import part_neurons
from nnunet_neurino.tracing.gaps import Evidence, bridge_gaps, join_nearest
from nnunet_neurino.tracing.lines import Floats, Ints, Lines, without_cycles
from nnunet_neurino.tracing.refine import recentre, resample, smooth
from nnunet_neurino.tracing.settings import TraceSettings
from nnunet_neurino.tracing.soma import median_of
from nnunet_neurino.tracing.voxels import VoxelGraph

_STANDS_OUT = 1.8
_FURTHER = 2.0  # times as far as otherwise pieces are joined where it is known how many neurons there are
_MOST_VOXELS = 12_000_000
_DENSE = 0.5  # a neurite mask that fills more of the image than this is no neurite mask


def trace(
    volume: NDArray,
    spacing: Sequence[float] = (1, 1, 1),
    image: NDArray | None = None,
    settings: TraceSettings | None = None,
) -> Tree:
    """Trace the neurons of a mask or a probability map.

    Args:
        volume: (z, y, x): mask, or probabilities from 0 to 1.
        spacing: voxel size (z, y, x) in micrometres.
        image: (z, y, x) raw image; gaps are then bridged along bright paths only.
        settings: see :class:`TraceSettings`.

    Returns:
        One tree with a root for each neuron, the one with most cable first; the first root is marked as cell body
        (type 1), the type of all other nodes is 0; x, y, z in voxels (radii in voxels of the x axis), or
        in micrometres if the settings say so. An empty mask gives an empty tree.

    Raises:
        NeurinoError: the volume is no mask or probability map, or the image has another shape.

    Examples:
        >>> import numpy as np
        >>> mask = np.zeros((20, 20, 60), bool)
        >>> mask[9:12, 9:12, 5:55] = True
        >>> tree = trace(mask)
        >>> tree.n_pieces, bool(44 < tree.length < 51)
        (1, True)
    """
    settings = settings or TraceSettings()
    size = np.asarray(spacing, dtype=np.float64)
    if size.shape != (3,) or not (np.isfinite(size).all() and (size > 0).all()):
        raise NeurinoError(f"spacing {tuple(spacing)}: expected three sizes z, y, x above 0 in micrometres")
    volume = np.asarray(volume)
    image = None if image is None else np.asarray(image)
    if image is not None and image.shape != volume.shape:
        raise NeurinoError(
            f"the mask has the shape {volume.shape} (z, y, x) and the image {image.shape}: expected the same"
        )
    mask, note = foreground(volume, settings.low, settings.high)
    if note:
        warnings.warn(note, stacklevel=2)
    share = np.count_nonzero(mask) / mask.size
    if share > _DENSE and mask.size > 1000:
        raise NeurinoError(
            f"{share:.0%} of the image is foreground: expected a mask of thin neurites; "
            "invert it or use higher thresholds"
        )
    scale = size / size.min()
    graph = _voxel_graph(mask, scale, settings)
    root = None if settings.root is None else np.asarray(settings.root, dtype=np.float64) * scale
    lines = centre_lines(graph, settings.prune, root)
    if image is not None or note:
        evidence = Evidence.of(volume if image is None else image, mask, scale)
    else:
        evidence = None
    lines = _join_and_part(lines, evidence, np.array(mask.shape) * scale, settings)
    lines = _drop_short(lines, settings.min_length)
    if settings.smooth and len(lines.points):
        lines = recentre(lines, graph.positions(), mask, scale)
        for _ in range(settings.smooth):
            lines = smooth(lines, mask, scale)
    lines = _measured(lines, graph)
    if settings.node_spacing > 0:
        lines = resample(lines, settings.node_spacing, mask, scale)
    return _to_tree(lines, root, scale, size, settings)


def _voxel_graph(mask: NDArray[np.bool_], scale: Floats, settings: TraceSettings) -> VoxelGraph:
    count = int(np.count_nonzero(mask))
    if count > _MOST_VOXELS:
        raise NeurinoError(
            f"{count} foreground voxels: expected a mask of neurites with at most {_MOST_VOXELS}; crop the volume or "
            "use higher thresholds"
        )
    return VoxelGraph.of(mask, scale, settings.min_voxels)


def _join_and_part(lines: Lines, evidence: Evidence | None, size: Floats, settings: TraceSettings) -> Lines:
    """Bridge gaps and take crossing neurites apart.

    Gaps come first: a crossing with a gap beside it shows its four arms only when the gap is bridged.
    """
    longest = settings.bridge_length
    lines = bridge_gaps(
        lines, longest, settings.bridge_angle, evidence, settings.bridge_evidence, size, settings.min_length
    )
    if settings.split_crossings and settings.neurons != 1 and len(lines.points):
        lines = part_neurons(lines, size)
    if settings.neurons and longest:
        lines = join_nearest(_drop_short(lines, settings.min_length), settings.neurons, _FURTHER * longest)
    return without_cycles(lines)


def _measured(lines: Lines, graph: VoxelGraph) -> Lines:
    """The lines with the radii of where their points are now; those of bridges, on background, keep theirs."""
    depth = graph.depth_at(lines.points) - 0.5
    return replace(lines, radii=np.where(depth > 0, np.maximum(depth, 0.5), lines.radii))


def _drop_short(lines: Lines, least: float) -> Lines:
    """Leave out pieces with less cable than ``least``; the longest always stays."""
    if not len(lines.points):
        return lines
    piece = lines.pieces()
    cable = np.bincount(piece[lines.edges[:, 0]], lines.lengths(), minlength=int(piece.max()) + 1)
    wanted = cable >= least
    wanted[np.argmax(cable)] = True
    return lines.keep(wanted[piece])


def _roots(lines: Lines, wanted_root: Floats | None) -> Ints:
    """One point of each piece: its thickest, or its thickest tip where no point stands out (no cell body in sight)."""
    piece = lines.pieces()
    roots = _thickest_of(lines.radii, piece)
    typical = median_of(lines.radii, piece)
    tip = lines.degree() <= 1
    # The radius of a tip says little: what counts is how thick its neurite is over the next few points.
    nearby = cKDTree(lines.points).query_ball_point(lines.points[tip], 6.0)
    thickness = np.zeros(len(lines.points))
    thickness[tip] = [lines.radii[near].mean() for near in nearby]
    plain = lines.radii[roots] <= _STANDS_OUT * typical
    roots[plain] = _thickest_of(thickness, piece)[plain]
    if wanted_root is not None:
        nearest = int(np.argmin(((lines.points - wanted_root) ** 2).sum(axis=1)))
        roots[piece[nearest]] = nearest
    return roots


def _thickest_of(thickness: Floats, piece: Ints) -> Ints:
    order = np.lexsort((-thickness, piece))
    return order[np.searchsorted(piece[order], np.arange(int(piece.max()) + 1))].astype(np.int64)


def _to_tree(lines: Lines, wanted_root: Floats | None, scale: Floats, size: Floats, settings: TraceSettings) -> Tree:
    """Direct the lines away from their roots and put them into the wanted unit, the longest neuron first."""
    if not len(lines.points):
        return Tree.build(np.empty((0, 3)), np.empty(0, dtype=np.int64), unit=settings.unit)
    piece = lines.pieces()
    roots = _roots(lines, wanted_root)
    cable = np.bincount(piece[lines.edges[:, 0]], lines.lengths(), minlength=len(roots))
    order, parent = search(adjacency(len(piece), lines.edges), roots)
    order = order[np.argsort(-cable[piece[order]], kind="stable")]
    row = np.empty(len(order), dtype=np.int64)
    row[order] = np.arange(len(order))
    parents = np.where(parent[order] < 0, -1, row[parent[order]])
    unit_size = size if settings.unit == "micrometre" else np.ones(3)
    radius_size = size.min() if settings.unit == "micrometre" else 1.0 / scale[2]
    xyz = (lines.points[order] / scale * unit_size)[:, ::-1]
    types = np.zeros(len(order), dtype=np.int64)
    types[0] = SOMA  # of one neuron only: files with two cell bodies are refused by MorphIO
    return Tree.build(xyz, parents, lines.radii[order] * radius_size, types, unit=settings.unit)
