"""The networks that can be trained, one file each.

Nothing heavy is imported at the top of these files: nnU-Net's search for trainers and ``neurino train --help`` read
them. To add a network, write a file here beside its module in ``nnunet_neurino.networks``, or a file of your own in a
folder that ``nnUNet_extTrainer`` names.
"""

from importlib import import_module
from pkgutil import iter_modules

from nnunet_neurino.trainers.families.family import Axes, Family, Plan, families, family_of, family_of_network, register
from nnunet_neurino.trainers.families.recipe import Recipe, TransferRecipe, Words

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Axes",
    "Family",
    "Plan",
    "Recipe",
    "TransferRecipe",
    "Words",
    "families",
    "family_of",
    "family_of_network",
    "register",
]
