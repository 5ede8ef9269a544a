"""The picture of a case: raw, contours of truth and prediction, trees, and where the two disagree."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures.case import CaseView
from nnunet_neurino.figures.colours import ON_BLACK, PREDICTION, TRUTH
from nnunet_neurino.figures.disagreement import Box, Disagreement, disagreement
from nnunet_neurino.figures.projections import (
    DASHED,
    DIM,
    DPI,
    LegendEntry,
    LineStyle,
    Panel,
    View,
    contrast,
    paint_grey,
    panels_figure,
)
from nnunet_neurino.swc import Tree

_MOST_BOXES = 30
_AGREED = "#DDDDDD"


def projection_figure(case: CaseView, tolerance: float = 3.0, title: str | None = None) -> Figure:
    """Maximum projections of a case in three directions, to scale, a panel for each thing that is known of it.

    Raw image; contours of truth (solid) and prediction (dashed); trees; and, with truth and prediction, their centre
    lines (the trees', where there are some, else the masks') with boxes around what is missed (solid) and what is extra
    (dashed): the 30 largest of each.

    Args:
        case: what to draw.
        tolerance: how far, in in-plane voxels, skeletons may be apart and still agree.
        title: default is the case's name.
    """
    painter = _CasePainter(case, lambda volume, view: view.project(volume))
    panels = _volume_panels(painter, "maximum projection")
    if case.truth_tree is not None or case.tree is not None:
        panels.append(Panel("Traced trees", painter.trees, painter.tree_legend()))
    if (cables := case.cables()) is not None:
        painter.found = disagreement(*cables, case.voxel_size, tolerance)
        legend: list[LegendEntry] = [
            ("found", _AGREED, "-"),
            (_count("missed", painter.found.missed_boxes), TRUTH, "-"),
            (_count("extra", painter.found.extra_boxes), PREDICTION, DASHED),
        ]
        panels.append(Panel(f"Cable, errors beyond {tolerance:g} voxels boxed", painter.errors, tuple(legend)))
    if not panels:
        raise NeurinoError(f"{case.name}: nothing to draw: give an image, a mask or a tree")
    return _drawn(case, panels, title)


def section_figure(case: CaseView, through: Sequence[int] | None = None, title: str | None = None) -> Figure:
    """Slices of a case in three directions, to scale: raw image, and outlines of truth and prediction.

    For images of which a maximum projection shows nothing, such as those of magnetic resonance.

    Args:
        case: what to draw; its trees are left out.
        through: the voxel (z, y, x) in which the slices meet; default is the voxel of the masks that is next to their
            centre of mass, or the middle where there is no foreground.
        title: default is the case's name.
    """
    at = _middle(case) if through is None else tuple(through)
    if len(at) != 3 or any(not 0 <= index < length for index, length in zip(at, case.shape, strict=True)):
        raise NeurinoError(f"{case.name}: voxel {at} is not in the volume of {case.shape} voxels (z, y, x)")
    painter = _CasePainter(case, lambda volume, view: view.section(volume, at))
    panels = _volume_panels(painter, f"slices z {at[0]}, y {at[1]}, x {at[2]}")
    if not panels:
        raise NeurinoError(f"{case.name}: nothing to draw: give an image or a mask")
    return _drawn(case, panels, title)


def _drawn(case: CaseView, panels: Sequence[Panel], title: str | None) -> Figure:
    title = case.name if title is None else title
    return panels_figure(panels, case.shape, case.voxel_size, title, scale_bar=case.spacing is not None)


def _volume_panels(painter: _CasePainter, how: str) -> list[Panel]:
    case, panels = painter.case, []
    if case.image is not None:
        panels.append(Panel(f"Raw image, {how}", painter.raw))
    legend: list[LegendEntry] = []
    if case.truth is not None:
        legend.append(("truth", TRUTH, "-"))
    if case.prediction is not None:
        legend.append(("prediction", PREDICTION, DASHED))
    if legend:
        panels.append(Panel("Masks, outlined", painter.contours, tuple(legend)))
    return panels


def _middle(case: CaseView) -> tuple[int, int, int]:
    masks = [np.argwhere(mask) for mask in (case.truth, case.prediction) if mask is not None and mask.any()]
    voxels = np.unique(np.concatenate(masks), axis=0) if masks else np.array(case.shape)[None] // 2
    nearest = voxels[int(np.argmin(((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1)))]
    return int(nearest[0]), int(nearest[1]), int(nearest[2])


def _count(word: str, boxes: Sequence[object]) -> str:
    return f"{word}: {len(boxes)} place{'' if len(boxes) == 1 else 's'}"


class _CasePainter:
    """Draws one case on axes; ``flat`` makes a picture of a volume, once for each direction."""

    def __init__(self, case: CaseView, flat: Callable[[NDArray, View], NDArray]) -> None:
        self.case = case
        self.flat = flat
        self.found: Disagreement | None = None
        self._grey: dict[str, NDArray] = {}

    def _background(self, axes: Axes, view: View, dim: float) -> None:
        case = self.case
        if case.image is None:
            return
        if view.name not in self._grey:
            self._grey[view.name] = contrast(self.flat(case.image, view))
        paint_grey(axes, self._grey[view.name], view, case.shape, case.voxel_size, dim)

    def raw(self, axes: Axes, view: View) -> None:
        self._background(axes, view, 1.0)

    def contours(self, axes: Axes, view: View) -> None:
        self._background(axes, view, DIM)
        for mask, colour, style, width in (
            (self.case.truth, TRUTH, "solid", 2.0),
            (self.case.prediction, PREDICTION, DASHED, 1.2),
        ):
            if mask is not None:
                self._outline(axes, view, self.flat(np.asarray(mask) != 0, view), colour, style, width)

    def _outline(self, axes: Axes, view: View, flat: NDArray, colour: str, style: LineStyle, width: float) -> None:
        if not flat.any():
            return
        # A rim of background, so that structures cut by the border get a closed line.
        rim = np.pad(flat.astype(float), 1)
        sizes = self.case.voxel_size
        down = np.arange(-1, flat.shape[0] + 1) * sizes[view.rows]
        right = np.arange(-1, flat.shape[1] + 1) * sizes[view.columns]
        width *= self._fine(axes, view)
        axes.contour(right, down, rim, levels=[0.5], colors=[colour], linestyles=[style], linewidths=[width])

    def tree_legend(self) -> tuple[LegendEntry, ...]:
        truth, tree = self.case.truth_tree, self.case.tree
        if truth is not None and tree is not None:
            return ("truth", TRUTH, "-"), ("traced", PREDICTION, "-")
        pieces = sum(shown.n_pieces for shown in (truth, tree) if shown is not None)
        return ((f"{pieces} pieces, one colour each", ON_BLACK[0], "-"),) if pieces > 1 else ()

    def trees(self, axes: Axes, view: View) -> None:
        self._background(axes, view, DIM)
        truth, tree = self.case.truth_tree, self.case.tree
        alone = truth is None or tree is None
        if truth is not None:
            self._lines(axes, view, truth, ON_BLACK if alone else [TRUTH], 1.6 if alone else 3.2)
        if tree is not None:
            self._lines(axes, view, tree, ON_BLACK if alone else [PREDICTION], 1.6 if alone else 1.1)

    def _lines(self, axes: Axes, view: View, tree: Tree, colours: Sequence[str], width: float) -> None:
        points = view.flatten(self.case.in_voxels(tree)[:, ::-1], self.case.voxel_size)
        edges = tree.edges()
        pieces = tree.piece_labels() if len(tree) else np.zeros(0, int)
        lines = LineCollection(
            list(points[edges]),
            colors=[colours[pieces[child] % len(colours)] for child in edges[:, 0]],
            linewidths=width * self._fine(axes, view),
            capstyle="round",
        )
        axes.add_collection(lines, autolim=False)
        roots = points[tree.roots]
        x, y, size = roots[:, 0], roots[:, 1], 9 + 3 * width
        axes.scatter(x, y, s=size, c=colours[0], edgecolors="black", linewidths=0.6, zorder=3)

    def errors(self, axes: Axes, view: View) -> None:
        found = self.found
        assert found is not None
        self._background(axes, view, DIM)
        # Voxels of large stacks are drawn two dots wide, so that they stay visible.
        side = max(2.0, *self._dots(axes, view)) * 72 / DPI
        for voxels, colour in ((found.agreed, _AGREED), (found.extra, PREDICTION), (found.missed, TRUTH)):
            right, down = view.flatten(voxels, self.case.voxel_size).T
            axes.scatter(right, down, s=side**2, c=colour, marker="s", linewidths=0)
        for boxes, colour, style in ((found.missed_boxes, TRUTH, "-"), (found.extra_boxes, PREDICTION, DASHED)):
            for box in boxes[:_MOST_BOXES]:
                self._box(axes, view, box, colour, style)

    def _dots(self, axes: Axes, view: View) -> tuple[float, float]:
        """Dots of the picture per voxel, down and to the right."""
        box = axes.get_window_extent()
        return box.height / self.case.shape[view.rows], box.width / self.case.shape[view.columns]

    def _fine(self, axes: Axes, view: View) -> float:
        """Factor for line widths: 1 where an in-plane voxel is two dots or more, less in crowded pictures."""
        sizes = self.case.voxel_size
        return float(np.clip(self._dots(axes, view)[1] / sizes[view.columns] * sizes[2] / 2, 0.4, 1))

    def _box(self, axes: Axes, view: View, box: Box, colour: str, style: LineStyle) -> None:
        sizes = self.case.voxel_size
        pad = 2.0 * sizes[2]
        low = view.flatten(np.array([side.start for side in box]), sizes) - pad
        wide, high = view.flatten(np.array([side.stop - 1 for side in box]), sizes) + pad - low
        axes.add_patch(Rectangle(tuple(low), wide, high, fill=False, edgecolor=colour, linestyle=style, linewidth=1.3))
