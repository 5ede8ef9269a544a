"""The 2D vision transformers that DINO (Caron et al., 2021) and DINOv3 (Siméoni et al., 2025) pretrained.

DINO's has learned positions, DINOv3's rotary ones, registers and layer scale. Weights have the names that timm gives
them. The patch embedding is the caller's: ``SliceEncoder`` has the pretrained one, ``BlockViT`` an inflated one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.layers import Mlp
from nnunet_neurino.networks.old_names import read_old_names
from nnunet_neurino.networks.token_positions import Grid, resize_positions, rotary_table, turn

PATCH = 16
"""Pixels of a side of the image patch that a token stands for."""


@dataclass(frozen=True)
class ViTSize:
    """A vision transformer."""

    width: int  # channels of a token
    depth: int  # blocks
    heads: int  # attention heads
    native: Grid | None = (14, 14)  # grid (y, x) of the learned positions; None for rotary ones
    registers: int = 0  # tokens beside the class token that belong to no place
    # start value of the factor on each branch; None for no factors. Pretrained weights replace it
    layer_scale: float | None = None
    eps: float = 1e-6  # of the layer norms

    @property
    def four_layers(self) -> tuple[int, ...]:
        """Four of the blocks, spread evenly, the last one included: 2, 5, 8, 11 of 12."""
        return tuple(self.depth * quarter // 4 - 1 for quarter in range(1, 5))


def _rotary(size: ViTSize) -> ViTSize:
    return replace(size, native=None, registers=4, layer_scale=0.1, eps=1e-5)


_SMALL = ViTSize(384, 12, 6)
_BASE = ViTSize(768, 12, 12)
_ATTO = ViTSize(64, 4, 2)

VITS = {
    "small": _SMALL,
    "base": _BASE,
    "atto": _ATTO,
    "small_v3": _rotary(_SMALL),
    "base_v3": _rotary(_BASE),
    "atto_v3": _rotary(_ATTO),
}
"""By name: DINO's ViT-S/16 and ViT-B/16, DINOv3's, and one of ours for trials on a CPU (no weights exist for it)."""


def vit_by_name(name: str) -> ViTSize:
    """A size of ``VITS``."""
    if name not in VITS:
        raise NeurinoError(f"vit '{name}' is not known: expected one of {', '.join(VITS)}")
    return VITS[name]


class Attention(nn.Module):
    """Self-attention of tokens (B, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # DINOv3's keys have no bias: it is zero at the start, which needs no layer of its own.
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, table: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, tokens, width) -> the same; ``table`` is that of ``rotary_table``."""
        batch, count, width = tokens.shape
        parts = self.qkv(tokens).view(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        if table is not None:
            query, key = turn(query, table), turn(key, table)
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).reshape(batch, count, width))


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and around a residual."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        width, scale = size.width, size.layer_scale
        self.norm1 = nn.LayerNorm(width, eps=size.eps)
        self.attn = Attention(width, size.heads)
        self.norm2 = nn.LayerNorm(width, eps=size.eps)
        self.mlp = Mlp(width)
        self.gamma_1 = None if scale is None else nn.Parameter(torch.full((width,), scale))
        self.gamma_2 = None if scale is None else nn.Parameter(torch.full((width,), scale))

    def forward(self, tokens: Tensor, table: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, tokens, width) -> the same; ``table`` is that of ``rotary_table``."""
        attended = self.attn(self.norm1(tokens), table)
        tokens = tokens + (attended if self.gamma_1 is None else self.gamma_1 * attended)
        thought = self.mlp(self.norm2(tokens))
        return tokens + (thought if self.gamma_2 is None else self.gamma_2 * thought)


class VisionTransformer(nn.Module):
    """A patch embedding and what turns its tokens into those after some of the blocks.

    Args:
        size: what it is made of.
        layers: which blocks' outputs to give, from 0, rising; the last block must be among them.
        patch_embed: images -> tokens; its weights are a part of this network, when it is called is up to subclasses.
        checkpointing: compute blocks again in the backward pass instead of keeping what they made.
    """

    def __init__(
        self, size: ViTSize, layers: Sequence[int], patch_embed: nn.Module, checkpointing: bool = False
    ) -> None:
        super().__init__()
        if list(layers) != sorted(set(layers)) or not layers or layers[0] < 0 or layers[-1] != size.depth - 1:
            raise NeurinoError(
                f"layers {list(layers)}: expected rising numbers from 0 that end with {size.depth - 1}, the last of "
                f"the {size.depth} blocks"
            )
        self.size = size
        self.layers = tuple(int(layer) for layer in layers)
        self.checkpointing = checkpointing
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.reg_token = nn.Parameter(torch.zeros(1, size.registers, size.width)) if size.registers else None
        places = None if size.native is None else 1 + size.native[0] * size.native[1]
        self.pos_embed = None if places is None else nn.Parameter(torch.zeros(1, places, size.width))
        self.patch_embed = patch_embed
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=size.eps)
        self._start()
        read_old_names(self)

    def _start(self) -> None:
        for parameter in (self.cls_token, self.reg_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def transformed(self, tokens: Tensor) -> list[Tensor]:
        """(B, y, x, width) tokens of B images -> one such tensor for each of ``layers``, layer norm behind each.

        The class token and the registers take part and are left out of what comes back.
        """
        batch, *grid, width = tokens.shape
        tokens = tokens.reshape(batch, -1, width)
        prefix = [self.cls_token] if self.reg_token is None else [self.cls_token, self.reg_token]
        tokens = torch.cat([*(token.expand(batch, -1, -1).to(tokens.dtype) for token in prefix), tokens], dim=1)
        n_prefix = tokens.shape[1] - grid[0] * grid[1]
        table = None
        if self.pos_embed is not None and self.size.native is not None:
            tokens = tokens + resize_positions(self.pos_embed, self.size.native, (grid[0], grid[1]))
        else:
            table = rotary_table((grid[0], grid[1]), width // self.size.heads, n_prefix, device=tokens.device)
        found = []
        for number, block in enumerate(self.blocks):
            if self.checkpointing and self.training and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, table, use_reentrant=False)
            else:
                tokens = block(tokens, table)
            if number in self.layers:
                found.append(self.norm(tokens)[:, n_prefix:].reshape(batch, *grid, width))
        return found

    def embedding_parameters(self) -> list[nn.Parameter]:
        """The pretrained parameters that make tokens of an image."""
        return [*self.patch_embed.parameters()]

    def parameter_blocks(self) -> Iterator[list[nn.Parameter]]:
        """The pretrained parameters of each layer, from the image on, for learning rates that fall towards the image.

        The order of parameters is that of the optimiser states in the checkpoints of earlier versions.
        """
        tokens = [p for p in (self.cls_token, self.reg_token, self.pos_embed) if p is not None]
        yield [*self.embedding_parameters(), *tokens]
        *blocks, last = self.blocks
        for block in blocks:
            yield [*block.parameters()]
        yield [*last.parameters(), *self.norm.parameters()]
