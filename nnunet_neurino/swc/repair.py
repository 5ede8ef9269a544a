"""Making radii and types fit for use where a file's own are not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.swc.shape import sections
from nnunet_neurino.swc.tree import FARTHEST, SOMA, UNDEFINED, Tree, parents_first_order

#: Types that MorphIO reads: SWC's own and its custom ones.
_KNOWN_TYPES = 20


def repair_radii(
    tree: Tree,
    default: float = 1.0,
    scale: float = 1.0,
    constant: float | None = None,
    minimum: float = 0.0,
    maximum: float = math.inf,
) -> Tree:
    """Give every node a usable radius.

    In this order: all radii are multiplied by ``scale`` (a file whose radii are in another unit than its positions,
    or are diameters); radii that are all the same become ``constant``, if that is given; a radius of zero becomes
    that of the nearest node above with one, else the nearest below, else ``default``; then radii are kept between
    ``minimum`` and ``maximum``. What was done is added to the findings.

    Args:
        default: for pieces without any radius; in the tree's unit, as all lengths here.
    """
    for name, value in (("default", default), ("scale", scale), ("constant", constant)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise NeurinoError(f"repair_radii: expected {name} above 0, got {value!r}")
    if not 0 <= minimum <= maximum:
        raise NeurinoError(f"repair_radii: expected 0 <= minimum <= maximum, got {minimum!r} and {maximum!r}")
    radii = tree.radii * scale
    if (radii > FARTHEST).any():
        raise NeurinoError(f"repair_radii: radii up to {radii.max():g}, beyond {FARTHEST:g}; take a smaller scale")
    notes = []
    if scale != 1:
        notes.append(Finding(0, "radii in another unit", f"multiplied by {scale:g}"))
    if constant is not None and len(radii) and (radii == radii[0]).all():
        notes.append(Finding(0, f"every radius is {radii[0]:g}", f"set to {constant:g}"))
        radii = np.full(len(radii), float(constant))
    zero = int((radii == 0).sum())
    if zero:
        radii = _fill_zeros(radii, tree.parents, default)
        notes.append(Finding(0, f"{zero} radii are zero", "taken from the nearest node above or below"))
    limited = np.clip(radii, minimum, maximum)
    changed = int((limited != radii).sum())
    if changed:
        notes.append(Finding(0, f"{changed} radii beyond {minimum:g} to {maximum:g}", "set to the nearer limit"))
    return replace(tree, radii=limited, findings=(*tree.findings, *notes))


def _fill_zeros(radii: np.ndarray, parents: np.ndarray, default: float) -> np.ndarray:
    filled = radii.tolist()
    above = parents.tolist()
    order = parents_first_order(parents).tolist()
    for row in order:
        if filled[row] == 0 and above[row] >= 0:
            filled[row] = filled[above[row]]
    for row in reversed(order):
        if above[row] >= 0 and filled[above[row]] == 0:
            filled[above[row]] = filled[row]
    for row in order:  # branches beside the one that lent its radius to the top
        if filled[row] == 0:
            filled[row] = filled[above[row]] if above[row] >= 0 else default
    return np.array(filled)


def portable_types(tree: Tree) -> Tree:
    """Types that strict readers (MorphIO) accept: known numbers, and one type a section.

    Numbers outside 0 to 19 (colours, in Vaa3D's files) become 0. The nodes of an unbranched section take its most
    frequent type (the smallest of equals); somata stay, and the top of a section belongs to the section above.
    """
    types = np.where((tree.types < 0) | (tree.types >= _KNOWN_TYPES), UNDEFINED, tree.types)
    for rows in sections(tree):
        own = rows[1:]
        neurite = own[types[own] != SOMA]
        if len(neurite):
            types[neurite] = np.bincount(types[neurite]).argmax()
    # A root is the first point of a section: a type of its own there would be a change without a fork.
    n_children = tree.n_children()
    for root in tree.roots[(n_children[tree.roots] == 1) & (types[tree.roots] != SOMA)]:
        types[root] = types[np.flatnonzero(tree.parents == root)[0]]
    return replace(tree, types=types)
