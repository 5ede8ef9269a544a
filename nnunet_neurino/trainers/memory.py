"""How much GPU memory a training step takes: counted in a trial on the meta device, not estimated by a formula."""

from __future__ import annotations

import json
import math
import pydoc
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from numpy.typing import NDArray
from torch import Tensor, nn

from nnunet_neurino.losses import PortionedDiceCE
from nnunet_neurino.trainers.families import Axes
from nnunet_neurino.trainers.memory_count import CudaOperations, LiveBytes
from nnunet_neurino.trainers.optimisation import encoder_blocks

CONTEXT_GIB = 0.75
"""CUDA's context, the libraries' kernels, and workspaces of convolutions."""


def training_memory(
    network: str,
    arch_kwargs: dict[str, Any],
    patch_size: Axes,
    batch_size: int,
    channels: int,
    classes: int,
    *,
    full_precision: bool = False,
    ema: bool = False,
    frozen: bool = False,
    tasl: bool = False,
) -> float:
    """Most GPU memory that a training step holds at once, not compiled.

    Everything is counted that PyTorch allocates: weights, gradients, AdamW's two moments and what its step takes for a
    moment, activations kept for the backward pass, their gradients, and nnU-Net's Dice + cross-entropy. A network
    trains by a forward and a backward pass unless it has a method ``trial_step(image, loss)`` that does otherwise; its
    loss then is ``PortionedDiceCE``. Not counted: fragmentation, and what is lost to alignment.

    The trial takes some tenths of a second and is remembered. At every moment of it memory is a constant and a share
    for each patch of the batch, so batches above 3 follow exactly from those of 2 and 3.

    Args:
        network: dotted name of its class, as in plans.
        arch_kwargs: its arguments, as in plans.
        patch_size: voxels (z, y, x).
        batch_size: patches on one GPU.
        channels: input channels.
        classes: logits.
        full_precision: float32 throughout; else mixed precision as by ``torch.autocast("cuda")``.
        ema: a moving average of the weights is kept.
        frozen: the pretrained encoder is never trained.
        tasl: with the topology-aware loss.

    Returns:
        GiB.
    """
    module = network, json.dumps(arch_kwargs), channels, classes, frozen
    trial = partial(_trial, module, tuple(patch_size), full_precision, tasl)
    if batch_size > 3 and len(trial(2)) == len(trial(3)):
        peak = int((trial(2) + (batch_size - 2) * (trial(3) - trial(2))).max())
    else:
        peak = int(trial(batch_size).max())
    moments = (2 + ema) * _trained_bytes(_module(*module))
    return (peak + moments) / 2**30 + CONTEXT_GIB


@lru_cache(maxsize=1024)
def _trial(
    made_of: tuple[str, str, int, int, bool], patch_size: Axes, full_precision: bool, tasl: bool, batch_size: int
) -> NDArray[np.int64]:
    """Live bytes after each operation of a training step, the optimiser's state left out."""
    module = _module(*made_of)
    live, cuda = LiveBytes([*module.parameters(), *module.buffers()]), CudaOperations(not full_precision)
    with live, cuda:
        image = torch.empty((batch_size, made_of[2], *patch_size), device="meta")
        own_step: Any = getattr(module, "trial_step", None)
        if own_step is not None:
            portion = max(2**18, math.prod(patch_size) // 128)  # smaller ones take the trial seconds and save nothing
            portioned, target = PortionedDiceCE(portion=portion, over_logits=not tasl), _target(image)
            own_step(image, lambda logits: portioned(logits, target) + (_beside(logits) if tasl else 0))
        else:
            loss = _nnunet_loss(module(image), tasl)
            cuda.forget_casts()
            _backward(loss)
    # PyTorch's AdamW works on all parameters at once and takes a temporary copy of their size.
    timeline = [*live.timeline, live.timeline[-1] + _trained_bytes(module)]
    module.zero_grad(set_to_none=True)
    return np.array(timeline)


def _nnunet_loss(outputs: Tensor | list[Tensor], tasl: bool) -> Tensor:
    """nnU-Net's loss: all scales but the last of several."""
    scales = [outputs] if isinstance(outputs, Tensor) else outputs
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)
    whole = sum(loss(logits, _target(logits)) for logits in scales[: max(1, len(scales) - 1)])
    return whole + _beside(scales[0]) if tasl else whole


def _target(like: Tensor) -> Tensor:
    return torch.empty((len(like), 1, *like.shape[2:]), dtype=torch.int16, device="meta")


def _beside(logits: Tensor) -> Tensor:
    """TASL as far as memory goes: its graph is on the CPU, its gradient a tensor like the logits."""
    return logits[(0,) * logits.ndim]


def _backward(loss: Tensor) -> None:
    """``loss.backward()`` would leave the modes, in which checkpointed blocks are to be computed again; this stays."""
    torch.autograd.Variable._execution_engine.run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), True, accumulate_grad=True
    )


def _trained_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters() if parameter.requires_grad)


@lru_cache(maxsize=8)
def _module(network: str, arch_kwargs: str, channels: int, classes: int, frozen: bool) -> nn.Module:
    network_class: Any = pydoc.locate(network)
    # On the meta device a network is only its shapes: no memory, no random numbers drawn.
    with torch.device("meta"):
        module: nn.Module = network_class(in_channels=channels, num_classes=classes, **json.loads(arch_kwargs))
    for block in encoder_blocks(module) if frozen else ():
        for parameter in block:
            parameter.requires_grad_(False)
    return module.train()
