"""DINeuro: a 2D vision transformer that sees each slice as the middle of a block of slices, and along tubes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families.family import Axes, Family, Plan, register
from nnunet_neurino.trainers.families.patches import patch_wise
from nnunet_neurino.trainers.families.recipe import BRIEF, EMA, NO_MIRRORING, START, WITH_TASL, TransferRecipe, Words

TAPS = 16 * 16
"""Of a patch kernel of DINO's, laid out as a line."""


@dataclass(frozen=True)
class DINeuroSettings(TransferRecipe):
    """Recipe of a training of DINeuro. The defaults are those of ``nnUNetTrainerDINeuro``; all of them are ours."""

    # the ViT, ``"small"``, ``"base"`` (DINO), ``"small_v3"``, ``"base_v3"`` (DINOv3), ``"atto"`` or ``"atto_v3"`` (for
    # trials on a CPU)
    size: str = "small"
    inflation: str = "center"  # ``"center"`` or ``"average"``: from the 2D patch kernel to a block of slices
    norm: str = "group"  # normalisation in the decoder: ``"group"``, ``"layer"`` or ``"batch"``
    # compute activations again in the backward pass instead of keeping them: less memory, more time
    checkpointing: bool = False
    bottleneck_loss: bool = False  # also supervise the coarsest head; nnU-Net gives its last one no weight
    lr: float = 3e-4
    weight_decay: float = 0.05
    layer_decay: float = 0.8
    tasl: Literal["localised", "published"] | None = None

    tubes: bool = True  # deformable tubes beside the patch embedding
    decoder: str = "pyramid"  # ``"pyramid"`` (full-resolution detail) or ``"upernet"`` (TransSeg's)
    decoder_width: int | None = None  # its channels (at full resolution for the pyramid), or None for its own habit
    # the ViT's four blocks, counted from 0, whose tokens are decoded, the last one included; None spreads them evenly
    layers: tuple[int, int, int, int] | None = None
    # the ViT sees the image enlarged in plane by this: 1, 2 or 4, any number from 1 on with ``upernet``
    magnify: float = 1.0
    block_depth: int = 5  # slices of a block, odd
    tube_length: int = 256  # taps of a tube: 256, or a divisor of it
    # distance between taps in voxels of the finest axis; other axes have steps of the same length in micrometres. None:
    # one voxel of its axis, as published
    tube_step: float | None = 0.5
    tube_controls: int = 17  # points along a tube at which its steps are learned
    tube_gate: float = 0.0  # weight of the tubes at the start; 0 starts at the transferred network

    fixed: ClassVar[tuple[str, ...]] = (
        *TransferRecipe.fixed,
        "size",
        "norm",
        "tubes",
        "decoder",
        "decoder_width",
        "layers",
        "magnify",
        "block_depth",
        "tube_length",
        "tube_step",
        "tube_controls",
    )
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        **TransferRecipe.choices,
        "size": ("small", "base", "small_v3", "base_v3", "atto", "atto_v3"),
        "norm": ("group", "batch", "layer"),
        "inflation": ("center", "average"),
        "decoder": ("pyramid", "upernet"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tube_step is not None and not 0 < self.tube_step < math.inf:
            raise NeurinoError(f"setting tube_step is {self.tube_step}; it must be greater than 0, or none")
        if self.tube_length < 1 or TAPS % self.tube_length:
            raise NeurinoError(f"setting tube_length is {self.tube_length}; it must be {TAPS} or a divisor of it")
        if not math.isfinite(self.tube_gate):
            raise NeurinoError(f"setting tube_gate is {self.tube_gate}; a finite number is needed")


PAPER: dict[str, Any] = {
    # From the paper: center transfer, blocks of 100 x 100, 256 taps a voxel apart, a step for each tap.
    "inflation": "center",
    "tube_step": None,
    "tube_controls": 256,
    # From TransSeg, whose recipe the paper is taken to follow.
    "size": "base",
    "decoder": "upernet",
    "decoder_width": 768,
    "layers": (3, 5, 7, 11),
    "norm": "batch",
    "lr": 3e-5,
    "weight_decay": 0.05,
    "layer_decay": 1.0,
    "epochs": 100,
    "iterations": 250,
    "warmup_epochs": 20 / 250,
    "poly_power": 1.0,
    "stepwise": True,
    "clip": 1.0,
    "full_precision": True,
    # Ours: the five slices of a block as a patch, each seen as the middle of a block, resized to DINO's own 224 x 224;
    # 3 x 5 blocks a step, about TransSeg's 2 on each of 8 GPUs; blocks with enough foreground only, for which nnU-Net's
    # own way is this; all branches joined from the start.
    "patch_size": (5, 100, 100),
    "batch_size": 3,
    "magnify": 2.24,
    "oversample_foreground": 1.0,
    "tube_gate": 1.0,
}

DEMO: dict[str, Any] = BRIEF | {"size": "atto", "pretrained": False, "patch_size": (16, 64, 64)}


@register
class DINeuro(Family[DINeuroSettings]):
    base = "nnUNetTrainerDINeuro"
    title = "DINeuro"
    plain = "DINO's ViT-S/16, center, tubes, our defaults"
    settings = DINeuroSettings()
    network = "nnunet_neurino.networks.DINeuro"
    words: ClassVar[tuple[Words, ...]] = (
        {
            "B": ("DINO's ViT-B/16", {"size": "base"}),
            "v3": ("DINOv3's ViT-S/16", {"size": "small_v3"}),
            "Bv3": ("DINOv3's ViT-B/16", {"size": "base_v3"}),
            "demo": ("a very small network, minutes on a CPU", DEMO),
        },
        {"paper": ("the literal reading of the paper, gaps filled from TransSeg", PAPER)},
        {
            "average": ("the 2D kernel spread evenly over the slices of a block", {"inflation": "average"}),
            "center": ("the 2D kernel on the middle slice of a block", {"inflation": "center"}),
        },
        {"notube": ("without tubes", {"tubes": False})},
        START,
        WITH_TASL,
        EMA,
        NO_MIRRORING,
    )

    def plan(self, configuration: dict[str, Any], settings: DINeuroSettings, fits: Callable[[Plan], bool]) -> Plan:
        from nnunet_neurino.networks.dineuro import dineuro_levels

        levels = dineuro_levels(settings.decoder, settings.magnify)
        arch_kwargs = {
            "vit": settings.size,
            "transfer": settings.inflation if settings.pretrained else "scratch",
            "strides": levels.rows,
            "tube_step": _tube_steps(settings, [float(s) for s in configuration["spacing"]]),
            **settings.named("tubes", "decoder", "block_depth", "layers", "decoder_width", "norm", "magnify"),
            **settings.named("tube_length", "tube_controls", "tube_gate", "checkpointing"),
        }
        # Any number of slices will do.
        return patch_wise(self, configuration, settings, arch_kwargs, levels.totals[-1], fits, _flatter)

    def weight_page(self, settings: DINeuroSettings) -> str | None:
        from nnunet_neurino.transfer.vit import VIT_PAGES

        return VIT_PAGES.get(settings.size)

    def fill(self, network: Any, location: str, settings: DINeuroSettings) -> dict[str, Any]:
        from nnunet_neurino.transfer.vit import inflate_vit_into, load_vit_weights

        weights = load_vit_weights(location)
        assert weights is not None
        inflate_vit_into(network, weights, settings.inflation, settings.rgb)
        return weights.record | settings.named("inflation", "rgb")


def _tube_steps(settings: DINeuroSettings, spacing: Sequence[float]) -> list[float]:
    """Voxels (z, y, x) of the image the ViT sees between two taps along each axis; ``spacing`` in micrometres."""
    if settings.tube_step is None:
        return [1.0, 1.0, 1.0]
    finest = min(spacing)
    enlarged = (1.0, settings.magnify, settings.magnify)
    return [round(settings.tube_step * finest / s * m, 6) for s, m in zip(spacing, enlarged, strict=True)]


def _flatter(patch: Axes) -> Axes:
    """A patch (z, y, x) with at most three eighths as many slices as the longest side in plane has voxels.

    Ours: slices are segmented one by one, and memory is better spent on the plane, which the ViT sees as a whole.
    Flatter ones yet, and nnU-Net would no longer rotate in 3D.
    """
    return (min(patch[0], max(patch[1:]) * 3 // 8), *patch[1:])
