"""A frozen 2D DINOv3 on windows of a volume, put together again: the whole volume's logits, one window's memory.

After arXiv 2602.23962, for which there is no public code. Non-overlapping windows, a frozen 2D ViT on every slice, a
depth embedding, light decoding and one loss over the reassembled volume are the paper's; the sizes, which layers are
decoded, what an arm is made of, and overlapping windows in prediction are ours. ``two_pass`` trains it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.networks.geometry import Triple
from nnunet_neurino.networks.layers import number_of_channels
from nnunet_neurino.networks.slice_encoder import SliceEncoder, brightness, brightness_range
from nnunet_neurino.networks.two_pass import Windows, two_pass
from nnunet_neurino.networks.vit import PATCH, vit_by_name
from nnunet_neurino.networks.window_decoder import WindowDecoder
from nnunet_neurino.networks.window_grid import WindowGrid

WINDOW: Triple = (32, 96, 96)
MAGNIFY = (1, 2, 4)


class DINOWindow(nn.Module):
    """Volumes (N, C, z, y, x) of any size -> logits (N, classes, z, y, x), window by window.

    In training mode the windows lie side by side and the result has a gradient for everything but the encoder. In
    evaluation mode windows overlap by ``overlap`` and are blended. A volume smaller than a window is continued with
    zeros. Every channel of the image goes through the encoder as a grey image of its own.

    In nnU-Net's plans, name it ``nnunet_neurino.networks.DINOWindow``.

    Args:
        in_channels: channels of the image, ``input_channels`` with nnU-Net; either name will do.
        num_classes: channels of the logits: classes with the background, or regions.
        vit: a name in ``nnunet_neurino.networks.vit.VITS``.
        window: voxels (z, y, x); in plane a multiple of 16 / magnify. A window as large as the volume means one window.
        magnify: slices are enlarged by this (1, 2 or 4) before the ViT sees them.
        layers: the ViT's blocks, counted from 0, whose tokens are decoded, the last one included; None spreads four
            evenly (2, 5, 8, 11).
        channels: of the decoding arm.
        dropout: in the decoding arm.
        arms: None for one arm that all windows share, or windows (z, y, x) of a volume for an arm at each position.
        dense_head: two convolutions over the whole volume that repair the seams; they start as nothing.
        overlap: of the windows in evaluation mode, from 0 (none, as published) on, below 1.
        strides, deep_supervision: nnU-Net's; there is one resolution only, so they say nothing.

    Examples:
        >>> network = DINOWindow(vit="atto_v3", window=(4, 16, 16)).eval()
        >>> tuple(network(torch.zeros(1, 1, 6, 20, 33)).shape)
        (1, 2, 6, 20, 33)
    """

    key_to_encoder = "encoder"
    key_to_stem = "encoder.patch_embed"
    keys_to_in_proj = ("encoder.patch_embed.proj",)
    key_to_lpe = "encoder.pos_embed"

    def __init__(
        self,
        in_channels: int | None = None,
        num_classes: int = 2,
        vit: str = "small_v3",
        window: Sequence[int] = WINDOW,
        magnify: int = 2,
        layers: Sequence[int] | None = None,
        channels: int = 128,
        dropout: float = 0.1,
        arms: Sequence[int] | None = None,
        dense_head: bool = False,
        overlap: float = 0.5,
        strides: Sequence[Sequence[int]] | None = None,
        deep_supervision: bool = False,
        *,
        input_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.in_channels = number_of_channels(in_channels, input_channels)
        self.num_classes = num_classes
        self.vit = vit
        size = vit_by_name(vit)
        self.window = checked_window(window, magnify)
        # An arm for each position has no say about windows that lie elsewhere.
        self.overlap = 0.0 if arms is not None else float(overlap)
        WindowGrid(self.window, self.window, self.overlap)  # refuses a wrong overlap now
        self.encoder = SliceEncoder(size, size.four_layers if layers is None else layers, magnify)
        width, cell = self.in_channels * self.encoder.width, PATCH // magnify
        self.decoder = WindowDecoder(width, num_classes, self.window, cell, channels, dropout, arms, dense_head)

    def grid(self, shape: Sequence[int], overlap: float = 0.0) -> WindowGrid:
        """The windows of a volume of (z, y, x) voxels."""
        z, y, x = shape
        return WindowGrid((z, y, x), self.window, overlap)

    def tokens(self, window: Tensor) -> Tensor:
        """A window (N, C, *window) of brightness from 0 to 1 -> (N, width, d, y', x'), without gradient."""
        count, channels, depth = window.shape[:3]
        found = self.encoder(window.flatten(0, 2))
        return found.unflatten(0, (count, channels, depth)).permute(0, 1, 3, 2, 4, 5).flatten(1, 2)

    def windows(self, image: Tensor, overlap: float = 0.0) -> ImageWindows:
        """The windows of images (N, C, z, y, x), for ``two_pass``."""
        if image.shape[1] != self.in_channels:
            raise NeurinoError(f"an image of {image.shape[1]} channels: the network was made for {self.in_channels}")
        return ImageWindows(self, image, self.grid(image.shape[2:], overlap))

    def forward(self, image: Tensor | Windows) -> Tensor:
        """Images (N, C, z, y, x), or the windows of some -> logits (N, classes, z, y, x)."""
        if isinstance(image, Tensor):
            image = self.windows(image, 0.0 if self.training else self.overlap)
        grid = image.grid
        logits = (self.decoder(image.tokens(number), grid, number) for number in range(len(grid)))
        return self.decoder.whole(grid.reassemble(logits))

    def trial_step(self, image: Tensor, loss: Callable[[Tensor], Tensor]) -> None:
        """A training step by ``two_pass`` that has the memory of a whole one: one window is decoded for all of them.

        Its tokens are there as from a cache; encoding it, some slices at a time, may take a little more.

        Args:
            image: (N, C, z, y, x); its values do not matter, so it may be on the meta device.
            loss: from logits (N, classes, z, y, x) to a number.
        """
        two_pass(self.decoder, _TrialWindows(self, image), loss)


class _FirstWindowOnly(WindowGrid):
    """The grid of the whole volume, of whose windows only the first is visited."""

    def __len__(self) -> int:
        return 1


class _TrialWindows:
    def __init__(self, network: DINOWindow, image: Tensor) -> None:
        (slices, y, x), cell = network.window, PATCH // network.encoder.magnify
        self.grid = _FirstWindowOnly(tuple(image.shape[2:]), network.window)  # type: ignore[arg-type]
        self._image = image
        self._shape = len(image), image.shape[1] * network.encoder.width, slices, y // cell, x // cell

    def tokens(self, number: int) -> Tensor:
        return self._image.new_empty(self._shape)


class ImageWindows:
    """Windows of images (N, C, z, y, x) whose tokens are computed whenever they are asked for: memory of one window."""

    def __init__(self, network: DINOWindow, image: Tensor, grid: WindowGrid) -> None:
        self.grid = grid
        self._network = network
        self._image = image
        with torch.no_grad():
            self._ends = brightness_range(image)

    def tokens(self, number: int) -> Tensor:
        """Of window ``number``: (N, width, d, y', x')."""
        with torch.no_grad():
            return self._network.tokens(brightness(self.grid.cut(self._image, number), self._ends))


def checked_window(window: Sequence[int], magnify: int) -> Triple:
    """A window (z, y, x) that is whole tokens, or an error that says what would be."""
    if magnify not in MAGNIFY:
        raise NeurinoError(f"magnify {magnify}: expected {', '.join(map(str, MAGNIFY))}")
    cell = PATCH // magnify
    sizes = [int(n) for n in window]
    if len(sizes) != 3 or min(sizes) < 1 or sizes[1] % cell or sizes[2] % cell:
        raise NeurinoError(
            f"window {sizes}: expected voxels along z, y and x, with y and x multiples of {cell} (a token with magnify "
            f"{magnify})"
        )
    return sizes[0], sizes[1], sizes[2]
