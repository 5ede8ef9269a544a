"""A small 2D ConvNeXt of timm with random weights, and its 3D twin."""

from __future__ import annotations

import timm
import torch
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from nnunet_neurino.networks import ConvNeXt3d, ConvNeXtSize, EncoderGeometry
from nnunet_neurino.transfer.inflate import inflate_for

SMALL = ConvNeXtSize((1, 1, 2, 1), (4, 6, 8, 10))


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter random values of a size that keeps signals alive, so that each of them matters."""
    generator = torch.Generator().manual_seed(seed)
    network.double().eval()
    for parameter in network.parameters():
        scale = 0.3 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
        if parameter.ndim == 1:
            parameter.data += 0.5
    return network


def flat(size: ConvNeXtSize = SMALL, stem_stride: int = 2) -> ConvNeXt:
    """timm's network, with the stem of NeurINO where ``stem_stride`` is 2."""
    network = randomised(ConvNeXt(depths=size.depths, dims=size.widths, num_classes=0))
    return with_stem(network, stem_stride)


def flat_tiny() -> ConvNeXt:
    """ConvNeXt-Tiny as timm builds it, with random weights."""
    return with_stem(randomised(timm.create_model("convnext_tiny", pretrained=False, num_classes=0)), 2)


def with_stem(network: ConvNeXt, stem_stride: int) -> ConvNeXt:
    """Change the stride of timm's stem."""
    network.stem[0].stride = (stem_stride,) * 2
    network.stem[0].padding = ((4 - stem_stride) // 2,) * 2
    return network


def flat_stages(network: ConvNeXt, images: Tensor) -> list[Tensor]:
    """Outputs of the four stages for images (N, 3, H, W)."""
    x, outputs = network.stem(images), []
    for stage in network.stages:
        x = stage(x)
        outputs.append(x)
    return outputs


def inflated(
    network: ConvNeXt,
    rule: str,
    geometry: EncoderGeometry,
    size: ConvNeXtSize = SMALL,
    in_channels: int = 3,
    rgb: str = "sum",
) -> ConvNeXt3d:
    """The 3D twin."""
    encoder = ConvNeXt3d(in_channels, size, geometry).double().eval()
    encoder.load_state_dict(inflate_for(geometry, network.state_dict(), rule, in_channels, rgb))
    return encoder
