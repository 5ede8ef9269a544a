"""The published network written out as formulas on its own state dict, for comparison."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

State = Mapping[str, Tensor]


def published_logits(state: State, image: Tensor) -> list[Tensor]:
    """Logits of all heads, full resolution first, in evaluation mode."""
    four = "up_extra.conv1.weight" in state
    skips = _encoder(state, image, four)
    x = skips[-1]
    for number in (0, 1):
        x = _block(state, f"bottleneck.{number}.", x)
    outputs = [x]
    for level in (3, 2, 1, 0):
        x = _up(state, f"up_{level}.", x)
        if level:
            x = x + skips[level - 1]
        for number in (0, 1):
            x = _block(state, f"dec_block_{level}.{number}.", x)
        outputs.insert(0, x)
    if four:
        outputs = [_up(state, "up_extra.", x), *outputs]
    heads = sum(name.endswith("conv_out.bias") for name in state)
    return [
        F.conv_transpose3d(y, state[f"out_{head}.conv_out.weight"], state[f"out_{head}.conv_out.bias"])
        for head, y in zip(range(heads), outputs, strict=False)
    ]


def _encoder(state: State, x: Tensor, four: bool) -> list[Tensor]:
    features = []
    for stage in range(4):
        prefix = f"encoder.stages.{stage}."
        first, second = f"{prefix}downsample_layers.0.", f"{prefix}downsample_layers.1."
        if stage == 0:
            stride, padding = (4, 0) if four else (2, 1)
            x = F.conv3d(x, state[first + "weight"], state[first + "bias"], stride=stride, padding=padding)
            x = _layer_norm(state, second, x)
        else:
            x = _layer_norm(state, first, x)
            x = F.conv3d(x, state[second + "weight"], state[second + "bias"], stride=2)
        number = 0
        while f"{prefix}layers.{number}.gamma" in state:
            p = f"{prefix}layers.{number}."
            weight = state[p + "depthwise_conv.weight"]
            y = F.conv3d(x, weight, state[p + "depthwise_conv.bias"], padding=(1, 3, 3), groups=len(weight))
            y = _layer_norm(state, p + "layer_norm.", y).movedim(1, -1)
            y = F.gelu(F.linear(y, state[p + "pointwise_conv1.weight"], state[p + "pointwise_conv1.bias"]))
            y = F.linear(y, state[p + "pointwise_conv2.weight"], state[p + "pointwise_conv2.bias"])
            x = x + (y * state[p + "gamma"]).movedim(-1, 1)
            number += 1
        features.append(x)
    return features


def _layer_norm(state: State, prefix: str, x: Tensor) -> Tensor:
    weight = state[prefix + "weight"]
    return F.layer_norm(x.movedim(1, -1), weight.shape, weight, state[prefix + "bias"], 1e-6).movedim(-1, 1)


def _mix(state: State, p: str, x: Tensor) -> Tensor:
    mean, variance = state[p + "norm.running_mean"], state[p + "norm.running_var"]
    x = F.batch_norm(x, mean, variance, state[p + "norm.weight"], state[p + "norm.bias"], eps=1e-5)
    x = F.gelu(F.conv3d(x, state[p + "conv2.weight"], state[p + "conv2.bias"]))
    if p + "grn_gamma" in state:
        energy = x.square().sum((2, 3, 4), keepdim=True).sqrt()
        share = energy / (energy.mean(1, keepdim=True) + 1e-6)
        x = state[p + "grn_gamma"] * (x * share) + state[p + "grn_beta"] + x
    return F.conv3d(x, state[p + "conv3.weight"], state[p + "conv3.bias"])


def _block(state: State, p: str, x: Tensor) -> Tensor:
    weight = state[p + "conv1.weight"]
    return x + _mix(state, p, F.conv3d(x, weight, state[p + "conv1.bias"], padding=1, groups=len(weight)))


def _up(state: State, p: str, x: Tensor) -> Tensor:
    weight = state[p + "conv1.weight"]
    y = F.conv_transpose3d(x, weight, state[p + "conv1.bias"], stride=2, padding=1, groups=len(weight))
    around = F.conv_transpose3d(x, state[p + "res_conv.weight"], state[p + "res_conv.bias"], stride=2)
    return torch.add(F.pad(_mix(state, p, y), (1, 0) * 3), F.pad(around, (1, 0) * 3))
