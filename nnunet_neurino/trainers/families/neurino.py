"""NeurINO: an inflated ConvNeXt encoder with a MedNeXt decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.trainers.families.family import Axes, Family, Plan, register
from nnunet_neurino.trainers.families.patches import level_strides, patch_wise, stride_rows, totals
from nnunet_neurino.trainers.families.recipe import (
    BRIEF,
    EMA,
    NO_MIRRORING,
    RELEASED_OPTIMISER,
    START,
    WITHOUT_TASL,
    TransferRecipe,
    Words,
)


@dataclass(frozen=True)
class NeurINOSettings(TransferRecipe):
    """Recipe of a training of NeurINO. The defaults are those of ``nnUNetTrainerNeurINO``."""

    # encoder, ``"tiny"``, ``"small"``, ``"base"`` or ``"large"`` (DINOv3 ConvNeXt), or ``"atto"`` (for trials on a CPU)
    size: str = "tiny"
    stem_stride: int = 2  # reduction of the first layer, 2 (keeps thin neurites) or 4 (cheaper)
    # halve every axis at every level, with kernels as deep as wide, whatever the spacing (published)
    isotropic: bool = False
    grn: bool = True  # global response normalisation in the decoder
    # normalisation in the decoder: ``"group"`` (each patch by itself), ``"layer"`` or ``"batch"`` (published)
    norm: str = "group"
    # compute activations again in the backward pass instead of keeping them: less memory, more time
    checkpointing: bool = False
    # of heads and shortcuts in the decoder, ``"linear"`` or ``"published"`` (large first logits)
    start_values: str = "linear"
    # ``"center"``, ``"average"``, ``"center_sym"`` or ``"triplane"``: from 2D to 3D kernels
    inflation: str = "center_sym"
    layer_decay: float = 0.9
    bottleneck_loss: bool = False  # also supervise the coarsest head (published); nnU-Net gives its last one no weight

    fixed: ClassVar[tuple[str, ...]] = (*TransferRecipe.fixed, "size", "stem_stride", "isotropic", "grn", "norm")
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        **TransferRecipe.choices,
        "size": ("tiny", "small", "base", "large", "atto"),
        "stem_stride": (2, 4),
        "norm": ("group", "batch", "layer"),
        "start_values": ("linear", "published"),
        "inflation": ("center", "average", "center_sym", "triplane"),
    }


PAPER: dict[str, Any] = {
    "isotropic": True,
    "grn": True,
    "norm": "batch",
    "start_values": "published",
    "patch_size": (32, 32, 32),
    "batch_size": 2,
    "inflation": "center",
    "rgb": "mean",
    "epochs": 110,
    "lr": 1e-3,
    **RELEASED_OPTIMISER,
    "layer_decay": 1.0,
    "full_precision": True,
    "bottleneck_loss": True,
    "tasl": "published",
    "tasl_weight": 0.1,
    "tasl_lambdas": (1.0, 0.5, 0.5),
    "tasl_warmup_epochs": 0.0,
}
RELEASED: dict[str, Any] = PAPER | {"grn": False, "patch_size": (64, 64, 64), "tasl_lambdas": (1.0, 0.5, 0.2)}
DEMO: dict[str, Any] = BRIEF | {"size": "atto", "pretrained": False, "patch_size": (32, 32, 32)}


@register
class NeurINO(Family[NeurINOSettings]):
    base = "nnUNetTrainerNeurINO"
    title = "NeurINO"
    plain = "Tiny encoder, our defaults"
    settings = NeurINOSettings()
    network = "nnunet_neurino.networks.NeurINO"
    words: ClassVar[tuple[Words, ...]] = (
        {
            "S": ("Small encoder", {"size": "small"}),
            "B": ("Base encoder", {"size": "base"}),
            "L": ("Large encoder", {"size": "large"}),
            "demo": ("a very small network, minutes on a CPU", DEMO),
        },
        {
            "paper": ("every constant of the paper", PAPER),
            "released": ("every constant of the released code", RELEASED),
        },
        {"stem4": ("first layer of stride 4: cheaper, loses thin neurites", {"stem_stride": 4})},
        {
            "average": ("2D kernels spread evenly over the depth", {"inflation": "average"}),
            "center": ("2D kernels in the middle slice", {"inflation": "center"}),
            "triplane": ("2D kernels along all three planes", {"inflation": "triplane"}),
        },
        START,
        WITHOUT_TASL,
        EMA,
        NO_MIRRORING,
    )

    def plan(self, configuration: dict[str, Any], settings: NeurINOSettings, fits: Callable[[Plan], bool]) -> Plan:
        strides, depths = _geometry(configuration, settings)
        same = settings.named("size", "stem_stride", "grn", "norm", "checkpointing")
        arch_kwargs = {**same, "strides": stride_rows(strides), "kernel_depth": depths}
        if settings.start_values != "linear":
            arch_kwargs["start_values"] = settings.start_values
        return patch_wise(self, configuration, settings, arch_kwargs, totals(strides), fits)

    def weight_page(self, settings: NeurINOSettings) -> str | None:
        from nnunet_neurino.transfer import hub

        return hub.DINOV3.get(settings.size)

    def cached_weights(self, settings: NeurINOSettings) -> Path | None:
        from nnunet_neurino.transfer import hub

        return hub.cached_size(settings.size) if self.weight_page(settings) else None

    def fill(self, network: Any, location: str, settings: NeurINOSettings) -> dict[str, Any]:
        from nnunet_neurino.transfer import inflate_into, load_2d_weights

        weights = load_2d_weights(location)
        assert weights is not None
        inflate_into(network, weights, settings.inflation, settings.rgb)
        return weights.record | settings.named("inflation", "rgb")


def _geometry(configuration: dict[str, Any], settings: NeurINOSettings) -> tuple[list[Axes], list[int]]:
    """Strides from each level to the next, finest first, and the depth of the four encoder stages' kernels."""
    n_steps = 5 if settings.stem_stride == 4 else 4
    everywhere: list[Axes] = [(2, 2, 2)] * n_steps
    if settings.inflation == "triplane":
        from nnunet_neurino.transfer import default_kernel_depth

        spacing = [float(s) for s in configuration["spacing"]]
        if max(spacing) >= 2 * min(spacing):
            raise NeurinoError(
                f"inflation 'triplane' treats all axes alike, but voxels are {spacing} apart: use another rule (the "
                "default, nnUNetTrainerNeurINO), or plan with cubic voxels (-overwrite_target_spacing)"
            )
        return everywhere, [default_kernel_depth("triplane")] * 4
    if settings.isotropic:
        return everywhere, [3] * 4
    strides, depths = level_strides(configuration, n_steps, settings.patch_size)
    return strides, depths[-4:]
