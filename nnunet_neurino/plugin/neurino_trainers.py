"""The only module nnU-Net's trainer search sees: names our trainers without importing them.

nnU-Net imports every module of this folder under its bare name at every trainer look-up and drops it again
afterwards. Resolving lazily (PEP 562) keeps that cheap, keeps an import error of ours from breaking other people's
trainers, and makes every class live in ``nnunet_neurino.trainers``, where it can be pickled.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("nnUNetTrainer"):
        try:
            trainers = import_module("nnunet_neurino.trainers")
        except ModuleNotFoundError as error:
            # nnUNet_extTrainer leaks into the children of our Python, which may live in another environment.
            if error.name == "nnunet_neurino":
                raise AttributeError(name) from None
            raise
        trainer = trainers.find(name)
        if trainer is not None:
            return trainer
    raise AttributeError(name)
