"""Networks as plain modules: no nnU-Net import, no file access."""

from nnunet_neurino.networks.convnext import SIZES, ConvNeXt3d, ConvNeXtSize, EncoderGeometry
from nnunet_neurino.networks.dineuro import DINeuro
from nnunet_neurino.networks.geometry import Levels
from nnunet_neurino.networks.mednext import MedNeXt
from nnunet_neurino.networks.neurino import NeurINO
from nnunet_neurino.networks.vit import VITS, ViTSize
from nnunet_neurino.networks.window import DINOWindow

__all__ = [
    "SIZES",
    "VITS",
    "ConvNeXt3d",
    "ConvNeXtSize",
    "DINOWindow",
    "DINeuro",
    "EncoderGeometry",
    "Levels",
    "MedNeXt",
    "NeurINO",
    "ViTSize",
]
