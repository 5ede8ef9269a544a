"""Blocks of neighbouring slices -> tokens: a ViT's patch embedding, inflated.

A block of five slices is looked at with a kernel of 5 x 16 x 16, and its depth collapses into one layer of tokens that
stand for the middle slice; the transformer behind it stays two-dimensional. (TransSeg, arXiv 2302.04303, of which
DINeuro's and Boosting's base are taken to be instances: an inference of ours.)

Every slice is the middle of a block, so a volume of Z slices gives Z images of tokens, all in one convolution. Beyond
the first and the last slice, these are repeated (ours; the papers do not say).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.vit import PATCH

BLOCK_RULES = ("center", "center_sym", "average")
"""How a 2D kernel becomes a block's. ``center_sym`` is ``center``: blocks have a middle slice."""


def inflate_block_kernel(kernel: Tensor, depth: int, rule: str) -> Tensor:
    """Give a 2D kernel (out, in, y, x) a depth: (out, in, depth, y, x).

    Args:
        kernel: of the 2D patch embedding.
        depth: slices of a block, odd.
        rule: ``center``: on the middle slice, zeros on the others; ``average``: a share of 1 / depth on each.
    """
    if rule not in BLOCK_RULES:
        raise NeurinoError(f"transfer rule '{rule}' is not known for a ViT: expected one of {', '.join(BLOCK_RULES)}")
    if rule == "average":
        return (kernel / depth).unsqueeze(2).repeat(1, 1, depth, 1, 1)
    inflated = kernel.new_zeros(*kernel.shape[:2], depth, *kernel.shape[2:])
    inflated[:, :, depth // 2] = kernel
    return inflated


class BlockEmbedding(nn.Module):
    """(N, C, Z, Y, X) -> tokens (N, Z, Y / 16, X / 16, width) of the block around each slice.

    Args:
        channels: of the image.
        width: channels of a token.
        depth: slices of a block, odd.
        rule: how the random 2D kernel it starts with is inflated; ``scratch`` for random values in every slice.
    """

    def __init__(self, channels: int, width: int, depth: int = 5, rule: str = "center") -> None:
        super().__init__()
        if depth < 1 or depth % 2 == 0:
            raise NeurinoError(f"block depth {depth}: expected an odd number of slices, of which the middle one counts")
        self.depth = depth
        self.proj = nn.Conv3d(channels, width, (depth, PATCH, PATCH), (1, PATCH, PATCH))
        nn.init.trunc_normal_(self.proj.weight, std=0.02)
        if rule != "scratch":
            with torch.no_grad():
                self.proj.weight.copy_(inflate_block_kernel(self.proj.weight[:, :, 0], depth, rule))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        beyond = self.depth // 2
        if beyond:
            image = F.pad(image, (0, 0, 0, 0, beyond, beyond), mode="replicate")
        return self.proj(image).permute(0, 2, 3, 4, 1)
