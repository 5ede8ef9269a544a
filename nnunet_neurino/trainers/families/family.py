"""What a network family is to the trainers, and the list of the families there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families.recipe import Recipe, Words

Axes = tuple[int, ...]
"""One number for each of the axes z, y, x."""

S = TypeVar("S", bound=Recipe)


@dataclass(frozen=True)
class Plan:
    """What a family decides about a configuration of nnU-Net's plans."""

    patch_size: Axes  # voxels (z, y, x)
    batch_size: int  # patches a step
    # arguments of the network: JSON-able and complete. nnU-Net makes a deep-supervision target for each row of
    # ``strides`` but the last
    arch_kwargs: dict[str, Any]
    requires_import: tuple[str, ...] = ()  # which of them are dotted names of something to import


class Family(Generic[S]):
    """A network with its trainers: a base name, words that may follow it, settings.

    A subclass with ``register`` above it is all that a network needs to be trained, resumed and predicted with.
    This default is nnU-Net's own network with our recipe.
    """

    base: ClassVar[str]  # first part of the trainers' names, ``nnUNetTrainer`` and the family's name
    title: ClassVar[str]  # the family, for people
    plain: ClassVar[str] = "our defaults"  # what the base without words means
    settings: S  # of the base without words
    # groups of words that change settings: a name has at most one of each group, in this order
    words: ClassVar[tuple[Words, ...]] = ()
    # dotted name of the network's class, as it is written into plans; None: that of nnU-Net's plan
    network: ClassVar[str | None] = None
    encoder_learns: ClassVar[bool] = True  # whether the encoder is ever trained

    # ---- the trainers -----------------------------------------------------------------------------------------------

    def trainer(self) -> type[Any]:
        """The class that all trainers of the family derive from."""
        from nnunet_neurino.trainers.trainer import Trainer

        return Trainer

    def attributes(self, changes: dict[str, Any]) -> dict[str, Any]:
        """What a trainer class has whose words, or epoch count, stand for ``changes`` of the settings."""
        return {"family": self, "defaults": replace(self.settings, **changes)}

    def check(self, changes: dict[str, Any]) -> None:
        """Raise ``NeurinoError`` if these settings cannot be given on the command line."""
        self.settings.replaced(changes)

    # ---- the network ------------------------------------------------------------------------------------------------

    def plan(self, configuration: dict[str, Any], settings: S, fits: Callable[[Plan], bool]) -> Plan:
        """Network, patch and batch for a 3D configuration of nnU-Net's plans.

        It must be deterministic, and planning what was planned must change nothing.

        Args:
            configuration: of the plans, complete.
            settings: what to build.
            fits: whether a training step of a plan fits into ``settings.memory``.
        """
        architecture = configuration["architecture"]
        return Plan(
            tuple(settings.patch_size or configuration["patch_size"]),
            settings.batch_size or configuration["batch_size"],
            architecture["arch_kwargs"],
            tuple(architecture["_kw_requires_import"]),
        )

    # ---- 2D weights -------------------------------------------------------------------------------------------------

    def weight_page(self, settings: S) -> str | None:
        """timm's name of the 2D weights that the encoder is meant to start from, if there are any."""
        return None

    def cached_weights(self, settings: S) -> Path | None:
        """The file of these weights in the local Hugging Face cache."""
        from nnunet_neurino.transfer import hub

        page = self.weight_page(settings)
        return hub.cached(page) if page else None

    def fill(self, network: Any, location: str, settings: S) -> dict[str, Any]:
        """Put the 2D weights at ``location`` into the encoder of ``network``, in place.

        Returns:
            What to record: where they came from, what they are, their hash, how they were inflated.
        """
        raise NeurinoError(f"{location}: {self.title} starts from no 2D weights; leave pretrained off")

    def unpretrained(self, settings: S) -> str:
        """What to tell a user who wants no 2D weights; ``NeurinoError`` where that makes no sense."""
        if settings.frozen_epochs != 0:
            raise NeurinoError("settings pretrained=false and frozen_epochs contradict each other: nothing would learn")
        return ""


_FAMILIES: dict[str, Family[Any]] = {}

F = TypeVar("F", bound="type[Family[Any]]")


def register(family: F) -> F:
    """Make the trainers of a family known by name. A class decorator; nnU-Net imports a user's file many times."""
    if not re.fullmatch(r"nnUNetTrainer[A-Za-z0-9]+", family.base):
        raise NeurinoError(f"{family.base!r} cannot be a family's base: write nnUNetTrainer and letters or digits")
    known = _FAMILIES.get(family.base)
    if known is not None and type(known).__module__ != family.__module__:
        raise NeurinoError(f"{family.base}: {type(known).__module__} has a family of this name; choose another one")
    _FAMILIES[family.base] = family()
    return family


def families() -> dict[str, Family[Any]]:
    """All families by their base."""
    return dict(_FAMILIES)


def family_of(trainer: str) -> Family[Any] | None:
    """The family of a trainer's name (``nnUNetTrainerNeurINO_S``); None for trainers of others."""
    return _FAMILIES.get(trainer.partition("_")[0])


def family_of_network(network: str) -> Family[Any] | None:
    """A family with the network of this dotted name, as plans have it; None for networks of others."""
    return next((family for family in _FAMILIES.values() if family.network == network), None)
