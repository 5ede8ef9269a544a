"""Vaa3D's compressed stacks (.v3dpbd), the form in which the BigNeuron gold set is published.

The data are a chain of codes. A code byte says what follows and how many values it stands for: values as they are, one
value repeated, or small differences from value to value. The lengths in the chain must be followed one by one; all the
rest is done on whole arrays.

========  ===========================================  ===========================================
form      8-bit voxels: code -> values                 16-bit voxels: code -> values
========  ===========================================  ===========================================
as it is  0-32 -> code + 1                             0-31 -> code + 1
differ    33-127 -> code - 32, 2 bits each (low first)  32-79 -> code - 31, 3 bits each (high first)
                                                       80-182 -> code - 79, 4 bits each
                                                       183-222 -> code - 182, 5 bits each
repeat    128-255 -> code - 127                        223-255 -> code - 222
========  ===========================================  ===========================================

A difference of b bits counts 0, 1, ... 2^(b-1) and then -1, -2, ...
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images.stack import Raw, check_size
from nnunet_neurino.images.vaa3d import read_header

# Compressed bytes looked at together: bounds the memory beyond the result to some tens of MiB.
_CHUNK = 1 << 18
_AS_IS, _REPEAT = 0, -1


class _Codes:
    """For each of the 256 codes: form (0 as it is, -1 repeat, else bits of a difference), values, bytes in all."""

    def __init__(self, itemsize: int) -> None:
        code = np.arange(256)
        if itemsize == 1:
            self.form = np.select([code < 33, code < 128], [_AS_IS, 2], _REPEAT)
            self.values = np.select([code < 33, code < 128], [code + 1, code - 32], code - 127)
        else:
            below = [code < 32, code < 80, code < 183, code < 223]
            self.form = np.select(below, [_AS_IS, 3, 4, 5], _REPEAT)
            self.values = np.select(below, [code + 1, code - 31, code - 79, code - 182], code - 222)
        self.length = 1 + np.select(
            [self.form == _AS_IS, self.form == _REPEAT],
            [self.values * itemsize, itemsize],
            -(-self.values * self.form // 8),
        )


def read_v3dpbd(path: Path, max_bytes: int | None = None) -> Raw:
    """Decode a .v3dpbd file of 8- or 16-bit voxels."""
    header = read_header(path)
    itemsize = header.dtype.itemsize
    if header.dtype.kind == "f":
        raise NeurinoError(f"{path}: compressed float voxels are not defined; save it as .v3draw in Vaa3D")
    source = np.memmap(path, dtype=np.uint8, mode="r")[header.offset :]
    promised = header.n_bytes // itemsize
    shape = "x".join(map(str, header.shape))
    # The best a code can do is 128 (8-bit) or 33 (16-bit) values in 1 + itemsize bytes.
    if promised > len(source) * (64 if itemsize == 1 else 11):
        raise _wrong(path, shape, f"{len(source):,} compressed bytes cannot hold that many")
    check_size(path, header.shape, itemsize, max_bytes)
    voxels = np.empty(promised, dtype=header.dtype.newbyteorder("="))
    done = _decode(source, voxels, header.dtype, path, shape)
    if done < promised:
        raise _wrong(path, shape, f"the data end after {done:,}")
    return Raw(voxels.reshape(header.shape), header.axes)


def _wrong(path: str | os.PathLike[str], shape: str, what: str) -> NeurinoError:
    return NeurinoError(
        f"{path}: {shape} voxels promised, but {what}: the file is damaged or cut short, fetch it again"
    )


def _decode(source: np.ndarray, voxels: np.ndarray, dtype: np.dtype, path: Path, shape: str) -> int:
    codes, done, start, prior = _Codes(dtype.itemsize), 0, 0, 0
    n_source, longest = len(source), int(codes.length.max())
    while start < n_source and done < len(voxels):
        chunk = np.array(source[start : start + _CHUNK + longest])
        at = _chain(chunk, codes, min(_CHUNK, len(chunk)))
        whole = at + codes.length[chunk[at]] <= len(chunk)
        if not whole.all():  # only the last code of the file can be cut
            at = at[whole]
        if not len(at):
            break
        values = _values(chunk, at, codes, dtype, prior)
        if done + len(values) > len(voxels):
            raise _wrong(path, shape, "the data hold more")
        voxels[done : done + len(values)] = values
        done += len(values)
        prior = int(values[-1])
        start += int(at[-1] + codes.length[chunk[at[-1]]])
    if done == len(voxels) and start < n_source:
        raise _wrong(path, shape, f"{n_source - start:,} bytes are left over")
    return done


def _chain(chunk: np.ndarray, codes: _Codes, stop: int) -> np.ndarray:
    """Positions of the code bytes that begin before ``stop``."""
    following = (np.arange(stop) + codes.length[chunk[:stop]]).tolist()
    positions, position = [], 0
    while position < stop:
        positions.append(position)
        position = following[position]
    return np.array(positions, dtype=np.int64)


def _values(chunk: np.ndarray, at: np.ndarray, codes: _Codes, dtype: np.dtype, prior: int) -> np.ndarray:
    """Decode the codes at ``at``; ``prior`` is the value before them."""
    code = chunk[at]
    counts, forms = codes.values[code], codes.form[code]
    first = np.cumsum(counts) - counts
    total = int(counts.sum())
    form = np.repeat(forms.astype(np.int8), counts)
    within = np.arange(total) - np.repeat(first, counts)
    data = np.repeat(at + 1, counts)

    stored = np.zeros(total, dtype=np.int64)  # values where they are given, differences elsewhere
    given = np.flatnonzero(form <= 0)
    place = data[given] + np.where(form[given] == _AS_IS, within[given] * dtype.itemsize, 0)
    if dtype.itemsize == 1:
        stored[given] = chunk[place]
    else:
        low, high = (0, 1) if dtype.str[0] != ">" else (1, 0)
        stored[given] = chunk[place + low].astype(np.int64) | chunk[place + high].astype(np.int64) << 8
    padded = np.append(chunk, np.uint8(0)).astype(np.int32)
    for bits in (2,) if dtype.itemsize == 1 else (3, 4, 5):
        here = np.flatnonzero(form == bits)
        if not len(here):
            continue
        bit = within[here] * bits
        byte = data[here] + bit // 8
        if bits == 2:
            difference = padded[byte] >> (bit % 8) & 3
        else:
            difference = (padded[byte] << 8 | padded[byte + 1]) >> (16 - bits - bit % 8) & ((1 << bits) - 1)
        half = 1 << (bits - 1)
        stored[here] = np.where(difference <= half, difference, half - difference)

    # A value is the last given one before it plus the differences since, modulo the size of a voxel.
    is_given = form <= 0
    summed = np.cumsum(np.where(is_given, 0, stored))
    last = np.maximum.accumulate(np.where(is_given, np.arange(total), -1))
    anchor = np.maximum(last, 0)
    base = np.where(last >= 0, stored[anchor] - summed[anchor], prior)
    return (base + summed).astype(f"u{dtype.itemsize}")  # the cast wraps around
