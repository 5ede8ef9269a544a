"""What tests of whole trainers share: a batch, an epoch's start, weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Make = Callable[..., Any]


def batch(seed: int = 0) -> dict[str, Any]:
    """A batch as nnU-Net's loader gives it, targets for five scales."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, 1, 16, 16, 16, generator=generator)
    label = (image > 1).to(torch.int16)
    return {"data": image, "target": [label[..., ::s, ::s, ::s].clone() for s in (1, 2, 4, 8, 16)]}


def start_epoch(trainer: Any, epoch: int = 0) -> None:
    trainer.current_epoch = epoch
    trainer.on_train_epoch_start()


def weights(trainer: Any, part: str = "") -> torch.Tensor:
    return torch.cat(
        [p.detach().flatten() for n, p in trainer.bare_network.named_parameters() if n.startswith(part)]
    ).clone()
