"""The names that different libraries give to the weights of one 2D network, turned into timm's.

Read are timm's names, Meta's original ones, those of the transformers library, and those in files that earlier
versions of ours converted. A library is recognised by the name of the network's first kernel; prefixes in front of a
whole network (``model.``, ``backbone.``, ``module.`` ...) do not matter.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.old_names import Rules, current_name, substituted


@dataclass(frozen=True)
class Library:
    """How one library names the weights of a network."""

    title: str  # the library
    mark: str  # the name of the first kernel
    # turns a name into timm's; a name that the library does not have becomes one that timm does not have
    timms: Callable[[str], str]


@dataclass(frozen=True)
class Renamed:
    """Where a network's weights are."""

    library: str  # title of the library found
    theirs: dict[str, str]  # timm's name -> the name found


def renamed(names: Iterable[str], libraries: Iterable[Library], network: str) -> Renamed:
    """Find out whose ``names`` these are.

    Args:
        names: of all weights in a file.
        libraries: that may have named them.
        network: what to call it in messages.

    Raises:
        NeurinoError: no such network, two of them, or two weights of one name.
    """
    names = list(names)
    libraries = list(libraries)
    marks = [
        (name.removesuffix(library.mark), library)
        for library in libraries
        for name in names
        if name == library.mark or name.endswith("." + library.mark)
    ]
    if len(marks) != 1:
        wrong = f"{len(marks)} {network}s" if marks else f"no {network}"
        known = ", ".join(f"'{library.mark}' ({library.title})" for library in libraries)
        raise NeurinoError(f"{wrong} among {len(names)} weights: expected exactly one name that ends in one of {known}")
    prefix, library = marks[0]
    theirs: dict[str, str] = {}
    for name in names:
        if name.startswith(prefix):
            new = library.timms(name.removeprefix(prefix))
            if new in theirs:
                raise NeurinoError(f"weight '{name}' is there twice: '{theirs[new]}' is the same one")
            theirs[new] = name
    return Renamed(library.title, theirs)


def import_timm() -> Any:
    """timm, which takes seconds to import, without PyTorch's warning that something in it is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import timm
    return timm


def _metas_convnext(name: str) -> str:
    """By timm's filter. It gets a vector: it would reshape a matrix of a wrong shape, where we refuse it."""
    return next(iter(import_timm().models.convnext.checkpoint_filter_fn({name: torch.zeros(1)}, None)))


TRANSFORMERS_CONVNEXT: Rules = (
    (r"^stages\.0\.downsample_layers\.", "stem."),
    (r"^(stages\.\d)\.downsample_layers\.", r"\1.downsample."),
    (r"^(stages\.\d)\.layers\.", r"\1.blocks."),
    (r"\.depthwise_conv\.", ".conv_dw."),
    (r"\.layer_norm\.", ".norm."),
    (r"\.pointwise_conv([12])\.", r".mlp.fc\1."),
)

CONVNEXT_LIBRARIES = (
    Library("timm", "stem.0.weight", str),
    Library("transformers", "stages.0.downsample_layers.0.weight", partial(substituted, TRANSFORMERS_CONVNEXT)),
    Library("original", "downsample_layers.0.0.weight", _metas_convnext),
    Library("nnunet_neurino", "stem.conv.weight", current_name),
)

# Queries, keys and values that are apart become attn.q, attn.k and attn.v, which ``flat.assembled`` puts together.
# timm's filter for Meta's DINOv3 would take attn.qkv.bias apart and resample a patch embedding of a wrong size unasked.
_TIMM_OR_META: Rules = (
    (r"^storage_tokens$", "reg_token"),
    (r"\.ls([12])\.gamma$", r".gamma_\1"),
    (r"\.attn\.([qv])_bias$", r".attn.\1.bias"),
)
_TRANSFORMERS_VIT: Rules = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
_TRANSFORMERS_DINOV3: Rules = (
    (r"^embeddings\.patch_embeddings\.", "patch_embed.proj."),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.", ""),
    (r"^(?:model\.)?layer\.", "blocks."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    (r"\.layer_scale([12])\.lambda1$", r".gamma_\1"),
)

VIT_LIBRARIES = (
    Library("timm or Meta's original", "patch_embed.proj.weight", partial(substituted, _TIMM_OR_META)),
    Library(
        "transformers (ViT)",
        "embeddings.patch_embeddings.projection.weight",
        partial(substituted, _TRANSFORMERS_VIT),
    ),
    Library("transformers (DINOv3)", "embeddings.patch_embeddings.weight", partial(substituted, _TRANSFORMERS_DINOV3)),
    Library("nnunet_neurino", "patch_embed.weight", current_name),
)
