"""Joining the few tube voxels that a taper leaves alone, so that a label is as connected as its tree.

From a tube voxel p with the closest point c on its edge, the voxel a step nearer to c (along every axis on which p is
more than half a voxel off) is no farther from c. With an even radius it is in the tube, too, and so on to the voxel of
c, which touches the centre line. With a taper the new voxel's own closest point may have a smaller radius: only then
can a tube voxel be cut off. Such voxels are noted while the tubes are drawn, looked at afterwards, and joined.
"""

from __future__ import annotations

import numpy as np

from nnunet_neurino.skeleton.components import label_components
from nnunet_neurino.swc.edges import Candidates, GridEdges

#: So many suspects are looked at one by one; were there more, all would be joined unseen.
_MAX_LOOKS = 20_000
_LOOK = 3  # voxels around a suspect and its next step


class Tapered:
    """Tube voxels whose next step towards the edge is outside their own tube."""

    def __init__(self, edges: GridEdges, floor: float) -> None:
        self.edges = edges
        self.floor = floor
        self._noted: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def note(self, near: Candidates, inside: np.ndarray) -> None:
        """Keep the suspects among the tube voxels ``inside`` (indices into ``near``)."""
        inside = inside[self.edges.r_change[near.edge[inside]] != 0]
        flat, edge, t = near.flat[inside], near.edge[inside], near.t[inside]
        moved, _, _, out = self.step(flat, edge, t)
        suspect = moved[out]
        self._noted.append((flat[suspect], edge[suspect], t[suspect]))

    def suspects(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flat index, edge and position along the edge of every suspect."""
        if not self._noted:
            none = np.zeros(0, np.int64)
            return none, none, none.astype(float)
        flat, edge, t = (np.concatenate(part) for part in zip(*self._noted, strict=True))
        return flat, edge, t

    def step(
        self, flat: np.ndarray, edge: np.ndarray, t: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step of every voxel towards its closest point.

        Returns:
            Which voxels moved (indices; the others touch the centre line), their new flat index and position along
            the edge, and whether they are outside the tube there.
        """
        edges = self.edges
        voxel = np.stack(np.unravel_index(flat, edges.shape), axis=1)
        start, vector = edges.start[edge], edges.vector[edge]
        offset = (start + t[:, None] * vector) / edges.spacing - voxel
        move = np.where(np.abs(offset) > 0.5, np.sign(offset), 0).astype(np.int64)
        voxel = voxel + move
        moved = np.flatnonzero(move.any(axis=1) & ((voxel >= 0) & (voxel < np.array(edges.shape))).all(axis=1))
        voxel, edge, start, vector = voxel[moved], edge[moved], start[moved], vector[moved]
        q = voxel * edges.spacing - start
        square = (vector * vector).sum(axis=1)
        t = np.clip((q * vector).sum(axis=1) / np.where(square > 0, square, 1), 0, 1)
        d2 = ((q - t[:, None] * vector) ** 2).sum(axis=1)
        radius = np.maximum(edges.r_start[edge] + t * edges.r_change[edge], self.floor)
        return moved, np.ravel_multi_index(tuple(voxel.T), edges.shape), t, d2 > radius * radius


def bridge(label: np.ndarray, line: np.ndarray, tapered: Tapered) -> None:
    """Draw, in place, the steps from suspects to their edge where they are cut off from the centre line.

    Args:
        label: (z, y, x) bool, tubes and centre line.
        line: flat indices of the centre line.
    """
    flat_label = label.reshape(-1)
    flat, edge, t = tapered.suspects()
    moved, following, _, _ = tapered.step(flat, edge, t)
    moved = moved[~flat_label[following]]
    flat, edge, t = flat[moved], edge[moved], t[moved]
    if 0 < len(flat) <= _MAX_LOOKS:
        cut_off = np.array([not _is_held(label, line, one) for one in flat])
        flat, edge, t = flat[cut_off], edge[cut_off], t[cut_off]
    while len(flat):
        moved, flat, t, out = tapered.step(flat, edge, t)
        edge = edge[moved]
        flat_label[flat] = True
        flat, edge, t = flat[out], edge[out], t[out]


def _is_held(label: np.ndarray, line: np.ndarray, flat: int) -> bool:
    """Whether the voxel reaches the centre line within a small box around it."""
    centre = np.array(np.unravel_index(flat, label.shape))
    reach = _LOOK
    while True:
        low = np.maximum(centre - reach, 0)
        high = np.minimum(centre + reach + 1, label.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        part = label[box]
        names, _ = label_components(part)
        mine = np.argwhere(names == names[tuple(centre - low)]) + low
        if np.isin(np.ravel_multi_index(tuple(mine.T), label.shape), line).any():
            return True
        closed = not (((mine == low) & (low > 0)) | ((mine == high - 1) & (high < label.shape))).any()
        if closed or reach > 50:
            return False
        reach *= 2
