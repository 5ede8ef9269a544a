"""The names that different libraries give to the weights of one 2D vision transformer.

Read are timm's (also those of Meta's original files, of DINO and of DINOv3), those of the transformers library, and our
own. Queries, keys and values that a library keeps apart are put together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.vit import PATCH, VITS, ViTSize

_LAYER = r"(weight|bias)"
_WHOLE = ""
_QKV = ("q", "k", "v")


@dataclass(frozen=True)
class ViTScheme:
    """How one library names a ViT's weights.

    Attributes:
        title: the library.
        mark: the name of the patch embedding's weight; what stands before it is a prefix.
        plain: names outside of the blocks -> ours.
        block: pattern of a block's names: number, rest.
        parts: the rest of such a name -> ours, and which of q, k, v it is ("" for all of it).
        unused: pattern of weights that the encoder does without.
    """

    title: str
    mark: str
    plain: Mapping[str, str]
    block: str
    parts: Mapping[str, tuple[str, str]]
    unused: str

    def our_name(self, name: str) -> tuple[str, str] | None:
        """Our name for one of this scheme's, and the part of it; None when it has no such name."""
        if name in self.plain:
            return self.plain[name], _WHOLE
        match = re.fullmatch(self.block, name)
        if match and match[2] in self.parts:
            ours, part = self.parts[match[2]]
            return f"blocks.{match[1]}.{ours}", part
        return None


def _layers(names: Mapping[str, str]) -> dict[str, str]:
    """Weights and biases of layers."""
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in names.items() for kind in ("weight", "bias")}


def _whole(names: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {theirs: (ours, _WHOLE) for theirs, ours in names.items()}


_OUR_LAYERS = {name: name for name in ("norm1", "qkv", "proj", "norm2", "fc1", "fc2")}

TIMM = ViTScheme(
    title="timm or Meta's original",
    mark="patch_embed.proj.weight",
    plain={
        "cls_token": "cls_token",
        "pos_embed": "pos_embed",
        "reg_token": "reg_token",
        "storage_tokens": "reg_token",
        **_layers({"patch_embed.proj": "patch_embed", "norm": "norm"}),
    },
    block=r"blocks\.(\d+)\.(.+)",
    parts={
        **_whole(
            _layers(
                {
                    "norm1": "norm1",
                    "attn.qkv": "qkv",
                    "attn.proj": "proj",
                    "norm2": "norm2",
                    "mlp.fc1": "fc1",
                    "mlp.fc2": "fc2",
                }
            )
        ),
        **_whole({"gamma_1": "gamma1", "gamma_2": "gamma2", "ls1.gamma": "gamma1", "ls2.gamma": "gamma2"}),
        "attn.q_bias": ("qkv.bias", "q"),
        "attn.v_bias": ("qkv.bias", "v"),
    },
    unused=r"(head|fc_norm|head_dist|local_cls_norm)\..+|mask_token|rope(_embed)?\..+",
)
TRANSFORMERS = ViTScheme(
    title="transformers (ViT)",
    mark="embeddings.patch_embeddings.projection.weight",
    plain={
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        **_layers({"embeddings.patch_embeddings.projection": "patch_embed", "layernorm": "norm"}),
    },
    block=r"encoder\.layer\.(\d+)\.(.+)",
    parts={
        **_whole(
            _layers(
                {
                    "layernorm_before": "norm1",
                    "attention.output.dense": "proj",
                    "layernorm_after": "norm2",
                    "intermediate.dense": "fc1",
                    "output.dense": "fc2",
                }
            )
        ),
        **{
            f"attention.attention.{theirs}.{kind}": (f"qkv.{kind}", theirs[0])
            for theirs in ("query", "key", "value")
            for kind in ("weight", "bias")
        },
    },
    unused=r"pooler\..+|embeddings\.mask_token|classifier\..+",
)
TRANSFORMERS_V3 = ViTScheme(
    title="transformers (DINOv3)",
    mark="embeddings.patch_embeddings.weight",
    plain={
        "embeddings.cls_token": "cls_token",
        "embeddings.register_tokens": "reg_token",
        **_layers({"embeddings.patch_embeddings": "patch_embed", "norm": "norm"}),
    },
    block=r"(?:model\.)?layer\.(\d+)\.(.+)",
    parts={
        **_whole(
            _layers(
                {
                    "norm1": "norm1",
                    "attention.o_proj": "proj",
                    "norm2": "norm2",
                    "mlp.up_proj": "fc1",
                    "mlp.down_proj": "fc2",
                }
            )
        ),
        **_whole({"layer_scale1.lambda1": "gamma1", "layer_scale2.lambda1": "gamma2"}),
        **{f"attention.{part}_proj.{kind}": (f"qkv.{kind}", part) for part in _QKV for kind in ("weight", "bias")},
    },
    unused=r"embeddings\.mask_token|rope_embeddings\..+",
)
OWN = ViTScheme(
    title="nnunet_neurino",
    mark="patch_embed.weight",
    plain={
        **{name: name for name in ("cls_token", "pos_embed", "reg_token")},
        **_layers({"patch_embed": "patch_embed", "norm": "norm"}),
    },
    block=r"blocks\.(\d+)\.(.+)",
    parts=_whole({**_layers(_OUR_LAYERS), "gamma1": "gamma1", "gamma2": "gamma2"}),
    unused=r"(?!)",
)
VIT_SCHEMES = (TIMM, TRANSFORMERS, TRANSFORMERS_V3, OWN)


@dataclass(frozen=True)
class RenamedViT:
    """Where a ViT's weights are.

    Attributes:
        scheme: title of the naming scheme found.
        pieces: our name -> the parts of it ("q", "k", "v", or "" for all of it) -> the name found.
        masked: our names of biases of which the keys' part does not count, whatever it holds.
    """

    scheme: str
    pieces: dict[str, dict[str, str]]
    masked: frozenset[str] = frozenset()

    def shapes(self, found: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Shapes by our names; parts put together."""
        shapes = {}
        for ours, parts in self.pieces.items():
            first = tuple(found[next(iter(parts.values()))])
            shapes[ours] = first if _WHOLE in parts else (3 * first[0], *first[1:])
        return shapes


def renamed_vit(names: Iterable[str]) -> RenamedViT:
    """Find out the scheme of ``names`` and which of them are the weights of the ViT.

    Prefixes in front of the whole ViT (``backbone.``, ``module.`` ...) do not matter.

    Raises:
        NeurinoError: no ViT, two of them, or a name that a ViT does not have.
    """
    names = list(names)
    marks = [
        (name[: -len(scheme.mark)], scheme)
        for scheme in VIT_SCHEMES
        for name in names
        if name == scheme.mark or name.endswith("." + scheme.mark)
    ]
    if len(marks) != 1:
        wrong = f"{len(marks)} vision transformers" if marks else "no vision transformer"
        known = ", ".join(f"'{scheme.mark}' ({scheme.title})" for scheme in VIT_SCHEMES)
        raise NeurinoError(f"{wrong} among {len(names)} weights: expected exactly one name that ends in one of {known}")
    prefix, scheme = marks[0]
    pieces: dict[str, dict[str, str]] = {}
    masked = set()
    for name in names:
        if not name.startswith(prefix):
            continue
        bare = name[len(prefix) :]
        found = scheme.our_name(bare)
        # DINOv3's files multiply the keys' bias by a mask of zeros.
        masked_bias = scheme.our_name(bare.removesuffix("_mask")) if bare.endswith("qkv.bias_mask") else None
        if masked_bias is not None:
            masked.add(masked_bias[0])
        elif found is not None:
            pieces.setdefault(found[0], {})[found[1]] = name
        elif not re.fullmatch(scheme.unused, bare):
            raise NeurinoError(f"weight '{name}' does not belong to a ViT/{PATCH} as {scheme.title} names it")
    for ours, parts in pieces.items():
        lacking = [part for part in _QKV if part not in parts and not (ours.endswith("qkv.bias") and part == "k")]
        if _WHOLE not in parts and lacking:
            raise NeurinoError(f"of weight '{ours}' the part '{lacking[0]}' is missing; the file is incomplete")
    return RenamedViT(scheme.title, pieces, frozenset(masked))


def expected_vit_shapes(size: ViTSize) -> dict[str, tuple[int, ...]]:
    """Our names and the shapes of the 2D weights of a ViT with RGB input."""
    width = size.width
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, width)}
    if size.registers:
        shapes["reg_token"] = (1, size.registers, width)
    if size.native is not None:
        shapes["pos_embed"] = (1, 1 + size.native[0] * size.native[1], width)

    def layer(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    layer("patch_embed", width, 3, PATCH, PATCH)
    for block in range(size.depth):
        prefix = f"blocks.{block}"
        layer(f"{prefix}.norm1", width)
        layer(f"{prefix}.qkv", 3 * width, width)
        layer(f"{prefix}.proj", width, width)
        layer(f"{prefix}.norm2", width)
        layer(f"{prefix}.fc1", 4 * width, width)
        layer(f"{prefix}.fc2", width, 4 * width)
        if size.layer_scale is not None:
            shapes[f"{prefix}.gamma1"] = shapes[f"{prefix}.gamma2"] = (width,)
    layer("norm", width)
    return shapes


def vit_of(shapes: Mapping[str, tuple[int, ...]], shown: Callable[[str], str] = str) -> str:
    """The name in ``VITS`` that ``shapes`` (by our names) make up, every name and shape checked.

    Args:
        shapes: of the 2D weights. The bias of queries, keys and values may be missing: it is then zero.
        shown: turns our name of a weight into the one to show in an error message.
    """
    if "cls_token" not in shapes:
        raise NeurinoError("the class token is missing; the file is incomplete, or not a ViT of DINO or DINOv3")
    width = shapes["cls_token"][-1]
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    rotary = "pos_embed" not in shapes
    fits = [name for name, size in VITS.items() if size.width == width and (size.native is None) == rotary]
    if not fits or depth > VITS[fits[0]].depth:
        known = "; ".join(f"{name}: {size.width}, {size.depth}" for name, size in VITS.items())
        kind = "rotary" if rotary else "learned"
        raise NeurinoError(
            f"a ViT of width {width} and {depth} blocks with {kind} positions is not one of those known ({known})"
        )
    expected = expected_vit_shapes(VITS[fits[0]])
    missing = [name for name in expected if name not in shapes and not name.endswith("qkv.bias")]
    if missing:
        raise NeurinoError(
            f"{len(missing)} weights of ViT {fits[0]} are missing, the first is '{shown(missing[0])}'; the file is "
            "incomplete"
        )
    extra = [name for name in shapes if name not in expected]
    if extra:
        raise NeurinoError(f"weight '{shown(extra[0])}' does not belong to ViT {fits[0]}")
    for name, shape in expected.items():
        if name in shapes and tuple(shapes[name]) != shape:
            raise NeurinoError(
                f"weight '{shown(name)}' has shape {tuple(shapes[name])}; ViT {fits[0]} has {shape} there"
            )
    return fits[0]
