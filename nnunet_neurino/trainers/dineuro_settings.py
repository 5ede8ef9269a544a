"""What a DINeuro trainer can be told beyond ``TrainerSettings``, its variants, and the paper's constants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.settings import BRIEF, TrainerSettings

BASE = "nnUNetTrainerDINeuro"
DECODERS = ("pyramid", "upernet")
TAPS = 16 * 16
"""Of a patch kernel of DINO's, laid out as a line."""


@dataclass(frozen=True)
class DINeuroSettings(TrainerSettings):
    """Recipe of a training of DINeuro. The defaults are those of ``nnUNetTrainerDINeuro``; all of them are ours.

    ``size`` is the ViT: ``"small"``, ``"base"`` (DINO), ``"small_v3"``, ``"base_v3"`` (DINOv3), ``"atto"`` or
    ``"atto_v3"`` (for trials on a CPU). ``stem_stride`` and ``grn`` mean nothing here.

    Attributes:
        tubes: deformable tubes beside the patch embedding.
        decoder: ``"pyramid"`` (full-resolution detail) or ``"upernet"`` (TransSeg's).
        decoder_width: its channels (at full resolution for the pyramid), or None for its own habit.
        layers: the ViT's four blocks, counted from 0, whose tokens are decoded, the last one included; None spreads
            them evenly.
        magnify: the ViT sees the image enlarged in plane by this: 1, 2 or 4, any number from 1 on with ``upernet``.
        block_depth: slices of a block, odd.
        tube_length: taps of a tube: 256, or a divisor of it.
        tube_step: distance between taps in voxels of the finest axis; other axes have steps of the same length in
            micrometres. None: one voxel of its axis, as published.
        tube_controls: points along a tube at which its steps are learned.
        tube_gate: weight of the tubes at the start; 0 starts at the transferred network.
    """

    network: str = "dineuro"
    size: str = "small"
    grn: bool = False
    inflation: str = "center"
    lr: float = 3e-4
    weight_decay: float = 0.05
    layer_decay: float = 0.8
    tasl: Literal["localised", "published"] | None = None

    tubes: bool = True
    decoder: str = "pyramid"
    decoder_width: int | None = None
    layers: tuple[int, int, int, int] | None = None
    magnify: float = 1.0
    block_depth: int = 5
    tube_length: int = 256
    tube_step: float | None = 0.5
    tube_controls: int = 17
    tube_gate: float = 0.0

    fixed: ClassVar[tuple[str, ...]] = (
        *TrainerSettings.fixed,
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network != "dineuro":
            raise NeurinoError(f"setting network is {self.network!r}; a DINeuro trainer trains 'dineuro'")
        if self.inflation == "triplane":
            raise NeurinoError("setting inflation is 'triplane'; a ViT takes center or average")
        if self.decoder not in DECODERS:
            raise NeurinoError(f"setting decoder is {self.decoder!r}; choose one of {', '.join(DECODERS)}")
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
    # Ours: blocks resized to DINO's own 224 x 224; 2 x 8 blocks a step, as many as TransSeg's 2 on each of 8 GPUs;
    # blocks with enough foreground only, for which nnU-Net's own way is this; all branches joined from the start.
    "patch_size": (8, 100, 100),
    "batch_size": 2,
    "magnify": 2.24,
    "oversample_foreground": 1.0,
    "tube_gate": 1.0,
}

DEMO: dict[str, Any] = BRIEF | {"patch_size": (16, 64, 64)}

# A name is nnUNetTrainerDINeuro, then at most one word of each group, in this order, then an epoch count.
GROUPS: tuple[dict[str, tuple[str, dict[str, Any]]], ...] = (
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
    {
        "scratch": ("no 2D weights, none looked for", {"pretrained": False}),
        "frozen": ("the pretrained encoder is never trained", {"frozen_epochs": -1}),
        "frozen10": ("the pretrained encoder is not trained for the first 10 epochs", {"frozen_epochs": 10}),
    },
    {"TASL": ("with the topology-aware loss", {"tasl": "localised"})},
    {"EMA": ("a moving average of the weights is validated and saved", {"ema": 0.999})},
    {"NoMirroring": ("no mirroring in training and prediction", {"mirroring": False})},
)
