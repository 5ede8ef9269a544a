"""The rules of the parity fixture: how its weights and its image are filled, and the published network's names."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

DEPTHS = {"tiny": (3, 3, 9, 3), "small": (3, 3, 27, 3), "base": (3, 3, 27, 3)}
WIDTHS = {"tiny": (96, 192, 384, 768), "small": (96, 192, 384, 768), "base": (128, 256, 512, 1024)}

Entry = tuple[str, Sequence[int], str]


def filled(entries: Iterable[Entry]) -> dict[str, Tensor]:
    """A state dict with the fixture's weights for (name, shape, dtype) entries."""
    return {name: torch.from_numpy(_values(name, tuple(shape), dtype)) for name, shape, dtype in entries}


def _values(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if not dtype.startswith("float") or not shape:
        return np.full(shape, 1 if name.endswith("rmax_buf") else 0, dtype=dtype)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = rng.standard_normal(int(np.prod(shape))).reshape(shape)
    if name.endswith("running_var"):
        x = 1 + 0.2 * np.abs(x)
    elif name.endswith("running_mean"):
        x = 0.1 * x
    elif name.endswith("gamma") and len(shape) == 1:
        x = 0.5 + 0.1 * x
    elif len(shape) == 1:
        x = 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    return x.astype(np.float32)


def image(shape: Sequence[int], seed: int) -> Tensor:
    """The fixture's image (1, 1, z, y, x)."""
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij")
    values = np.sin(0.31 * x + 0.1 * seed) + np.cos(0.17 * y + 0.23 * z)
    values = values + 0.5 * np.sin(0.05 * x * y / shape[2] + 0.4 * z)
    return torch.from_numpy(values.astype(np.float32))[None, None]


def published_entries(
    size: str,
    stem_stride: int = 2,
    grn: bool = False,
    in_channels: int = 1,
    num_classes: int = 2,
    deep_supervision: bool = True,
) -> list[Entry]:
    """Names and shapes of the published network's state dict."""
    widths = WIDTHS[size]
    entries: list[Entry] = [("dummy_tensor", (1,), "float32")]
    for stage, (width, depth) in enumerate(zip(widths, DEPTHS[size], strict=True)):
        prefix = f"encoder.stages.{stage}."
        before = in_channels if stage == 0 else widths[stage - 1]
        taps, conv, norm = (4, 0, 1) if stage == 0 else (2, 1, 0)
        layers = {conv: _pair((width, before, taps, taps, taps)), norm: _pair((width if stage == 0 else before,))}
        for place in (0, 1):
            entries += [(f"{prefix}downsample_layers.{place}.{k}", s, "float32") for k, s in layers[place]]
        for block in range(depth):
            entries += _encoder_block(f"{prefix}layers.{block}.", width)
    entries += [(f"encoder.layer_norm.{kind}", (widths[3],), "float32") for kind in ("weight", "bias")]
    for block in range(2):
        entries += _block(f"bottleneck.{block}.", widths[3], widths[3], grn)
    down_to_up = [*reversed(widths), widths[0] // 2]
    for level in (3, 2, 1, 0):
        above, here = down_to_up[3 - level], down_to_up[4 - level]
        entries += _block(f"up_{level}.", above, here, grn, up=True)
        for block in range(2):
            entries += _block(f"dec_block_{level}.{block}.", here, here, grn)
    heads = [widths[0] // 2, *widths]
    if stem_stride == 4:
        entries += _block("up_extra.", widths[0] // 2, widths[0] // 4, grn, up=True)
        heads = [widths[0] // 4, widths[0] // 2, *widths[:3]]
    for head, width in enumerate(heads[: 5 if deep_supervision else 1]):
        entries.append((f"out_{head}.conv_out.weight", (width, num_classes, 1, 1, 1), "float32"))
        entries.append((f"out_{head}.conv_out.bias", (num_classes,), "float32"))
    return entries


def _pair(shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    return [("weight", shape), ("bias", shape[:1])]


def _encoder_block(prefix: str, width: int) -> list[Entry]:
    shapes = [("gamma", (width,))]
    for part, shape in (
        ("depthwise_conv", (width, 1, 3, 7, 7)),
        ("layer_norm", (width,)),
        ("pointwise_conv1", (4 * width, width)),
        ("pointwise_conv2", (width, 4 * width)),
    ):
        shapes += [(f"{part}.{kind}", kind_shape) for kind, kind_shape in _pair(shape)]
    return [(prefix + name, shape, "float32") for name, shape in shapes]


def _block(prefix: str, before: int, after: int, grn: bool, up: bool = False) -> list[Entry]:
    entries: list[Entry] = []
    if grn:
        entries += [(f"{prefix}grn_{kind}", (1, 2 * before, 1, 1, 1), "float32") for kind in ("beta", "gamma")]
    shapes = [("conv1", (before, 1, 3, 3, 3)), ("norm", (before,)), ("conv2", (2 * before, before, 1, 1, 1))]
    for part, shape in [*shapes, ("conv3", (after, 2 * before, 1, 1, 1))]:
        entries += [(f"{prefix}{part}.{kind}", kind_shape, "float32") for kind, kind_shape in _pair(shape)]
        if part == "norm":
            entries += [(f"{prefix}norm.running_{kind}", (before,), "float32") for kind in ("mean", "var")]
            entries.append((f"{prefix}norm.num_batches_tracked", (), "int64"))
            entries += [(f"{prefix}norm.{kind}_buf", (), "float32") for kind in ("rmax", "dmax")]
    if up:
        entries.append((f"{prefix}res_conv.weight", (before, after, 1, 1, 1), "float32"))
        entries.append((f"{prefix}res_conv.bias", (after,), "float32"))
    return entries
