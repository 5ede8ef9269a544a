"""MedNeXt (Roy et al., 2023) with kernel 3: the baseline of the NeurINO paper, on the same blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.decoder import DecoderPlan, MedNeXtDecoder
from nnunet_neurino.networks.geometry import Levels, channels_last_memory
from nnunet_neurino.networks.layers import Pointwise, number_of_channels
from nnunet_neurino.networks.mednext_blocks import MedNeXtDownBlock
from nnunet_neurino.networks.recompute import run


@dataclass(frozen=True)
class MedNeXtSize:
    """Residual blocks and expansions of the five levels, full resolution first; the decoder mirrors the encoder."""

    blocks: tuple[int, int, int, int, int]
    expansions: tuple[int, int, int, int, int]


SIZES = {
    "S": MedNeXtSize((2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
    "B": MedNeXtSize((2, 2, 2, 2, 2), (2, 3, 4, 4, 4)),
    "M": MedNeXtSize((3, 4, 4, 4, 4), (2, 3, 4, 4, 4)),
    "L": MedNeXtSize((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
}


class _EncoderLevel(nn.Module):
    """Residual blocks of one level and the downsampling behind it."""

    def __init__(self, blocks: nn.ModuleList, down: MedNeXtDownBlock) -> None:
        super().__init__()
        self.blocks = blocks
        self.down = down

    def forward(self, volume: Tensor, checkpointing: bool) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            volume = run(block, volume, checkpointing)
        return volume, run(self.down, volume, checkpointing)


class _Encoder(nn.Module):
    """An image -> what each level hands to the decoder, full resolution first; the last is the bottleneck's input."""

    def __init__(self, in_channels: int, plan: DecoderPlan, levels: Levels, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.stem = Pointwise(in_channels, plan.widths[0])
        self.levels = nn.ModuleList(
            _EncoderLevel(
                plan.make_blocks(level),
                MedNeXtDownBlock(
                    plan.widths[level],
                    plan.widths[level + 1],
                    step,
                    plan.expansions[level + 1],
                    plan.norm,
                    # The published network leaves it out of its first downsampling.
                    plan.grn and level > 0,
                ),
            )
            for level, step in enumerate(levels.steps)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        volume = self.stem(image)
        features = []
        for level in self.levels:
            skip, volume = level(volume, self.checkpointing)
            features.append(skip)
        return [*features, volume]

    def parameter_blocks(self) -> Iterator[list[nn.Parameter]]:
        """The parameters of each layer, from the image on, for learning rates that fall towards the image."""
        yield [*self.stem.parameters()]
        level: Any
        for level in self.levels:
            assert isinstance(level, _EncoderLevel)
            for block in (*level.blocks, level.down):
                yield [*block.parameters()]


class MedNeXt(nn.Module):
    """MedNeXt, kernel 3; the defaults are the network of the NeurINO paper's tables (61.97 M parameters).

    It takes volumes, gives logits and reads ``strides`` as ``NeurINO`` does; it has 5 levels.

    Args:
        size: ``S``, ``B``, ``M`` or ``L``.
        grn: global response norm in every block but the first downsampling.
        norm: ``group`` (published), ``batch`` or ``layer``.
        width: channels at full resolution.

    All other arguments are those of ``NeurINO``.
    """

    key_to_encoder = "encoder"
    key_to_stem = "encoder.stem"
    keys_to_in_proj = ("encoder.stem",)
    key_to_lpe = None

    def __init__(
        self,
        in_channels: int | None = None,
        num_classes: int = 2,
        size: str = "L",
        grn: bool = True,
        deep_supervision: bool = True,
        strides: Sequence[Sequence[int]] | None = None,
        norm: str = "group",
        width: int = 32,
        checkpointing: bool = False,
        start_values: str = "linear",
        *,
        input_channels: int | None = None,
    ) -> None:
        super().__init__()
        in_channels = number_of_channels(in_channels, input_channels)
        if size not in SIZES:
            raise NeurinoError(f"MedNeXt size '{size}' is not known: expected one of {', '.join(SIZES)}")
        self.num_classes = num_classes
        self.levels = Levels.from_strides(strides, n_levels=5, n_heads=5)
        plan = DecoderPlan(
            widths=tuple(width * 2**level for level in range(5)),
            blocks=SIZES[size].blocks,
            expansions=SIZES[size].expansions,
            norm=norm,
            grn=grn,
            start_values=start_values,
        )
        self.encoder = _Encoder(in_channels, plan, self.levels, checkpointing)
        self.decoder = MedNeXtDecoder(plan, self.levels, num_classes, deep_supervision, checkpointing)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        padded = channels_last_memory(self.levels.pad(image))
        outputs = self.levels.crop(self.decoder(self.encoder(padded)), image.shape[-3:])
        return outputs if self.decoder.deep_supervision else outputs[0]
