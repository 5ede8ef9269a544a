"""Checkpoints of earlier versions: the names that the encoders' weights had then, and timm's, which they have now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

Value = TypeVar("Value")

Rules = tuple[tuple[str, str], ...]
"""Regular expressions and what replaces them, one after the other."""

_RULES: Rules = (
    # ConvNeXt
    (r"^stem\.conv\.", "stem.0."),
    (r"^stem\.norm\.", "stem.1."),
    (r"^(stages\.\d\.downsample)\.norm\.", r"\1.0."),
    (r"^(stages\.\d\.downsample)\.conv\.", r"\1.1."),
    (r"^(stages\.\d\.blocks\.\d+)\.depthwise\.", r"\1.conv_dw."),
    (r"^(stages\.\d\.blocks\.\d+)\.expand\.", r"\1.mlp.fc1."),
    (r"^(stages\.\d\.blocks\.\d+)\.project\.", r"\1.mlp.fc2."),
    # Vision transformers
    (r"^vit\.", ""),
    (r"^embedding\.conv\.", "patch_embed.proj."),
    (r"^patch_embed\.(weight|bias)$", r"patch_embed.proj.\1"),
    (r"^(blocks\.\d+)\.(qkv|proj)\.", r"\1.attn.\2."),
    (r"^(blocks\.\d+)\.(fc[12])\.", r"\1.mlp.\2."),
    (r"^(blocks\.\d+)\.gamma([12])$", r"\1.gamma_\2"),
)


def substituted(rules: Rules, name: str) -> str:
    """A name with ``rules`` applied."""
    for old, new in rules:
        name = re.sub(old, new, name)
    return name


def current_name(name: str) -> str:
    """Today's name of an encoder's weight; a name of today stays as it is."""
    return substituted(_RULES, name)


def with_current_names(state: Mapping[str, Value], prefix: str = "encoder.") -> dict[str, Value]:
    """A network's state dict, its encoder's weights (those that start with ``prefix``) under today's names."""
    return {
        prefix + current_name(name[len(prefix) :]) if name.startswith(prefix) else name: value
        for name, value in state.items()
    }


def read_old_names(encoder: nn.Module) -> None:
    """Let ``load_state_dict`` of ``encoder``, and of whatever it is a part of, take checkpoints of earlier versions."""
    encoder.register_load_state_dict_pre_hook(_rename)


def _rename(_: nn.Module, state_dict: dict[str, Any], prefix: str, *__: Any) -> None:
    renamed = with_current_names(state_dict, prefix)
    state_dict.clear()
    state_dict.update(renamed)
