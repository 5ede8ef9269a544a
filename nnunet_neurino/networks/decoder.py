"""The decoder that NeurINO and MedNeXt share, with segmentation heads that are switched the nnU-Net way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.geometry import Levels
from nnunet_neurino.networks.layers import Pointwise
from nnunet_neurino.networks.mednext_blocks import MedNeXtBlock, MedNeXtUpBlock
from nnunet_neurino.networks.recompute import run

START_VALUES = ("linear", "published")
"""``linear``: of a linear layer. ``published``: of a transposed 1x1x1 convolution, which the published network has for
heads and shortcuts: its logits start with a deviation of 1.4 to 15.9 instead of 0.3 to 0.6."""


@dataclass(frozen=True)
class DecoderPlan:
    """What a decoder is made of; every tuple runs from full resolution to the bottleneck."""

    widths: tuple[int, ...]  # channels of each level
    blocks: tuple[int, ...]  # residual blocks of each level
    expansions: tuple[int, ...]  # how many times wider the blocks of each level are inside
    skipped: int = 0  # levels from full resolution on that get nothing from the encoder
    norm: str = "batch"  # ``batch``, ``group`` or ``layer``
    grn: bool = False  # global response norm in every block
    start_values: str = "linear"  # of the heads and of the upsampling shortcuts, see ``START_VALUES``

    def __post_init__(self) -> None:
        if self.start_values not in START_VALUES:
            raise NeurinoError(
                f"start values '{self.start_values}' are not known: expected one of {', '.join(START_VALUES)}"
            )

    def started(self, layer: Pointwise) -> Pointwise:
        """A head or a shortcut with the values that it is to start with."""
        if self.start_values == "published":
            layer.start_as_transposed()
        return layer

    def make_blocks(self, level: int) -> nn.ModuleList:
        """The residual blocks of a level."""
        return nn.ModuleList(
            MedNeXtBlock(self.widths[level], self.expansions[level], self.norm, self.grn)
            for _ in range(self.blocks[level])
        )


class _Level(nn.Module):
    """Up from the level below, plus what the encoder has at this level, then residual blocks."""

    def __init__(self, plan: DecoderPlan, levels: Levels, level: int) -> None:
        super().__init__()
        self.up = MedNeXtUpBlock(
            plan.widths[level + 1], plan.widths[level], levels.steps[level], plan.expansions[level], plan.norm, plan.grn
        )
        plan.started(self.up.shortcut)
        self.blocks = plan.make_blocks(level)

    def forward(self, volume: Tensor, skip: Tensor | None, checkpointing: bool) -> Tensor:
        volume = run(self.up, volume, checkpointing)
        if skip is not None:
            volume = volume + skip
        for block in self.blocks:
            volume = run(block, volume, checkpointing)
        return volume


class MedNeXtDecoder(nn.Module):
    """Features of the encoder -> logits, one tensor for each head, full resolution first.

    ``deep_supervision``, which nnU-Net sets, returns the list of all heads' logits, without it only the full-resolution
    ones. The heads are part of the state dict either way.
    """

    def __init__(
        self,
        plan: DecoderPlan,
        levels: Levels,
        num_classes: int,
        deep_supervision: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.deep_supervision = deep_supervision
        self.checkpointing = checkpointing
        self.bottleneck = plan.make_blocks(len(plan.widths) - 1)
        self.levels = nn.ModuleList(_Level(plan, levels, level) for level in range(len(plan.widths) - 1))
        self.seg_layers = nn.ModuleList(
            plan.started(Pointwise(width, num_classes)) for width in plan.widths[: levels.n_heads]
        )
        if not deep_supervision:
            # Distributed training refuses parameters that never get a gradient.
            self.seg_layers[1:].requires_grad_(False)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Decode ``features`` (finest first; the last is the bottleneck's input) into the logits of the heads asked
        for."""
        volume = features[-1]
        for block in self.bottleneck:
            volume = run(block, volume, self.checkpointing)
        volumes = [volume]
        for number in range(len(self.levels) - 1, -1, -1):
            has_skip = number >= self.plan.skipped
            skip = features[number - self.plan.skipped] if has_skip else None
            volume = self.levels[number](volume, skip, self.checkpointing)
            volumes.insert(0, volume)
        heads = self.seg_layers if self.deep_supervision else self.seg_layers[:1]
        return [head(volume).contiguous() for head, volume in zip(heads, volumes, strict=False)]
