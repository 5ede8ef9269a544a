"""What a user writes to train a network of their own: here a small U-Net of nnU-Net's library."""

from dataclasses import dataclass

from nnunet_neurino.trainers.families import Family, Plan, Recipe, register
from nnunet_neurino.trainers.families.recipe import EMA, WITHOUT_TASL


@dataclass(frozen=True)
class ToySettings(Recipe):
    width: int = 4


@register
class Toy(Family[ToySettings]):
    base = "nnUNetTrainerToy"
    title = "Toy"
    settings = ToySettings(epochs=1, iterations=2, val_iterations=1, batch_size=2)
    words = ({"wide": ("twice as wide", {"width": 8})}, WITHOUT_TASL, EMA)
    network = "dynamic_network_architectures.architectures.unet.PlainConvUNet"

    def plan(self, configuration, settings, fits):
        network = {
            "n_stages": 3,
            "features_per_stage": [settings.width * factor for factor in (1, 2, 4)],
            "conv_op": "torch.nn.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 3,
            "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
            "n_conv_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": "torch.nn.BatchNorm3d",
            "nonlin": "torch.nn.LeakyReLU",
        }
        patch = tuple(settings.patch_size or configuration["patch_size"])
        return Plan(patch, settings.batch_size, network, ("conv_op", "norm_op", "nonlin"))
