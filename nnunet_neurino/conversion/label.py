"""From a tracing to its place in the image, and to labels of any part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_neurino.conversion.alignment import Alignment, check_alignment
from nnunet_neurino.conversion.blocks import Box
from nnunet_neurino.conversion.record import AlignmentReport
from nnunet_neurino.conversion.settings import ConvertSettings
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.images import read_stack
from nnunet_neurino.swc import Tree, merge_touching, rasterise, read_swc, share_inside

# With fewer nodes inside than this the tracing is another image's, or in another unit; unless it was found to be
# that of a larger volume.
_LEAST_INSIDE, _LEAST_OF_CUT_OUT = 0.5, 0.1


@dataclass(frozen=True)
class TracedLabel:
    """A tracing placed in its image, ready to be drawn."""

    tree: Tree  # in voxels of the image, counted from 0, y down
    spacing: tuple[float, float, float]  # voxel size z, y, x
    settings: ConvertSettings  # how to draw it

    def __call__(self, box: Box) -> np.ndarray:
        """Draw the part of the label (bool, z y x) in ``box``."""
        origin = np.array([s.start for s in box], dtype=np.float64)
        tree = replace(self.tree, xyz=self.tree.xyz - origin[::-1])
        return rasterise(
            tree,
            [s.stop - s.start for s in box],
            self.spacing,
            mode=self.settings.mode,  # type: ignore[arg-type]
            tube_radius=self.settings.tube_radius,
            minimum_radius=self.settings.minimum_radius,
        )


@dataclass(frozen=True)
class MaskLabel:
    """A mask made by somebody else; voxels above 0 are foreground."""

    mask: np.ndarray

    def __call__(self, box: Box) -> np.ndarray:
        """Cut the part of the label (bool, z y x) in ``box``."""
        return np.asarray(self.mask[box]) > 0


def mask_label(path: Path, shape: Sequence[int], settings: ConvertSettings) -> tuple[MaskLabel, dict[str, Any]]:
    """Read a mask that must have the image's shape (z, y, x).

    Args:
        path: the mask.
        shape: of the image.
        settings: what the user said of the images' axes ("CXYZ"): the mask is stored like one of their channels.
    """
    axes = "".join(n for n in settings.axes.upper() if n in "ZYX") if settings.axes else None
    stack = read_stack(path, axes, **settings.reading)
    if stack.voxels.shape != tuple(shape):
        raise NeurinoError(
            f"{path}: the mask has {_sizes(stack.voxels.shape)} voxels, its image {_sizes(shape)}; they must be equal"
        )
    return MaskLabel(stack.voxels), {"mask": str(path), "mask_findings": [str(f) for f in stack.findings]}


def traced_label(
    path: Path, channels: np.ndarray, spacing: tuple[float, float, float], settings: ConvertSettings
) -> tuple[TracedLabel, dict[str, Any]]:
    """Read a tracing and place it in the image; refuse one that lies elsewhere.

    Args:
        path: the SWC file.
        channels: the image (c, z, y, x); the channel that shows the tracing best judges the alignment.
        spacing: voxel size (z, y, x) in micrometres.
        settings: unit, orientation, radii and the way of drawing.

    Returns:
        The label, and what the case's record says about it.
    """
    tree = read_swc(path)
    findings = list(tree.findings)
    unit = None if settings.unit == "auto" else settings.unit
    if settings.radius is not None:
        tree = replace(tree, radii=np.full(len(tree), settings.radius))
        findings.append(Finding(0, "the radii of the file", f"all set to {settings.radius:g}"))
    shape = channels.shape[1:]
    alignment = max(
        (check_alignment(channel, tree, spacing, unit) for channel in channels),
        key=lambda a: (a.clear, a.best_contrast),
    )
    placement = alignment.best if settings.fix_orientation else alignment.stored
    findings += _alignment_findings(alignment, settings.fix_orientation)
    placed = placement.apply(tree, shape, spacing)
    share = share_inside(placed, shape)
    if share < (_LEAST_OF_CUT_OUT if any(placement.shift) else _LEAST_INSIDE):
        raise NeurinoError(
            f"{path}: {1 - share:.0%} of the nodes lie outside the image of {_sizes(shape)} voxels (z y x); they "
            f"reach from {_position(placed.xyz.min(axis=0))} to {_position(placed.xyz.max(axis=0))}: another image's "
            f"tracing, a crop, or another unit{_remedy(alignment, settings)}"
        )
    if share < 1:
        findings.append(Finding(0, f"{1 - share:.1%} of the nodes lie outside the image", "left out of the label"))
    about = {
        "tracing": str(path),
        "nodes": len(tree),
        "pieces": tree.n_pieces,
        "pieces_that_do_not_touch": merge_touching(tree).n_pieces,
        "tracing_findings": [str(f) for f in findings],
        "alignment": AlignmentReport(
            stored=str(alignment.stored),
            stored_contrast=round(alignment.stored_contrast, 4),
            best=str(alignment.best),
            best_contrast=round(alignment.best_contrast, 4),
            clear=alignment.clear,
            runner_up=str(alignment.runner_up or ""),
            misplaced=alignment.misplaced and placement == alignment.stored,
            applied=str(placement),
            nodes_inside=round(share, 4),
        ),
    }
    return TracedLabel(placed, spacing, settings), about


def _alignment_findings(alignment: Alignment, fix: bool) -> list[Finding]:
    stored = f"{alignment.stored} ({alignment.stored_contrast:.3f})"
    if alignment.differs:
        best = f"{alignment.best} (contrast {alignment.best_contrast:.3f})"
        what = f"the tracing fits the image better {best} than {stored}"
        if fix:
            return [Finding(0, what, f"taken as {alignment.best}")]
        return [Finding(0, f"WARNING: {what}; --fix-orientation applies it")]
    if alignment.clear:
        return []
    other = f"{alignment.runner_up} (contrast {alignment.runner_up_contrast:.3f})"
    if alignment.misplaced:
        what = f"WARNING: the tracing does not lie on its neuron {stored}"
        return [Finding(0, f"{what}; it fits best {other}, but not clearly; look at the picture")]
    if alignment.symmetrical:
        what = f"the tracing is symmetrical: it looks the same {other} and {stored}"
    else:
        what = f"contrast {alignment.stored_contrast:.3f} {alignment.stored}, next best {other}"
    return [Finding(0, f"the image cannot tell the orientation: {what}; look at the picture")]


def _remedy(alignment: Alignment, settings: ConvertSettings) -> str:
    if alignment.differs and not settings.fix_orientation:
        return f"; it fits when taken as {alignment.best}: --fix-orientation"
    return "; check the pair, --spacing and --unit"


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)


def _position(xyz: np.ndarray) -> str:
    return "({:.0f}, {:.0f}, {:.0f})".format(*xyz[::-1])
