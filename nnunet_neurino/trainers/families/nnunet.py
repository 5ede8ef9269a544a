"""nnU-Net's own networks and trainer, with TASL."""

from __future__ import annotations

from typing import Any

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families.family import Family, register
from nnunet_neurino.trainers.families.recipe import Recipe


@register
class NnUNetTASL(Family[Recipe]):
    base = "nnUNetTrainerTASL"
    title = "nnU-Net"
    plain = "as it is, with TASL at full resolution"

    def trainer(self) -> type[Any]:
        from nnunet_neurino.trainers.tasl import PlainTASLTrainer

        return PlainTASLTrainer

    def attributes(self, changes: dict[str, Any]) -> dict[str, Any]:
        """A number of epochs at the most: everything else is nnU-Net's."""
        return changes

    def check(self, changes: dict[str, Any]) -> None:
        if changes:
            raise NeurinoError(
                f"{self.base} takes no {', '.join(changes)} from the command line: it is nnU-Net's own trainer but for "
                "its loss (docs/trainers.md)"
            )
