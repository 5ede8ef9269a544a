"""Activation checkpointing: compute a block again in the backward pass instead of keeping what it made."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

_state = threading.local()


def is_second_run() -> bool:
    """Whether this is the run in the backward pass: running statistics have seen the batch already."""
    return not torch.compiler.is_compiling() and getattr(_state, "second_run", False)


def run(module: nn.Module, volume: Tensor, saving: bool) -> Tensor:
    """``module(volume)``; with ``saving``, while gradients are recorded, only the input is kept."""
    if not (saving and module.training and torch.is_grad_enabled()):
        return module(volume)
    if torch.compiler.is_compiling():  # the compiler removes the second update of running statistics itself
        return checkpoint(module, volume, use_reentrant=False)
    return checkpoint(module, volume, use_reentrant=False, context_fn=_contexts)


def _contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    return contextlib.nullcontext(), _second_run()


@contextlib.contextmanager
def _second_run() -> Iterator[None]:
    before = is_second_run()
    _state.second_run = True
    try:
        yield
    finally:
        _state.second_run = before
