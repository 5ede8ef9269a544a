"""Does the tracing lie on bright voxels? Compare it with its flips, counting from 1, the other unit, and shifts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.spatial import KDTree

from nnunet_neurino.conversion.evidence import NEAR, Brightness, Evidence, points_along
from nnunet_neurino.conversion.offset import likely_shifts
from nnunet_neurino.conversion.placement import FLIPS, Placement
from nnunet_neurino.swc import Tree, share_inside

# The chance of a mistake by which a placement must beat its rivals, and by which one shift must beat another. An
# easier test will do for an unshifted placement against a shift, since that is the luckiest of a million shifts; for
# a placement against its surroundings, lest a tracing is found on bright tissue that is not its own; and for a count.
_DOUBT, _SHIFT_DOUBT, _EASY_DOUBT = 1e-3, 1e-2, 0.05
# Two placements draw the same picture when nearly all points of one are this close to the other, voxels.
_SAME, _NEARLY_ALL = 2.0, 95


@dataclass(frozen=True)
class Alignment:
    """How well a tracing lies on its image as stored, and the placement that fits best.

    Contrast is the chance that a voxel under the tracing is brighter than a voxel anywhere in the image: 0.5 for a
    tracing that has nothing to do with the image, 1 for a perfect one. Only the part inside the image counts.
    """

    stored: Placement  # the placement that the file and the user declare
    stored_contrast: float  # its contrast
    best: Placement  # the placement that fits beyond doubt better than all others; ``stored`` where there is none
    best_contrast: float  # its contrast
    inside: float  # share of the nodes inside the image as stored
    clear: bool  # the image can tell: the best placement beats every other flip, unit and shift beyond doubt
    # when ``clear`` is false, the placement that fits best, or next best to the stored one
    runner_up: Placement | None = None
    runner_up_contrast: float = 0.5  # its contrast
    symmetrical: bool = False  # the tracing draws nearly the same picture when placed as the runner-up
    # another placement fits beyond doubt better than the stored one, whether or not it is clear which
    misplaced: bool = False

    @property
    def differs(self) -> bool:
        """The stored placement is not the best one."""
        return self.best != self.stored


def check_alignment(
    image: np.ndarray, tree: Tree, spacing: Sequence[float] | None = None, unit: str | None = None
) -> Alignment:
    """Compare image intensity under the tracing for all flips, counting from 0 or 1, both units, and shifts.

    Shifts are searched only where the stored placement is poor.

    Args:
        image: (z, y, x).
        tree: the tracing as read, nothing applied.
        spacing: voxel size (z, y, x) in micrometres; None leaves micrometres out.
        unit: "voxel" or "micrometre" when it is known; None tries both when the tree does not say.

    Returns:
        The best placement, or the stored one where the image cannot tell.
    """
    known = unit or (tree.unit if tree.unit != "unknown" else None)
    stored = Placement(micrometre=known == "micrometre" and spacing is not None)
    units = [stored.micrometre]
    if known is None and spacing is not None and tuple(spacing) != (1, 1, 1):
        units = [False, True]
    # Simpler placements first: of equal ones the simplest is taken.
    simple = [Placement(*way) for way in itertools.product(units, (0, 1), FLIPS)]
    contest = _Contest.of(image, tree, spacing, units)
    contest.enter(simple)
    best = contest.leader(stored)
    if not contest.same_place(best, stored) or not contest.is_peak(stored):
        contest.enter(contest.shifted([p for p in simple if p.first == 0]))
        best = contest.leader(stored)

    rivals = [p for p in contest.evidence if not contest.same_place(p, best)]
    peak = contest.is_peak(best)
    clear = peak and all(contest.beats(best, rival, _allowed(best, rival)) for rival in rivals)
    if clear:
        best = contest.count(best, stored)
    contrast = contest.contrast
    alignment = Alignment(
        stored=stored,
        stored_contrast=contrast(stored),
        best=best if clear else stored,
        best_contrast=contrast(best if clear else stored),
        inside=share_inside(stored.apply(tree, image.shape, spacing), image.shape),
        clear=clear,
        misplaced=best != stored if clear else peak and contest.beats(best, stored),
    )
    if clear:
        return alignment
    second = best if not contest.same_place(best, stored) else max(rivals, key=contest.total)
    return replace(
        alignment,
        runner_up=second,
        runner_up_contrast=contrast(second),
        symmetrical=contest.same_picture(second, stored),
    )


def _allowed(one: Placement, other: Placement) -> float:
    """The chance of a mistake by which ``one`` must beat ``other``."""
    if not any(other.shift):
        return _DOUBT
    return _SHIFT_DOUBT if any(one.shift) else _EASY_DOUBT


@dataclass
class _Contest:
    """The placements of one tracing in one image, each with its evidence."""

    brightness: Brightness
    points: np.ndarray
    spacing: Sequence[float] | None
    evidence: dict[Placement, Evidence] = field(default_factory=dict)

    @classmethod
    def of(cls, image: np.ndarray, tree: Tree, spacing: Sequence[float] | None, units: list[bool]) -> _Contest:
        """Without placements yet; the points are about a voxel apart in the finest of the units."""
        sizes = [np.array(spacing)[::-1] if micrometre and spacing is not None else np.ones(3) for micrometre in units]
        return cls(Brightness(image), points_along(tree, np.min(sizes, axis=0)), spacing)

    def voxels(self, placement: Placement) -> np.ndarray:
        """The points (n, 3) x, y, z in voxels of the image."""
        return placement.voxels(self.points, self.brightness.image.shape, self.spacing)

    def enter(self, placements: Sequence[Placement]) -> None:
        """Look at the image for each of the placements."""
        for placement in placements:
            self.evidence[placement] = Evidence(self.brightness, self.voxels(placement))

    def shifted(self, placements: list[Placement]) -> list[Placement]:
        """The placements with the likeliest shifts, those apart from the ones that are known already."""
        result: list[Placement] = []
        for micrometre in {p.micrometre for p in placements}:
            ways = [p for p in placements if p.micrometre == micrometre]
            points = [self.voxels(p) for p in ways]
            for way, (x, y, z) in likely_shifts(self.brightness, points):
                placement = replace(ways[way], shift=(float(x), float(y), float(z)))
                if not any(self.same_place(placement, known) for known in (*self.evidence, *result)):
                    result.append(placement)
        return result

    def total(self, placement: Placement) -> float:
        """The evidence for a placement."""
        return self.evidence[placement].total

    def leader(self, stored: Placement) -> Placement:
        """The placement with the most evidence, of equal ones the stored one."""
        return max(self.evidence, key=lambda p: (self.total(p), p == stored))

    def beats(self, one: Placement, other: Placement, allowed: float = _DOUBT) -> bool:
        """Is the evidence for one beyond doubt stronger than that for the other?"""
        return self.evidence[one].doubt_against(self.evidence[other]) < allowed

    def is_peak(self, placement: Placement) -> bool:
        """Does the tracing lie better there than a few voxels away in any direction?"""
        return self.evidence[placement].doubt_of_peak() < _EASY_DOUBT

    def count(self, best: Placement, stored: Placement) -> Placement:
        """``best`` as stored, or counted from 0, unless it is counted from 1 beyond doubt."""
        usual = stored if self.same_place(best, stored) else replace(best, first=0)
        if best == usual or usual not in self.evidence:
            return best
        return best if self.beats(best, usual, _DOUBT if usual == stored else _EASY_DOUBT) else usual

    def same_place(self, one: Placement, other: Placement) -> bool:
        """Do the two differ by a few voxels only, as counting from 0 and from 1 do?"""
        if (one.micrometre, one.flips) != (other.micrometre, other.flips):
            return False
        return float(np.abs(self.voxels(one)[:1] - self.voxels(other)[:1]).max()) <= NEAR

    def same_picture(self, one: Placement, other: Placement) -> bool:
        """Does the tracing look the same, as a symmetrical one does when it is flipped?"""
        a, b = self.voxels(one), self.voxels(other)
        apart = max(
            np.percentile(KDTree(b).query(a)[0], _NEARLY_ALL), np.percentile(KDTree(a).query(b)[0], _NEARLY_ALL)
        )
        return bool(apart <= _SAME)

    def contrast(self, placement: Placement) -> float:
        """The chance that a voxel under the tracing is brighter than one anywhere in the image."""
        return self.brightness.contrast(self.voxels(placement))
