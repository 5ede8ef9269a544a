"""TASL, the topology-aware skeleton loss: what a network's output gets wrong about the graph of a neuron."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.losses.faults import find_false_voxels
from nnunet_neurino.losses.gather import Charged, Place, gather
from nnunet_neurino.losses.localised import graph_terms
from nnunet_neurino.losses.published import published_terms
from nnunet_neurino.losses.truth import Truth, analyse_truth

TERMS = ("node", "edge", "path")
PUBLISHED_WEIGHTS = {"paper": (1.0, 0.5, 0.5), "released": (1.0, 0.5, 0.2)}
"""Weights of node, edge and path in the paper's supplement and in its released code."""


class TASL(nn.Module):
    """Weighted sum of node, edge and path terms, the mean over the batch and the foreground classes.

    ``localised`` (default) is differentiable. It is 0 for a prediction that is right, and never above
    node + edge + path + (edge + path) log(n) / 20, for these weights and a truth of n cross-sections: 2.35 for 1,000
    sections and the default weights; see :func:`nnunet_neurino.losses.localised.graph_terms`. ``published`` is the
    value of the released code, see :func:`nnunet_neurino.losses.published.published_terms`: it has no gradient (zeros
    in the backward pass), has no upper bound, and is meant as the factor ``1 + beta * f(TASL)`` on another loss:
    :class:`nnunet_neurino.losses.WithTASL`.

    Args:
        mode: ``localised`` or ``published``.
        node, edge, path: weights of the terms; 0 switches one off.
        regions: the channels of the logits are overlapping regions (sigmoid), and so are those of the target; else
            they are background and classes (softmax), and the target holds class numbers.
        ignore_label: class number that does not count. With ``regions``, any value says that the last channel of the
            target marks the voxels that do not count (as in nnU-Net's batches).
        canonical: ``published`` only: thin in an orientation that flips and axis permutations cannot change. The
            published code does not.

    Example:
        >>> import torch
        >>> target = torch.zeros(1, 1, 16, 16, 16, dtype=torch.long)
        >>> target[0, 0, 8, 8, 2:14] = 1
        >>> logits = torch.where(target == 1, 9.0, -9.0)
        >>> float(TASL()(torch.cat([-logits, logits], 1), target))
        0.0
    """

    def __init__(
        self,
        mode: Literal["localised", "published"] = "localised",
        node: float = 1.0,
        edge: float = 0.5,
        path: float = 0.5,
        regions: bool = False,
        ignore_label: int | None = None,
        canonical: bool = False,
    ) -> None:
        super().__init__()
        if mode not in ("localised", "published"):
            raise NeurinoError(f"TASL: expected mode 'localised' or 'published', got {mode!r}; choose one of them")
        self.mode = mode
        self.weights = (float(node), float(edge), float(path))
        self.regions = regions
        self.ignore_label = ignore_label
        self.canonical = canonical
        self.last_terms: dict[str, float | Tensor] = dict.fromkeys(TERMS, 0.0)
        """The three terms of the last call, unweighted and detached."""
        self._prepared: tuple[Tensor, Future[list[tuple[int, int, Truth]]]] | None = None

    def prepare(self, target: Tensor, channels: int, on_cpu: Tensor | None = None) -> None:
        """Start analysing a target in a thread, while the network is still at work.

        Worth it on a GPU, where the processor would otherwise idle. A call with this very tensor uses what was found;
        any other target is analysed as ever.

        Args:
            target: the tensor that :meth:`forward` will get.
            channels: channels of the logits to come.
            on_cpu: the same in main memory, so that nothing has to come back from the GPU.
        """
        if self.mode == "localised":
            analysed = _to_numpy(target if on_cpu is None else on_cpu)
            self._prepared = target, _thread().submit(self._analyse, analysed, channels)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar in float32 (float64 for float64 logits).

        Args:
            logits: (batch, channels, z, y, x), of any floating type.
            target: (batch, 1, z, y, x) class numbers, or (batch, channels, z, y, x) regions.
        """
        self._check(logits, target)
        with torch.autocast(logits.device.type, enabled=False):
            terms = self._localised(logits, target) if self.mode == "localised" else self._published(logits, target)
            self.last_terms = dict(zip(TERMS, terms.detach().unbind(), strict=True))
            return terms @ terms.new_tensor(self.weights)

    def _localised(self, logits: Tensor, target: Tensor) -> Tensor:
        prepared, self._prepared = self._prepared, None
        if prepared is not None and prepared[0] is target:
            truths = prepared[1].result()
        else:
            truths = self._analyse(_to_numpy(target), logits.shape[1])
        predicted = _to_numpy(self._predicted(logits))
        dtype, device, first = _accurate(logits), logits.device, 0 if self.regions else 1
        places, charged = [], []
        for b, c, truth in truths:
            false = find_false_voxels(predicted[b, c], truth)
            places.append(Place(b, c + first, torch.as_tensor(truth.flat).to(device)))
            flat, kind, charge = (torch.as_tensor(a).to(device) for a in (false.flat, false.kind, false.charge))
            charged.append(Charged(Place(b, c + first, flat), kind, charge.to(dtype)))
        found, false_terms = gather(logits, places, charged, self.regions, dtype)
        return graph_terms([truth for _, _, truth in truths], found, false_terms)

    def _published(self, logits: Tensor, target: Tensor) -> Tensor:
        predicted = _to_numpy(self._predicted(logits))
        numbers = []
        for b, sample in enumerate(_to_numpy(target)):
            for c, mask, valid in self._classes(sample, logits.shape[1]):
                mine = predicted[b, c] if valid is None else predicted[b, c] & valid
                numbers.append(published_terms(mine, mask if valid is None else mask & valid, self.canonical))
        terms = torch.tensor(np.mean(numbers, axis=0), dtype=_accurate(logits), device=logits.device)
        return _Constant.apply(logits, terms) if logits.requires_grad else terms

    def _analyse(self, target: NDArray, channels: int) -> list[tuple[int, int, Truth]]:
        return [
            (b, c, analyse_truth(mask, valid))
            for b, sample in enumerate(target)
            for c, mask, valid in self._classes(sample, channels)
        ]

    def _classes(self, target: NDArray, channels: int) -> Iterator[tuple[int, NDArray, NDArray | None]]:
        """Number, mask and counting voxels (None: all) of each foreground class of one sample's target."""
        if self.regions:
            valid = None if self.ignore_label is None else target[-1] == 0
            for region in range(channels):
                yield region, target[region] > 0, valid
        else:
            valid = None if self.ignore_label is None else target[0] != self.ignore_label
            for label in range(1, channels):
                yield label - 1, target[0] == label, valid

    @torch.no_grad()
    def _predicted(self, logits: Tensor) -> Tensor:
        """Foreground classes with a probability above 0.5, as booleans (batch, classes, z, y, x)."""
        if self.regions:
            return logits > 0
        if logits.shape[1] == 2 and self.mode == "localised":
            return logits[:, 1:] > logits[:, :1]
        return torch.softmax(logits.to(_accurate(logits)), 1)[:, 1:] > 0.5

    def _check(self, logits: Tensor, target: Tensor) -> None:
        channels = (logits.shape[1] if self.regions else 1) if logits.ndim == 5 else -1
        if self.regions and self.ignore_label is not None:
            channels += 1
        expected = (logits.shape[0], channels, *logits.shape[2:])
        if logits.ndim != 5 or tuple(target.shape) != expected or (not self.regions and logits.shape[1] < 2):
            kind = "regions" if self.regions else "background and classes"
            raise NeurinoError(
                f"TASL: expected logits (batch, {kind}, z, y, x) and target {expected if channels > 0 else 'beside'}, "
                f"got {tuple(logits.shape)} and {tuple(target.shape)}; pass one scale with its own target"
            )


class _Constant(torch.autograd.Function):
    """Values that were computed from a tensor without a gradient: its own is zero."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(source)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(ctx.saved_tensors[0]), None


def _accurate(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _to_numpy(tensor: Tensor) -> NDArray:
    return tensor.detach().cpu().numpy()


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "tasl")
