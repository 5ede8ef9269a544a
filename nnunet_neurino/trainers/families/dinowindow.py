"""DINOWindow: a frozen 2D vision transformer on the slices of windows, one loss over the whole volume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families.family import Axes, Family, Plan, register
from nnunet_neurino.trainers.families.patches import first_that_fits, rounded_up
from nnunet_neurino.trainers.families.recipe import BRIEF, EMA, NO_MIRRORING, WITH_TASL, Recipe, Words


@dataclass(frozen=True)
class WindowSettings(Recipe):
    """Recipe of a training of DINOWindow. The defaults are those of ``nnUNetTrainerDINOWindow``; all of them are ours.

    ``patch_size`` is the part of a volume that one loss is taken over; None: the data set's median volume, less where
    ``memory`` does not suffice.
    """

    # the ViT, ``"small_v3"``, ``"base_v3"`` (DINOv3), ``"small"``, ``"base"`` (DINO), ``"atto_v3"`` or ``"atto"`` (for
    # trials on a CPU). It is never trained
    size: str = "small_v3"
    pretrained: bool = True  # the ViT has 2D weights; False leaves it random, for trials
    batch_size: int | None = 1
    epochs: int = 100
    iterations: int = 100
    val_iterations: int = 10
    tta: bool = False
    tasl: Literal["localised", "published"] | None = None

    window: tuple[int, int, int] = (32, 96, 96)  # voxels (z, y, x) a window has at the most; volumes are divided evenly
    single: bool = False  # one window: the whole volume, or as much of it as ``memory`` suffices for
    magnify: int = 2  # slices are enlarged by this (1, 2 or 4) before the ViT sees them
    layers: str = "four"  # which of the ViT's blocks are decoded: ``"four"``, spread evenly, or the ``"last"``
    channels: int = 128  # of the decoding arm
    dropout: float = 0.1  # in the decoding arm
    # a decoding arm for each window of a volume instead of one for all; no volume may be larger
    per_position: bool = False
    dense_head: bool = False  # two convolutions over the whole volume that repair the seams between windows
    overlap: float = 0.5  # of windows in prediction, as a share; 0 for none
    # ``"volume"``: one loss over the whole volume, in two passes; ``"window"``: the mean of the windows'
    loss_over: str = "volume"
    # ``"cached"``: computed once and kept on disk; ``"computed"``: the same at every step anew; ``"augmented"``:
    # computed at every step from nnU-Net's own augmentation
    tokens: str = "cached"
    # of every volume for training: itself, and others that are flipped, turned and changed in brightness
    copies: int = 4

    fixed: ClassVar[tuple[str, ...]] = (
        *Recipe.fixed,
        "size",
        "window",
        "single",
        "magnify",
        "layers",
        "channels",
        "per_position",
        "dense_head",
    )
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        **Recipe.choices,
        "size": ("small_v3", "base_v3", "small", "base", "atto_v3", "atto"),
        "magnify": (1, 2, 4),
        "layers": ("four", "last"),
        "loss_over": ("volume", "window"),
        "tokens": ("cached", "computed", "augmented"),
    }

    frozen_epochs = -1

    def __post_init__(self) -> None:
        super().__post_init__()
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
    # From the paper: windows side by side, an arm for each position, one loss over the whole, nothing behind it.
    "overlap": 0.0,
    "per_position": True,
    "dense_head": False,
    "loss_over": "volume",
    # Ours, where it says nothing: windows for MR images, and no augmentation.
    "window": (64, 128, 128),
    "copies": 1,
    "mirroring": False,
    "warmup_epochs": 0.0,
    "full_precision": True,
}

DEMO: dict[str, Any] = BRIEF | {
    "size": "atto_v3",
    "pretrained": False,
    "batch_size": 1,
    "window": (16, 32, 32),
    "channels": 32,
    "copies": 2,
}


@register
class DINOWindow(Family[WindowSettings]):
    base = "nnUNetTrainerDINOWindow"
    title = "DINOWindow"
    plain = "a frozen DINOv3 ViT-S/16, windows, our defaults"
    settings = WindowSettings()
    network = "nnunet_neurino.networks.DINOWindow"
    encoder_learns = False
    words: ClassVar[tuple[Words, ...]] = (
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
        WITH_TASL,
        EMA,
        NO_MIRRORING,
    )

    def trainer(self) -> type[Any]:
        from nnunet_neurino.trainers.windows.trainer import WindowTrainer

        return WindowTrainer

    def plan(self, configuration: dict[str, Any], settings: WindowSettings, fits: Callable[[Plan], bool]) -> Plan:
        """The part of a volume that one loss is taken over, divided evenly into windows.

        The part is that of the settings, or the data set's median volume; windows are no larger than
        ``settings.window``, in plane of whole tokens. While it does not fit, it loses a window along its longest axis,
        and a single window the smallest possible part of its longest axis.
        """
        from nnunet_neurino.networks.vit import PATCH

        if configuration.get("previous_stage"):
            raise NeurinoError(
                "the second stage of a cascade is what DINOWindow cannot be: its encoder sees images, not "
                "segmentations; train 3d_fullres"
            )
        asked = settings.patch_size or configuration.get("median_image_size_in_voxels") or configuration["patch_size"]
        volume = tuple(max(1, math.ceil(n)) for n in asked)
        cells: Axes = (1, PATCH // settings.magnify, PATCH // settings.magnify)
        if settings.single:
            counts: Axes = (1, 1, 1)
            window = rounded_up(volume, cells)
        else:
            counts = tuple(math.ceil(n / w) for n, w in zip(volume, settings.window, strict=True))
            window = rounded_up([math.ceil(n / c) for n, c in zip(volume, counts, strict=True)], cells)
        divisions = _ever_smaller(counts, window, cells, settings.single)
        plans = [self._plan_of(*division, configuration, settings) for division in divisions]
        return plans[0] if settings.patch_size is not None else first_that_fits(plans, fits)

    def _plan_of(self, counts: Axes, window: Axes, configuration: dict[str, Any], settings: WindowSettings) -> Plan:
        from nnunet_neurino.networks.vit import vit_by_name

        arch_kwargs = {
            "vit": settings.size,
            "window": list(window),
            "layers": [vit_by_name(settings.size).depth - 1] if settings.layers == "last" else None,
            "arms": list(counts) if settings.per_position else None,
            "strides": [[1, 1, 1]],
            **settings.named("magnify", "channels", "dropout", "dense_head", "overlap"),
        }
        patch = tuple(c * w for c, w in zip(counts, window, strict=True))
        return Plan(patch, settings.batch_size or configuration["batch_size"], arch_kwargs)

    def weight_page(self, settings: WindowSettings) -> str | None:
        from nnunet_neurino.transfer.vit import VIT_PAGES

        return VIT_PAGES.get(settings.size)

    def fill(self, network: Any, location: str, settings: WindowSettings) -> dict[str, Any]:
        from nnunet_neurino.transfer.vit import fill_slice_encoder, load_vit_weights

        weights = load_vit_weights(location)
        assert weights is not None
        fill_slice_encoder(network, weights)
        return weights.record

    def unpretrained(self, settings: WindowSettings) -> str:
        return "The frozen encoder has random weights, on purpose: good for trials only."


def _ever_smaller(counts: Axes, window: Axes, cells: Axes, single: bool) -> Iterator[tuple[Axes, Axes]]:
    """Windows (z, y, x) and voxels of a window (z, y, x), then ever smaller volumes, see ``DINOWindow.plan``."""
    while True:
        yield counts, window
        units, step = (window, cells) if single else (counts, (1,) * 3)
        room = [axis for axis in range(3) if units[axis] > step[axis]]
        if not room:
            return
        longest = max(room, key=lambda axis: (counts[axis] * window[axis], -axis))
        smaller = tuple(n - step[axis] if axis == longest else n for axis, n in enumerate(units))
        counts, window = (counts, smaller) if single else (smaller, window)
