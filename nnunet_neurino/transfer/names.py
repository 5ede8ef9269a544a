"""The names that different libraries give to the weights of one 2D ConvNeXt.

Four schemes are read: Meta's original files, the transformers library, timm, and our own (that of
``nnunet_neurino.networks.ConvNeXt3d``), into which the others are turned. Tensors are never changed in shape, except
1x1 convolutions, which become matrices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.convnext import BLOCK_KERNEL, SIZES, STEM_KERNEL, ConvNeXtSize


class HasShape(Protocol):
    """A tensor, or anything that only knows a tensor's shape."""

    @property
    def shape(self) -> Iterable[int]: ...


T = TypeVar("T", bound=HasShape)

_DOWN = ("norm", "conv")  # order of the two layers between stages; the stem has them the other way round
_LAYER = r"(weight|bias)"


@dataclass(frozen=True)
class Scheme:
    """How one library names the encoder's weights.

    Attributes:
        title: the library.
        mark: the name of the stem's weight; its presence tells the scheme, what stands before it is a prefix.
        block: pattern of a block's weights: stage, block, rest.
        parts: the parts of a block -> ours.
        down: pattern of the layers between stages: stage, place, kind; stage 0 is the stem where ``stem`` is None.
        stem: pattern of the stem's layers: place, kind.
        unused: pattern of weights that the encoder does without.
    """

    title: str
    mark: str
    block: str
    parts: Mapping[str, str]
    down: str
    stem: str | None
    unused: str

    def our_name(self, name: str) -> str | None:
        """Our name for one of this scheme's, or None when it has no such name."""
        if match := re.fullmatch(self.block, name):
            stage, block, rest = match.groups()
            if rest == "gamma":
                return f"stages.{stage}.blocks.{block}.gamma"
            part, _, kind = rest.rpartition(".")
            known = part in self.parts and kind in ("weight", "bias")
            return f"stages.{stage}.blocks.{block}.{self.parts[part]}.{kind}" if known else None
        if self.stem is not None and (match := re.fullmatch(self.stem, name)):
            return f"stem.{_DOWN[1 - int(match[1])]}.{match[2]}"
        if match := re.fullmatch(self.down, name):
            stage, place, kind = match.groups()
            if stage == "0":
                return f"stem.{_DOWN[1 - int(place)]}.{kind}" if self.stem is None else None
            return f"stages.{stage}.downsample.{_DOWN[int(place)]}.{kind}"
        return None


TIMM = Scheme(
    title="timm",
    mark="stem.0.weight",
    block=r"stages\.(\d)\.blocks\.(\d+)\.(.+)",
    parts={"conv_dw": "depthwise", "norm": "norm", "mlp.fc1": "expand", "mlp.fc2": "project"},
    down=rf"stages\.(\d)\.downsample\.([01])\.{_LAYER}",
    stem=rf"stem\.([01])\.{_LAYER}",
    unused=r"head\..+|norm_pre\..+",
)
TRANSFORMERS = Scheme(
    title="transformers",
    mark="stages.0.downsample_layers.0.weight",
    block=r"stages\.(\d)\.layers\.(\d+)\.(.+)",
    parts={
        "depthwise_conv": "depthwise",
        "layer_norm": "norm",
        "pointwise_conv1": "expand",
        "pointwise_conv2": "project",
    },
    down=rf"stages\.(\d)\.downsample_layers\.([01])\.{_LAYER}",
    stem=None,
    unused=rf"layer_norm\.{_LAYER}|pool\..+",
)
ORIGINAL = Scheme(
    title="original",
    mark="downsample_layers.0.0.weight",
    block=r"stages\.(\d)\.(\d+)\.(.+)",
    parts={"dwconv": "depthwise", "norm": "norm", "pwconv1": "expand", "pwconv2": "project"},
    down=rf"downsample_layers\.(\d)\.([01])\.{_LAYER}",
    stem=None,
    unused=rf"norms?\.(\d\.)?{_LAYER}|head\..+",
)

SCHEMES = (TIMM, TRANSFORMERS, ORIGINAL)
OWN_TITLE = "nnunet_neurino"
_OWN_MARK = "stem.conv.weight"


@dataclass(frozen=True)
class Renamed:
    """Where the encoder's weights are.

    Attributes:
        scheme: title of the naming scheme found.
        theirs: our name -> the name found.
    """

    scheme: str
    theirs: dict[str, str]


def renamed(names: Iterable[str]) -> Renamed:
    """Find out the scheme of ``names`` and which of them are the encoder's weights.

    Prefixes in front of the whole encoder (``model.``, ``backbone.``, ``module.`` ...) do not matter.

    Raises:
        NeurinoError: no ConvNeXt, two of them, or a name that a ConvNeXt does not have.
    """
    names = list(names)
    found = [(scheme.title, scheme.mark, scheme.our_name, scheme.unused) for scheme in SCHEMES]
    found.append((OWN_TITLE, _OWN_MARK, _own_name, r"(?!)"))
    marks = [
        (name[: -len(mark)], title, our_name, unused)
        for title, mark, our_name, unused in found
        for name in names
        if name == mark or name.endswith("." + mark)
    ]
    if len(marks) != 1:
        wrong = f"{len(marks)} ConvNeXt encoders" if marks else "no ConvNeXt encoder"
        known = ", ".join(f"'{mark}' ({title})" for title, mark, _, _ in found)
        raise NeurinoError(f"{wrong} among {len(names)} weights: expected exactly one name that ends in one of {known}")
    prefix, title, our_name, unused = marks[0]
    theirs = {}
    for name in names:
        if not name.startswith(prefix):
            continue
        bare = name[len(prefix) :]
        ours = our_name(bare)
        if ours is not None:
            theirs[ours] = name
        elif not re.fullmatch(unused, bare):
            raise NeurinoError(f"weight '{name}' does not belong to a ConvNeXt as {title} names it")
    return Renamed(title, theirs)


def _own_name(name: str) -> str | None:
    own = rf"stem\.(conv|norm)\.{_LAYER}|stages\.\d\.downsample\.(conv|norm)\.{_LAYER}"
    block = rf"stages\.\d\.blocks\.\d+\.(gamma|(depthwise|norm|expand|project)\.{_LAYER})"
    return name if re.fullmatch(f"{own}|{block}", name) else None


def expected_shapes(size: ConvNeXtSize) -> dict[str, tuple[int, ...]]:
    """Our names and the shapes of the 2D weights of a ConvNeXt with RGB input."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    layer("stem.conv", size.widths[0], 3, STEM_KERNEL, STEM_KERNEL)
    layer("stem.norm", size.widths[0])
    for stage, (depth, width) in enumerate(zip(size.depths, size.widths, strict=True)):
        if stage:
            layer(f"stages.{stage}.downsample.norm", size.widths[stage - 1])
            layer(f"stages.{stage}.downsample.conv", width, size.widths[stage - 1], 2, 2)
        for block in range(depth):
            prefix = f"stages.{stage}.blocks.{block}"
            shapes[f"{prefix}.gamma"] = (width,)
            layer(f"{prefix}.depthwise", width, 1, BLOCK_KERNEL, BLOCK_KERNEL)
            layer(f"{prefix}.norm", width)
            layer(f"{prefix}.expand", 4 * width, width)
            layer(f"{prefix}.project", width, 4 * width)
    return shapes


def size_of(shapes: Mapping[str, tuple[int, ...]], shown: Callable[[str], str] = str) -> str:
    """The name of the size that ``shapes`` (by our names) make up, every name and shape checked.

    Args:
        shapes: of the 2D weights.
        shown: turns our name of a weight into the one to show in an error message.
    """
    widths = tuple(shapes.get(f"stages.{stage}.blocks.0.gamma", (0,))[0] for stage in range(4))
    depths = tuple(
        len({name.split(".")[3] for name in shapes if name.startswith(f"stages.{stage}.blocks.")}) for stage in range(4)
    )
    if not all(widths) or not all(depths):
        raise NeurinoError("the weights of at least one of the four stages are missing; the file is incomplete")
    nearest = min(SIZES, key=lambda name: (_apart(SIZES[name].widths, widths), _apart(SIZES[name].depths, depths)))
    expected = expected_shapes(SIZES[nearest])
    if SIZES[nearest].widths != widths or any(
        found > wanted for found, wanted in zip(depths, SIZES[nearest].depths, strict=True)
    ):
        known = "; ".join(f"{name}: {size.widths}, {size.depths}" for name, size in SIZES.items())
        raise NeurinoError(f"a ConvNeXt of widths {widths} and depths {depths} is not one of the sizes known ({known})")
    missing = [name for name in expected if name not in shapes]
    if missing:
        raise NeurinoError(
            f"{len(missing)} weights of ConvNeXt-{nearest} are missing, the first is '{shown(missing[0])}'; "
            "the file is incomplete"
        )
    for name, shape in expected.items():
        if tuple(shapes[name]) not in (shape, (*shape, 1, 1)):
            raise NeurinoError(
                f"weight '{shown(name)}' has shape {tuple(shapes[name])}; ConvNeXt-{nearest} has {shape} there"
            )
    return nearest


def _apart(a: Iterable[int], b: Iterable[int]) -> int:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))
