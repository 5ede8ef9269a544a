"""How much GPU memory a training step of NeurINO takes."""

from __future__ import annotations

import pydoc
from functools import lru_cache
from typing import Any

import torch

from nnunet_neurino.trainers.families import Axes

# What PyTorch keeps for the backward pass, measured on the CPU in float32 with saved-tensor hooks, is 8.2 to 9.2 bytes
# for each number in a feature map, whatever the size and the patch (tests/trainers/test_memory.py checks that).
BYTES_KEPT = 8.5
# Of it under mixed precision (norms stay in float32), and with activation checkpointing.
MIXED_PRECISION_SHARE = 0.6
CHECKPOINTING_SHARE = 0.35
# Gradients of activations and the convolutions' workspaces come on top.
TRANSIENT_SHARE = 1.25
# Weights, gradients, two moments and the moving average, float32 each.
BYTES_PER_PARAMETER = 5 * 4
CONTEXT_GIB = 0.75


def training_memory(
    network: str, arch_kwargs: dict[str, Any], patch_size: Axes, batch_size: int, channels: int, classes: int
) -> float:
    """Estimate the GPU memory of a training step with mixed precision.

    Args:
        network: dotted name of its class, as in plans.
        arch_kwargs: its arguments, as in plans.
        patch_size: voxels (z, y, x).
        batch_size: patches on one GPU.
        channels: input channels.
        classes: logits.

    Returns:
        GiB.
    """
    numbers, parameters = _size_of(network, _frozen(arch_kwargs), tuple(patch_size), channels, classes)
    kept = numbers * batch_size * BYTES_KEPT * MIXED_PRECISION_SHARE
    if arch_kwargs.get("checkpointing"):
        kept *= CHECKPOINTING_SHARE
    return (kept * TRANSIENT_SHARE + parameters * BYTES_PER_PARAMETER) / 2**30 + CONTEXT_GIB


@lru_cache(maxsize=256)
def _size_of(network: str, arch_kwargs: Any, patch_size: Axes, channels: int, classes: int) -> tuple[int, int]:
    """Numbers in all feature maps of one patch, and in all parameters."""
    module = _module(network, arch_kwargs, channels, classes)
    numbers = module.compute_conv_feature_map_size(patch_size)
    return int(numbers), sum(parameter.numel() for parameter in module.parameters())


@lru_cache(maxsize=8)
def _module(network: str, arch_kwargs: Any, channels: int, classes: int) -> Any:
    network_class: Any = pydoc.locate(network)
    # On the meta device a network is only its shapes: no memory, no random numbers drawn.
    with torch.device("meta"):
        return network_class(in_channels=channels, num_classes=classes, **dict(arch_kwargs))


def _frozen(value: Any) -> Any:
    """A hashable twin of JSON-able values; a dict becomes its items."""
    if isinstance(value, dict):
        return tuple((key, _frozen(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    return value
