"""What a window trainer can be told beyond ``TrainerSettings``, its variants, and the paper's constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.settings import BRIEF, TrainerSettings

BASE = "nnUNetTrainerDINOWindow"
TOKENS = ("cached", "computed", "augmented")
LOSSES = ("volume", "window")


@dataclass(frozen=True)
class WindowSettings(TrainerSettings):
    """Recipe of a training of DINOWindow. The defaults are those of ``nnUNetTrainerDINOWindow``; all of them are ours.

    ``size`` is the ViT: ``"small_v3"``, ``"base_v3"`` (DINOv3), ``"small"``, ``"base"`` (DINO), ``"atto_v3"`` or
    ``"atto"`` (for trials on a CPU). It is never trained, so what is said of the encoder's training means nothing here,
    nor do ``stem_stride``, ``grn``, ``norm``, ``checkpointing``, ``inflation`` and ``rgb``. ``patch_size`` is the part
    of a volume that one loss is taken over; None: the data set's median volume, less where ``memory`` does not suffice.

    Attributes:
        window: voxels (z, y, x) a window has at the most; volumes are divided evenly.
        single: one window: the whole volume, or as much of it as ``memory`` suffices for.
        magnify: slices are enlarged by this (1, 2 or 4) before the ViT sees them.
        layers: which of the ViT's blocks are decoded: ``"four"``, spread evenly, or the ``"last"``.
        channels: of the decoding arm.
        dropout: in the decoding arm.
        per_position: a decoding arm for each window of a volume instead of one for all; no volume may be larger.
        dense_head: two convolutions over the whole volume that repair the seams between windows.
        overlap: of windows in prediction, as a share; 0 for none.
        loss_over: ``"volume"``: one loss over the whole volume, in two passes; ``"window"``: the mean of the windows'.
        tokens: ``"cached"``: computed once and kept on disk; ``"computed"``: the same at every step anew;
            ``"augmented"``: computed at every step from nnU-Net's own augmentation.
        copies: of every volume for training: itself, and others that are flipped, turned and changed in brightness.
    """

    network: str = "dino_window"
    size: str = "small_v3"
    grn: bool = False
    frozen_epochs: int = -1
    layer_decay: float = 1.0
    batch_size: int | None = 1
    epochs: int = 100
    iterations: int = 100
    val_iterations: int = 10
    tta: bool = False
    tasl: Literal["localised", "published"] | None = None

    window: tuple[int, int, int] = (32, 96, 96)
    single: bool = False
    magnify: int = 2
    layers: str = "four"
    channels: int = 128
    dropout: float = 0.1
    per_position: bool = False
    dense_head: bool = False
    overlap: float = 0.5
    loss_over: str = "volume"
    tokens: str = "cached"
    copies: int = 4

    fixed: ClassVar[tuple[str, ...]] = (
        *TrainerSettings.fixed,
        "window",
        "single",
        "magnify",
        "layers",
        "channels",
        "per_position",
        "dense_head",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network != "dino_window":
            raise NeurinoError(f"setting network is {self.network!r}; a DINOWindow trainer trains 'dino_window'")
        if self.frozen_epochs != -1:
            raise NeurinoError(f"setting frozen_epochs is {self.frozen_epochs}; DINOWindow's encoder is never trained")
        choices: dict[str, tuple[Any, ...]] = {
            "magnify": (1, 2, 4),
            "layers": ("four", "last"),
            "loss_over": LOSSES,
            "tokens": TOKENS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                listing = ", ".join(map(str, known))
                raise NeurinoError(f"setting {name} is {getattr(self, name)!r}; choose one of {listing}")
        for name in ("channels", "copies"):
            if getattr(self, name) < 1:
                raise NeurinoError(f"setting {name} is {getattr(self, name)}; it must be 1 or more")
        if len(self.window) != 3 or min(self.window) < 1:
            raise NeurinoError(f"setting window is {self.window}; three numbers from 1 on are needed")
        for name in ("overlap", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise NeurinoError(f"setting {name} is {getattr(self, name)}; it must lie from 0 on, below 1")
        if self.loss_over == "window" and (self.tasl or self.dense_head):
            raise NeurinoError("settings loss_over=window and tasl or dense_head exclude each other: they need a whole")


PAPER: dict[str, Any] = {
    # From the paper: windows side by side, one loss over the whole, nothing behind it.
    "overlap": 0.0,
    "dense_head": False,
    "loss_over": "volume",
    # Ours, where it says nothing: windows for MR images, and no augmentation.
    "window": (64, 128, 128),
    "copies": 1,
    "mirroring": False,
    "warmup_epochs": 0.0,
    "full_precision": True,
}

DEMO: dict[str, Any] = BRIEF | {"size": "atto_v3", "batch_size": 1, "window": (16, 32, 32), "channels": 32, "copies": 2}

# A name is nnUNetTrainerDINOWindow, then at most one word of each group, in this order, then an epoch count.
GROUPS: tuple[dict[str, tuple[str, dict[str, Any]]], ...] = (
    {
        "B": ("DINOv3's ViT-B/16", {"size": "base_v3"}),
        "demo": ("a very small, untrained ViT, minutes on a CPU", DEMO),
    },
    {"paper": ("the literal reading of the paper", PAPER)},
    {
        "single": ("one window: the whole volume, or as much as memory suffices for", {"single": True}),
        "windowloss": ("the mean of the windows' losses instead of one over the volume", {"loss_over": "window"}),
    },
    {"last": ("only the ViT's last layer is decoded", {"layers": "last"})},
    {"head": ("a head over the whole volume that repairs seams", {"dense_head": True})},
    {
        "computed": ("no cache on disk", {"tokens": "computed"}),
        "augmented": ("no cache on disk, nnU-Net's own augmentation", {"tokens": "augmented"}),
    },
    {"TASL": ("with the topology-aware loss", {"tasl": "localised"})},
    {"EMA": ("a moving average of the weights is validated and saved", {"ema": 0.999})},
    {"NoMirroring": ("no mirroring in training and prediction", {"mirroring": False})},
)
