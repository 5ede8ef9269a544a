"""NeurINO: an inflated ConvNeXt encoder with a MedNeXt decoder (methods: arXiv 2603.23104)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.convnext import ConvNeXt3d, EncoderGeometry, size_by_name
from nnunet_neurino.networks.decoder import DecoderPlan, MedNeXtDecoder
from nnunet_neurino.networks.geometry import Levels, channels_last_memory, product
from nnunet_neurino.networks.layers import number_of_channels


class NeurINO(nn.Module):
    """NeurINO, as published by default (sizes Tiny and Small; 2x stem; five heads).

    Takes images (N, C, Z, Y, X) of any size: where the coarsest level does not divide it, zeros are added at the far
    ends and the logits are cut back. Returns a list of logits, full resolution first, while
    ``decoder.deep_supervision`` is on, and the full-resolution tensor alone while it is off. There is no softmax.

    In nnU-Net's plans, name it ``nnunet_neurino.networks.NeurINO`` and give ``strides`` rows by the rule of
    ``nnunet_neurino.networks.geometry``: ``len(strides) - 1`` logits come back. The 2x stem has 5 levels, the 4x stem
    6. ``levels.rows`` of a network built with ``strides=None`` gives the rows of the published network: six with
    either stem, hence five heads and five of nnU-Net's targets.

    Args:
        in_channels: channels of the image, ``input_channels`` with nnU-Net; either name will do.
        num_classes: channels of the logits: classes with the background, or regions.
        size: ``tiny``, ``small``, ``base`` or ``large``; ``atto`` for trials on a CPU.
        stem_stride: 2 (keeps thin neurites) or 4 (as the 2D network).
        grn: global response norm in the decoder.
        strides: rows of (z, y, x) strides, or None for isotropic ones with the published heads.
        norm: norm of the decoder: ``batch`` (published), ``group`` (each channel of each patch by itself) or
            ``layer`` (over the channels of each voxel).
        kernel_depth: taps along the depth axis of the encoder's depthwise kernels: one odd number, or one for each
            stage.
        depth_axis: the axis that the 2D weights do not have: 0 (z), 1 (y) or 2 (x).
        checkpointing: compute activations again in the backward pass instead of keeping them.
        start_values: ``linear``, or ``published`` for the large first logits of the published network; see
            ``nnunet_neurino.networks.decoder``.

    Examples:
        >>> import torch
        >>> network = NeurINO(in_channels=1, num_classes=3)
        >>> [tuple(logits.shape) for logits in network.eval()(torch.zeros(1, 1, 32, 32, 32))][:2]
        [(1, 3, 32, 32, 32), (1, 3, 16, 16, 16)]
    """

    key_to_encoder = "encoder"
    key_to_stem = "encoder.stem"
    keys_to_in_proj = ("encoder.stem.0",)
    key_to_lpe = None

    def __init__(
        self,
        in_channels: int | None = None,
        num_classes: int = 2,
        size: str = "tiny",
        stem_stride: int = 2,
        grn: bool = False,
        deep_supervision: bool = True,
        strides: Sequence[Sequence[int]] | None = None,
        norm: str = "batch",
        kernel_depth: int | Sequence[int] = 3,
        depth_axis: int = 0,
        checkpointing: bool = False,
        start_values: str = "linear",
        *,
        input_channels: int | None = None,
    ) -> None:
        super().__init__()
        in_channels = number_of_channels(in_channels, input_channels)
        self.num_classes = num_classes
        self.size = size_by_name(size)
        self.levels = neurino_levels(strides, stem_stride)
        geometry = encoder_geometry(self.levels, kernel_depth, depth_axis)
        self.encoder = ConvNeXt3d(in_channels, self.size, geometry, checkpointing)
        finer = tuple(self.size.widths[0] // 2**k for k in range(self._finer_levels, 0, -1))
        widths = finer + self.size.widths
        plan = DecoderPlan(
            widths=widths,
            # The further up-block of the 4x stem has no residual blocks behind it.
            blocks=(0 if stem_stride == 4 else 2, *(2 for _ in widths[1:])),
            expansions=tuple(2 for _ in widths),
            skipped=self._finer_levels,
            norm=norm,
            grn=grn,
            start_values=start_values,
        )
        self.decoder = MedNeXtDecoder(plan, self.levels, num_classes, deep_supervision, checkpointing)

    @property
    def _finer_levels(self) -> int:
        """Levels that are finer than the encoder's first stage."""
        return len(self.levels.steps) - 3

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        padded = channels_last_memory(self.levels.pad(image))
        outputs = self.levels.crop(self.decoder(self.encoder(padded)), image.shape[-3:])
        return outputs if self.decoder.deep_supervision else outputs[0]


def neurino_levels(strides: Sequence[Sequence[int]] | None, stem_stride: int = 2) -> Levels:
    """The resolution levels of a NeurINO with these rows of strides; see ``nnunet_neurino.networks.geometry``."""
    if stem_stride not in (2, 4):
        raise NeurinoError(f"stem stride {stem_stride}: expected 2 or 4")
    return Levels.from_strides(strides, n_levels=5 if stem_stride == 2 else 6, n_heads=5)


def encoder_geometry(levels: Levels, kernel_depth: int | Sequence[int] = 3, depth_axis: int = 0) -> EncoderGeometry:
    """Strides and kernels of the encoder of a NeurINO with these levels."""
    stem = product(levels.steps[:-3])
    depths = (kernel_depth,) * 4 if isinstance(kernel_depth, int) else tuple(kernel_depth)
    return EncoderGeometry((stem, *levels.steps[-3:]), depths, depth_axis)  # type: ignore[arg-type]
