"""Maximum projections in three directions, to scale: the canvas that all pictures of a stack are drawn on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

DPI = 100
_PANEL = (5.0, 6.0)  # inches, the most a panel's pictures take, width and height
_WIDE_PANEL = (10.12, 9.0)  # the same where a voxel would be smaller than a dot
_HEADER, _GAP, _EDGE = 0.5, 0.06, 0.12  # inches
TEXT = 9.5  # points
DIM = 0.55  # grey level behind lines


@dataclass(frozen=True)
class View:
    """One direction of looking: along ``axis`` (0 z, 1 y, 2 x), ``rows`` down and ``columns`` to the right."""

    name: str
    axis: int
    rows: int
    columns: int

    def project(self, volume: NDArray) -> NDArray:
        """Maximum along the direction of looking, in this view's rows and columns."""
        return self._upright(volume.max(axis=self.axis))

    def section(self, volume: NDArray, through: Sequence[int]) -> NDArray:
        """The slice through a voxel (z, y, x), in this view's rows and columns."""
        return self._upright(volume.take(through[self.axis], axis=self.axis))

    def _upright(self, flat: NDArray) -> NDArray:
        return flat if self.rows < self.columns else flat.T

    def extent(self, shape: Sequence[int], voxel_size: Sequence[float]) -> tuple[float, float, float, float]:
        """Left, right, bottom, top of the picture; voxel centres lie at index * size, y grows downwards."""
        right = (shape[self.columns] - 0.5) * voxel_size[self.columns]
        bottom = (shape[self.rows] - 0.5) * voxel_size[self.rows]
        return -0.5 * voxel_size[self.columns], right, bottom, -0.5 * voxel_size[self.rows]

    def flatten(self, zyx: NDArray, voxel_size: Sequence[float]) -> NDArray[np.float64]:
        """Points (..., 3; z, y, x in voxels) as (..., 2): to the right and down, in units of the picture."""
        return np.asarray(
            zyx[..., [self.columns, self.rows]] * np.array([voxel_size[self.columns], voxel_size[self.rows]])
        )


# The front view, and what one sees of it from the right and from below: rows and columns line up.
XY = View("xy", 0, 1, 2)
ZY = View("zy", 2, 1, 0)
XZ = View("xz", 1, 0, 2)
VIEWS = (XY, ZY, XZ)

Painter = Callable[[Axes, View], None]
LineStyle: TypeAlias = Any  # what matplotlib takes: a name, or (offset, dashes)
LegendEntry: TypeAlias = tuple[str, str, LineStyle]  # label, colour, line style
DASHED: LineStyle = (0, (3, 1.5))


@dataclass(frozen=True)
class Panel:
    """A title, a legend and what to draw on the three views."""

    title: str
    paint: Painter
    legend: tuple[LegendEntry, ...] = ()


def panels_figure(
    panels: Sequence[Panel], shape: Sequence[int], voxel_size: Sequence[float], title: str = "", scale_bar: bool = True
) -> Figure:
    """Draw panels of three views each, all at one scale; every axes shows ``shape`` voxels of ``voxel_size``."""
    size = np.array(shape) * np.array(voxel_size)
    z, y, x = size
    width, height = x + z, y + z

    def scale_in(panel: tuple[float, float]) -> float:
        """Inches per unit."""
        return min((panel[0] - _GAP) / width, (panel[1] - _GAP) / height)

    panel_size, columns = _PANEL, 2
    if scale_in(_PANEL) * voxel_size[2] * DPI < 1:
        panel_size, columns = _WIDE_PANEL, 1
    scale = scale_in(panel_size)
    cell = np.array([panel_size[0] + _EDGE, height * scale + _GAP + _HEADER + _EDGE])
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    top = 0.4 if title else 0.05
    page = np.array([columns * cell[0] + _EDGE, rows * cell[1] + top])
    figure = Figure(figsize=(float(page[0]), float(page[1])), dpi=DPI, facecolor="white")
    if title:
        figure.text(_EDGE / page[0], 1 - 0.1 / page[1], title, va="top", fontsize=12, weight="bold")

    def axes_at(left: float, down: float, wide: float, high: float) -> Axes:
        return figure.add_axes((left / page[0], 1 - (down + high) / page[1], wide / page[0], high / page[1]))

    for number, panel in enumerate(panels):
        left = _EDGE + (number % columns) * cell[0]
        down = top + (number // columns) * cell[1]
        _header(axes_at(left, down, panel_size[0], _HEADER), panel)
        down += _HEADER
        for view in VIEWS:
            at_x = left + (x * scale + _GAP if view is ZY else 0)
            at_y = down + (y * scale + _GAP if view is XZ else 0)
            axes = axes_at(at_x, at_y, size[view.columns] * scale, size[view.rows] * scale)
            axes.set_facecolor("black")
            axes.set_label(f"{number}:{view.name}")
            panel.paint(axes, view)
            _frame(axes, view, shape, voxel_size)
            _name(axes, view.name, size[view.columns] * scale, size[view.rows] * scale)
            if view is XY and scale_bar:
                _scale_bar(axes, float(size[2]), float(size[1]), voxel_size)
    return figure


def paint_grey(
    axes: Axes, picture: NDArray, view: View, shape: Sequence[int], voxel_size: Sequence[float], dim: float = 1.0
) -> None:
    """Show a projection in grey levels 0 to 1, the brightest of them ``dim``."""
    axes.imshow(picture * dim, cmap="gray", vmin=0, vmax=1, extent=view.extent(shape, voxel_size), aspect="auto")


def contrast(picture: NDArray) -> NDArray[np.float64]:
    """Grey levels 0 to 1 that show dim neurites: robust limits and a root."""
    values = picture.astype(np.float64)
    values[~np.isfinite(values)] = 0
    low, high = np.percentile(values, (2, 99.5))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros(values.shape)
    return np.asarray(np.clip((values - low) / (high - low), 0, 1) ** 0.7)


def _frame(axes: Axes, view: View, shape: Sequence[int], voxel_size: Sequence[float]) -> None:
    left, right, bottom, top = view.extent(shape, voxel_size)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_xticks([])
    axes.set_yticks([])


def _header(axes: Axes, panel: Panel) -> None:
    axes.axis("off")
    axes.text(0, 0.95, panel.title, va="top", fontsize=10.5, weight="bold", transform=axes.transAxes)
    if panel.legend:
        handles = [
            Line2D([], [], color=colour, linestyle=style, linewidth=3, label=label)
            for label, colour, style in panel.legend
        ]
        axes.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0, 0.55),
            ncols=len(handles),
            frameon=False,
            fontsize=TEXT,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.8,
            columnspacing=1.4,
        )


def _name(axes: Axes, name: str, width: float, height: float) -> None:
    if min(width, height) >= 0.22:  # inches: room for two letters
        _label(axes, name, (0, 1), (3, -3), xycoords="axes fraction", va="top")


def _scale_bar(axes: Axes, width: float, height: float, voxel_size: Sequence[float]) -> None:
    length = _round_length(width / 5)
    thickness = height * 0.012
    left, top = width * 0.04 - voxel_size[2] / 2, height * (0.96 - 0.012) - voxel_size[1] / 2
    axes.add_patch(Rectangle((left, top), length, thickness, facecolor="white", edgecolor="black", linewidth=0.5))
    _label(axes, f"{length:g} µm", (left, top), (0, 2), va="bottom")


def _label(axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **place: Any) -> None:
    """White letters on a dark ground, ``offset`` points from ``at``."""
    label = axes.annotate(text, at, offset, textcoords="offset points", color="white", fontsize=TEXT, **place)
    label.set_bbox({"facecolor": "black", "alpha": 0.55, "linewidth": 0, "pad": 1.0})


def _round_length(length: float) -> float:
    """The nearest of 1, 2, 5 times a power of ten that is not longer."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step for step in (1, 2, 5) if step * power <= length) * power)
