"""DINeuro: a 2D ViT that segments volumes slice by slice, its patch embedding made of blocks and bending tubes.

After arXiv 2410.22078 (DINeuro) and 2405.02686 (Boosting), for which there is no public code; what they do not say is
filled in from TransSeg (arXiv 2302.04303), whose recipe both follow as far as can be told, or is ours. Each part says
which: ``block_embedding``, ``tubes``, ``slice_decoders``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.block_embedding import BLOCK_RULES, BlockEmbedding
from nnunet_neurino.networks.geometry import Levels
from nnunet_neurino.networks.layers import number_of_channels
from nnunet_neurino.networks.slice_decoders import PyramidDecoder, UPerNetDecoder, pyramid_levels, upernet_levels
from nnunet_neurino.networks.tubes import LENGTH, TubeEmbedding
from nnunet_neurino.networks.vit import PATCH, VisionTransformer, ViTSize, vit_by_name

DECODERS = ("pyramid", "upernet")


class BlockViT(VisionTransformer):
    """The encoder: (N, C, Z, Y, X) -> tokens of some of the ViT's layers, early ones first, each (N, width, Z, y, x).

    Args:
        channels: of the image.
        size: of the ViT.
        layers: which of its blocks' outputs to give.
        depth: slices of a block of slices, odd; the middle one is what the tokens stand for.
        transfer: how the embedding's random 2D kernel is inflated; see ``BlockEmbedding``.
        tubes: the tubes, or None for the block embedding alone.
        magnify: the image is enlarged in plane by this before anything else.
        checkpointing: compute the ViT's blocks again in the backward pass.
    """

    patch_embed: BlockEmbedding

    def __init__(
        self,
        channels: int,
        size: ViTSize,
        layers: Sequence[int],
        depth: int = 5,
        transfer: str = "center",
        tubes: TubeEmbedding | None = None,
        magnify: float = 1.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(size, layers, BlockEmbedding(channels, size.width, depth, transfer), checkpointing)
        self.magnify = magnify
        self.tubes = tubes

    def forward(self, image: Tensor) -> list[Tensor]:
        image = self.magnified(image)
        tokens = self.patch_embed(image)
        if self.tubes is not None:
            tokens = self.tubes(image, tokens)
        batch, slices = tokens.shape[:2]
        found = self.transformed(tokens.flatten(0, 1))
        return [layer.unflatten(0, (batch, slices)).permute(0, 4, 1, 2, 3) for layer in found]

    def magnified(self, image: Tensor) -> Tensor:
        """The image as patches are taken from it: enlarged in plane, then zeros up to whole patches."""
        if self.magnify != 1:
            z, y, x = image.shape[2:]
            size = (z, round(y * self.magnify), round(x * self.magnify))
            image = F.interpolate(image, size=size, mode="trilinear", align_corners=False)
        missing = [-n % PATCH for n in image.shape[3:]]
        return F.pad(image, (0, missing[1], 0, missing[0])) if any(missing) else image

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Without what is new rather than transferred: the tubes' offsets, their mixing and gate."""
        kernels = [] if self.tubes is None else self.tubes.kernels()
        return [*super().embedding_parameters(), *kernels]


class DINeuro(nn.Module):
    """A volume's slices through a 2D ViT, each as the middle of a block of slices, with tubes along z, y and x.

    Takes images (N, C, Z, Y, X) of any size and any number of slices. Depth is never reduced: Z slices go through the
    ViT as one batch of Z images. Returns a list of logits, full resolution first, while ``decoder.deep_supervision`` is
    on, and the full-resolution tensor alone while it is off. There is no softmax.

    In nnU-Net's plans, name it ``nnunet_neurino.networks.DINeuro``; ``strides`` must be ``levels.rows``.

    Args:
        in_channels: channels of the image, ``input_channels`` with nnU-Net; either name will do.
        num_classes: channels of the logits: classes with the background, or regions.
        vit: a name in ``nnunet_neurino.networks.vit.VITS``.
        tubes: add deformable tubes to the patch embedding.
        transfer: from a 2D kernel to a block's: ``center``, ``average``, or ``scratch`` (nothing is transferred).
        decoder: ``pyramid`` (ours: full-resolution detail) or ``upernet`` (TransSeg's).
        strides: nnU-Net's rows of strides, to be checked; None for this network's own.
        block_depth: slices of a block, odd (5, as published).
        layers: four of the ViT's blocks, from 0, whose tokens are decoded, the last one included; None spreads them
            evenly (2, 5, 8, 11).
        decoder_width: channels of the decoder (at full resolution for ``pyramid``); None for its own habit.
        norm: norm of the decoder: ``group``, ``layer`` or ``batch``.
        magnify: the ViT sees the image enlarged in plane by this, so that a token stands for 16 / magnify voxels: 1, 2
            or 4 for ``pyramid``, any number from 1 on for ``upernet``.
        tube_length: taps of a tube: 256, or a divisor of it whose taps are sums of neighbouring ones. (Any other number
            works, but 2D weights do not fit it.)
        tube_step: voxels between taps (of the enlarged image), one number or (z, y, x): 1 as published.
        tube_controls: points along a tube at which its steps are learned; ``tube_length`` for the literal form.
        tube_gate: what the tubes' tokens are multiplied by at the start; 0 starts at the transferred network.
        checkpointing: compute activations again in the backward pass instead of keeping them.

    Examples:
        >>> import torch
        >>> network = DINeuro(in_channels=1, num_classes=3, vit="atto")
        >>> [tuple(logits.shape) for logits in network.eval()(torch.zeros(1, 1, 5, 64, 48))][:2]
        [(1, 3, 5, 64, 48), (1, 3, 5, 32, 24)]
    """

    key_to_encoder = "encoder"
    key_to_stem = "encoder.patch_embed"
    keys_to_in_proj = ("encoder.patch_embed.proj",)
    key_to_lpe = "encoder.pos_embed"

    def __init__(
        self,
        in_channels: int | None = None,
        num_classes: int = 2,
        vit: str = "small",
        tubes: bool = True,
        transfer: str = "center",
        deep_supervision: bool = True,
        decoder: str = "pyramid",
        strides: Sequence[Sequence[int]] | None = None,
        block_depth: int = 5,
        layers: Sequence[int] | None = None,
        decoder_width: int | None = None,
        norm: str = "group",
        magnify: float = 1.0,
        tube_length: int = LENGTH,
        tube_step: float | Sequence[float] = 1.0,
        tube_controls: int = 17,
        tube_gate: float = 0.0,
        checkpointing: bool = False,
        *,
        input_channels: int | None = None,
    ) -> None:
        super().__init__()
        channels = number_of_channels(in_channels, input_channels)
        if transfer not in (*BLOCK_RULES, "scratch"):
            raise NeurinoError(f"transfer '{transfer}' is not known: expected {', '.join(BLOCK_RULES)} or scratch")
        self.num_classes = num_classes
        self.size = vit_by_name(vit)
        self.vit = vit
        self.transfer = transfer
        self.levels = dineuro_levels(decoder, magnify)
        if strides is not None and [list(row) for row in strides] != self.levels.rows:
            raise NeurinoError(
                f"strides {[list(row) for row in strides]} do not fit decoder {decoder} with magnify {magnify:g}: "
                f"expected {self.levels.rows}"
            )
        chosen = self.size.four_layers if layers is None else tuple(layers)
        steps = (tube_step,) * 3 if isinstance(tube_step, (int, float)) else tuple(tube_step)
        if len(chosen) != 4:
            raise NeurinoError(f"layers {list(chosen)}: expected four of the ViT's blocks")
        if len(steps) != 3 or not all(0 < step < math.inf for step in steps):
            raise NeurinoError(f"tube_step {tube_step}: expected one number above 0, or three (z, y, x)")
        if decoder_width is not None and decoder_width < 1:
            raise NeurinoError(f"decoder_width {decoder_width}: expected a number of channels")
        embedding = None
        if tubes:
            embedding = TubeEmbedding(
                channels, self.size.width, tube_length, step=steps, controls=tube_controls, gate=tube_gate
            )
        self.encoder = BlockViT(
            channels, self.size, chosen, block_depth, transfer, embedding, float(magnify), checkpointing
        )
        self.decoder: PyramidDecoder | UPerNetDecoder
        if decoder == "pyramid":
            width = decoder_width or (8 if self.size.width < 128 else 32)
            scales = self.size.width, len(chosen), self.levels
            self.decoder = PyramidDecoder(channels, *scales, num_classes, width, norm, deep_supervision, checkpointing)
        else:
            width = decoder_width or (16 if self.size.width < 128 else 256)
            self.decoder = UPerNetDecoder(
                self.size.width, len(chosen), num_classes, width, norm, deep_supervision, float(magnify)
            )

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        padded = self.levels.pad(image)
        outputs = self.levels.crop(self.decoder(self.encoder(padded), padded), image.shape[-3:])
        return outputs if self.decoder.deep_supervision else outputs[0]


def dineuro_levels(decoder: str = "pyramid", magnify: float = 1.0) -> Levels:
    """The resolutions a DINeuro gives logits at; their ``rows`` are its ``strides`` in nnU-Net's plans."""
    if decoder not in DECODERS:
        raise NeurinoError(f"decoder '{decoder}' is not known: expected {' or '.join(DECODERS)}")
    if not 1 <= magnify < math.inf:
        raise NeurinoError(f"magnify {magnify}: expected a number from 1 on")
    return pyramid_levels(magnify) if decoder == "pyramid" else upernet_levels()
