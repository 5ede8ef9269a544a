"""Networks as plain modules: no nnU-Net import, no file access."""

from nnunet_neurino.networks.convnext import SIZES, ConvNeXt3d, ConvNeXtSize, EncoderGeometry
from nnunet_neurino.networks.geometry import Levels
from nnunet_neurino.networks.mednext import MedNeXt
from nnunet_neurino.networks.neurino import NeurINO

__all__ = ["SIZES", "ConvNeXt3d", "ConvNeXtSize", "EncoderGeometry", "Levels", "MedNeXt", "NeurINO"]
