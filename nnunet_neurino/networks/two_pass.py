"""The exact gradient of a loss over the whole volume, with the memory of one window.

First pass: every window is decoded without recording anything, and the loss of the whole gives the gradient at the
logits. Second pass: window by window is decoded again, recorded this time, and its part of that gradient goes back
through it. The sum is the full graph's gradient, because windows only meet in the logits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from nnunet_neurino.networks.window_decoder import WindowDecoder
from nnunet_neurino.networks.window_grid import WindowGrid


@runtime_checkable
class Windows(Protocol):
    """The windows of a batch of volumes, as tokens; asked for the same window twice, they give the same tokens."""

    @property
    def grid(self) -> WindowGrid:
        """Where the windows lie."""

    def tokens(self, number: int) -> Tensor:
        """Of window ``number``: (N, channels of a token, d, y', x')."""


def two_pass(
    decoder: WindowDecoder,
    windows: Windows,
    loss: Callable[[Tensor], Tensor],
    scaled: Callable[[Tensor], Tensor] = lambda value: value,
    autocast: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> Tensor:
    """Add the gradient of the loss over the whole volume to the decoder's parameters.

    Random numbers (dropout) are the same in both passes, and the stream of random numbers goes on as if there had been
    one; ``autocast`` is entered in both. What must not be in the decoder is anything by which one window's outcome
    depends on another window's, such as batch norm.

    Args:
        decoder: what is trained; arms and head.
        windows: the batch.
        loss: from logits (N, classes, z, y, x) to a number.
        scaled: what is done with the loss before its gradient is taken, such as a ``GradScaler``'s ``scale``.
        autocast: makes the context of mixed precision.

    Returns:
        The loss, detached and not scaled.
    """
    grid = windows.grid
    count = len(grid)
    before: list[_RandomState] = []
    logits: Tensor | None = None
    with torch.no_grad(), autocast():
        for number in range(count):
            tokens = windows.tokens(number)
            before.append(_RandomState(tokens.device))
            piece = decoder(tokens, grid, number)
            if logits is None:
                logits = piece.new_empty((*piece.shape[:2], *grid.shape))
            logits[(..., *grid.region(number))] = grid.inside(piece, number)
            del tokens, piece
    assert logits is not None
    device = logits.device
    logits.requires_grad_()
    with autocast():
        value = loss(decoder.whole(logits))
    scaled(value).backward()
    gradient, value = logits.grad, value.detach()
    assert gradient is not None
    del logits
    after = _RandomState(device)
    for number in range(count):
        with autocast():
            tokens = windows.tokens(number)
            before[number].restore()
            piece = decoder(tokens, grid, number)
        piece.backward(grid.cut(gradient, number))
        del tokens, piece
    after.restore()
    return value


def per_window(
    decoder: WindowDecoder,
    windows: Windows,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    scaled: Callable[[Tensor], Tensor] = lambda value: value,
    autocast: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> Tensor:
    """Add the gradient of the mean of the windows' losses instead: cheaper, and another one. For comparison.

    Args:
        decoder: what is trained.
        windows: the batch.
        target: (N, channels, z, y, x).
        loss: from logits and target of one window to a number.
        scaled: see ``two_pass``.
        autocast: see ``two_pass``.

    Returns:
        The mean, detached and not scaled.
    """
    grid = windows.grid
    total = None
    for number in range(len(grid)):
        with autocast():
            piece = grid.inside(decoder(windows.tokens(number), grid, number), number)
            value = loss(piece, target[(..., *grid.region(number))]) / len(grid)
        scaled(value).backward()
        total = value.detach() if total is None else total + value.detach()
    assert total is not None
    return total


class _RandomState:
    """The state of the random numbers of the CPU and of the device a tensor lies on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Go back to it."""
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)
