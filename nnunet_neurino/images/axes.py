"""Which axis is which: page, channel, time and colour axes -> (z, y, x) or (c, z, y, x), or a refusal."""

from __future__ import annotations

import os

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.findings import Finding
from nnunet_neurino.images.stack import Raw

_KNOWN = "CSTZYX"
_MEANING = {"C": "channels", "T": "time points", "S": "colours"}
# More channels than this beside fewer slices look like a z-stack with its axes mixed up.
_MOST_CHANNELS = 10


def in_order(
    path: str | os.PathLike[str], raw: Raw, axes: str | None, channel: int | None, time: int | None
) -> tuple[np.ndarray, list[Finding]]:
    """Bring the axes of ``raw`` into the order z, y, x or c, z, y, x; refuse what is ambiguous.

    Args:
        path: the file, for messages.
        raw: what was read.
        axes: the user's word on the axes, such as "ZYX" or "CZYX"; None trusts the file.
        channel: the one channel to keep (from 0); None keeps all.
        time: the one time point to keep (from 0); needed when there are several.

    Returns:
        (z, y, x) or (c, z, y, x), a view where possible, and what was found.
    """
    array, findings = raw.voxels, []
    shape = "x".join(map(str, array.shape))
    if axes is not None:
        names = _told(path, array, axes)
        if len(names) < array.ndim:
            array = array.squeeze()
    else:
        names = raw.axes.upper()
        keep = [i for i, name in enumerate(names) if name in "ZYX" or array.shape[i] > 1]
        array = array.reshape([array.shape[i] for i in keep])
        names = "".join(names[i] for i in keep)
        if "Z" in names and array.shape[names.index("Z")] == 1 and any(n not in "ZYXS" for n in names):
            array = array.squeeze(names.index("Z"))
            names = names.replace("Z", "")
        names, found = _find_z(path, array, names, f"{raw.axes} {shape}")
        findings += found
    if "Z" not in names:
        array, names = array[None], "Z" + names

    if "T" in names:
        array = _pick(path, array, names.index("T"), time, "time", f"{raw.axes} {shape}")
        names = names.replace("T", "")
    elif time not in (None, 0):
        raise NeurinoError(f"{path}: time point {time} was asked for, but the file ({raw.axes} {shape}) has one only")

    if "S" in names:
        array, names, found = _colours(array, names)
        findings += found
    if "C" in names:
        n_channels, n_slices = array.shape[names.index("C")], array.shape[names.index("Z")]
        if axes is None and channel is None and n_channels > _MOST_CHANNELS and n_channels > n_slices:
            raise NeurinoError(
                f"{path}: {n_channels} channels and {n_slices} slices ({raw.axes} {shape}) look mixed up; say which "
                f"axis is which: --axes {raw.axes} if the file is right, --axes "
                f"{raw.axes.translate(str.maketrans('CZ', 'ZC'))} if they are"
            )
    array = array.transpose([names.index(n) for n in "CZYX" if n in names])
    if "C" not in names:
        array = array[None]
    if channel is not None:
        if not 0 <= channel < len(array):
            raise NeurinoError(f"{path}: channel {channel} was asked for, the file has {len(array)} (counted from 0)")
        array = array[channel : channel + 1]
    return (array[0] if len(array) == 1 else array), findings


def _told(path: str | os.PathLike[str], array: np.ndarray, axes: str) -> str:
    names = axes.upper()
    squeezed = array.squeeze().ndim
    wrong = (
        any(n not in _KNOWN for n in names)
        or len(set(names)) != len(names)
        or not set("YX") <= set(names)
        or len(names) not in (array.ndim, squeezed)
    )
    if wrong:
        wanted = f"{array.ndim}" if array.ndim == squeezed else f"{squeezed} (or {array.ndim})"
        raise NeurinoError(
            f"{path}: axes {axes!r} do not fit the stored shape {'x'.join(map(str, array.shape))}: expected {wanted} "
            f"different letters out of {_KNOWN}, with Y and X among them"
        )
    return names


def _find_z(path: str | os.PathLike[str], array: np.ndarray, names: str, stored: str) -> tuple[str, list[Finding]]:
    unknown = [n for n in names if n not in _KNOWN]
    others = [n for n in names if n in "CT"]
    if not set("YX") <= set(names):
        raise NeurinoError(f"{path}: cannot tell the axes {stored}; name them with --axes, for example --axes ZYX")
    if "Z" in names and not unknown:
        if array.shape[names.index("Z")] == 1:
            _refuse_single_slice(path, stored)
        return names, []
    if "Z" not in names and len(unknown) == 1 and not others:
        findings = [Finding(0, f"the page axis is not named ({stored})", "taken as z")]
        at, depth, width = names.index(unknown[0]), array.shape[names.index(unknown[0])], array.shape[-1]
        if at == 0 and names[-1] == "X" and width * 4 < depth and width < 128:
            findings.append(Finding(0, f"the last axis is short ({stored}): if stored as x, y, z give --axes XYZ"))
        return names.replace(unknown[0], "Z"), findings
    if "Z" not in names and not unknown and len(others) == 1:
        count = array.shape[names.index(others[0])]
        raise NeurinoError(
            f"{path}: the file calls its {count} pages {_MEANING[others[0]]} and has no z axis ({stored}); "
            f"if they are slices give --axes {names.replace(others[0], 'Z')}"
        )
    if "Z" not in names and not unknown and not others:
        _refuse_single_slice(path, stored)
    guess = "TCZYX"[-len(names) :]
    raise NeurinoError(f"{path}: ambiguous axes ({stored}); say which is which, for example --axes {guess}")


def _refuse_single_slice(path: str | os.PathLike[str], stored: str) -> None:
    colours = "; if its colours are slices give --axes ZYX" if "S" in stored.split()[0] else ""
    raise NeurinoError(
        f"{path}: a single slice ({stored}), a stack was expected; give the folder that holds the slices, "
        f"or --axes YX for a stack of one slice{colours}"
    )


def _pick(
    path: str | os.PathLike[str], array: np.ndarray, axis: int, index: int | None, name: str, stored: str
) -> np.ndarray:
    count = array.shape[axis]
    if index is None and count > 1:
        raise NeurinoError(f"{path}: {count} {name} points ({stored}); choose one with --{name} 0 to {count - 1}")
    if not 0 <= (index or 0) < count:
        raise NeurinoError(f"{path}: {name} point {index} was asked for, the file has {count} (counted from 0)")
    return array[(slice(None),) * axis + (index or 0,)]


def _colours(array: np.ndarray, names: str) -> tuple[np.ndarray, str, list[Finding]]:
    """Colour samples become channels; an alpha channel is dropped, three equal colours are one."""
    array, rest = np.moveaxis(array, names.index("S"), 0), names.replace("S", "")
    findings = []
    if len(array) in (2, 4):
        findings.append(Finding(0, "an alpha (transparency) channel", "left out"))
        array = array[:-1]
    if len(array) > 1 and all(np.array_equal(array[0], other) for other in array[1:]):
        findings.append(Finding(0, f"{len(array)} equal colour channels", "one is kept"))
        array = array[:1]
    elif len(array) > 1:
        findings.append(
            Finding(0, f"a colour image: {len(array)} channels", "kept as channels (choose with --channel)")
        )
    if "C" in rest:  # colours within channels: a longer channel axis
        array = np.moveaxis(array, 1 + rest.index("C"), 0)
        array = array.reshape(-1, *array.shape[2:])
        return array, "C" + rest.replace("C", ""), findings
    if len(array) == 1:
        return array[0], rest, findings
    return array, "C" + rest, findings
