"""AdamW with averaged weights, a schedule that respects parameter groups, and the groups themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_neurino.trainers.families import Recipe

NOT_DECAYED = ", not decayed"
"""End of the names of parameter groups without weight decay."""


class AveragedAdamW(torch.optim.AdamW):
    """AdamW that also keeps a moving average of the weights and of batch norm's statistics, as part of its state.

    So the average is saved, moved and restored wherever an optimiser's state is. ``swap()`` exchanges weights and
    average; ``swapped`` tells which of the two the parameters hold. ``step`` may only be called when not swapped.

    Args:
        groups: parameter groups.
        ema: decay of the average; 0 keeps none. Step n uses ``min(ema, (1 + n) / (10 + n))``.
        buffers: of the network; those of floating type are averaged, too.
        **kwargs: for ``torch.optim.AdamW``.
    """

    AVERAGE = "average"
    BUFFERS: Any = "buffers"
    """Key of the state under which the buffers' averages are; all other keys are parameters."""

    def __init__(
        self, groups: list[dict[str, Any]], ema: float = 0.0, buffers: Iterable[Tensor] = (), **kwargs: Any
    ) -> None:
        super().__init__(groups, **kwargs)
        self.ema = ema
        self._buffers = [buffer for buffer in buffers if buffer.is_floating_point()]
        for group in self.param_groups:
            group.setdefault("swapped", False)
            group.setdefault("n_averaged", 0)

    @property
    def swapped(self) -> bool:
        return any(group["swapped"] for group in self.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        if self.swapped:
            raise RuntimeError("the parameters hold the averaged weights: swap() before the next step")
        loss = super().step(closure)
        if self.ema:
            for group in self.param_groups:
                group["n_averaged"] += 1
                parameters = [p for p in group["params"] if p in self.state]
                for p in parameters:
                    if self.AVERAGE not in self.state[p]:
                        self.state[p][self.AVERAGE] = p.detach().clone()
                self._follow([self.state[p][self.AVERAGE] for p in parameters], parameters, group["n_averaged"])
            if self._buffers:
                averages = self.state.setdefault(self.BUFFERS, [buffer.clone() for buffer in self._buffers])
                self._follow(averages, self._buffers, self.param_groups[0]["n_averaged"])
        return loss

    def _follow(self, averages: list[Tensor], latest: list[Any], n: int) -> None:
        if averages:
            torch._foreach_lerp_(averages, latest, 1 - min(self.ema, (1 + n) / (10 + n)))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange weights and average in place (nothing to exchange before the first step)."""
        pairs = list(zip(self._buffers, self.state.get(self.BUFFERS, ()), strict=False))
        for group in self.param_groups:
            group["swapped"] = not group["swapped"]
            pairs += [
                (p, self.state[p][self.AVERAGE]) for p in group["params"] if self.AVERAGE in self.state.get(p, ())
            ]
        for latest, average in pairs:
            held = latest.detach().clone()
            latest.copy_(average)
            average.copy_(held)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """While the parameters hold the average."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def forget_average(self) -> None:
        """Give up the average that was kept so far; the weights stay. Not while swapped."""
        self.state.pop(self.BUFFERS, None)
        for group in self.param_groups:
            group["n_averaged"] = 0
        for state in self.state.values():
            state.pop(self.AVERAGE, None)

    def resume(self, settings: Recipe, lr_before: float, changed: Container[str]) -> None:
        """Go on with a loaded state under these settings.

        Args:
            settings: of now.
            lr_before: peak rate that the loaded groups were made with.
            changed: names of the settings that were given anew.
        """
        if self.swapped:
            self.swap()
        if not settings.ema:  # it was asked for before, and would be validated and saved as it is now for good
            self.forget_average()
        for group in self.param_groups:
            group["peak_lr"] *= settings.lr / lr_before
            if "weight_decay" in changed and not group["name"].endswith(NOT_DECAYED):
                group["weight_decay"] = settings.weight_decay
            if "eps" in changed:
                group["eps"] = settings.eps


class WarmupPoly:
    """Linear warm-up from a hundredth, then polynomial decay, for any fraction of an epoch.

    Each parameter group keeps its own peak, ``group["peak_lr"]``; nnU-Net's scheduler would write one rate into all.

    Args:
        optimizer: its groups have ``peak_lr`` and ``thaw_epoch`` (rate 0 before that epoch; -1: for good).
        epochs: length of the training.
        warmup: length of the warm-up in epochs, cut to a tenth of the training. A group that is thawed later warms
            up from then on.
        power: exponent of the decay.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, epochs: int, warmup: float, power: float) -> None:
        self.optimizer = optimizer
        self.epochs = epochs
        self.warmup = min(warmup, epochs / 10)
        self.power = power
        self.step(0)

    def factor(self, epoch: float, thaw_epoch: float = 0) -> float:
        """What a group's peak rate is multiplied by at ``epoch`` (a fraction is fine)."""
        if thaw_epoch < 0 or epoch < thaw_epoch:
            return 0.0
        rise = min(1.0, max(0.01, (epoch - thaw_epoch) / self.warmup)) if self.warmup > 0 else 1.0
        return rise * max(0.0, 1 - epoch / self.epochs) ** self.power

    def step(self, epoch: float) -> None:
        """Set every group's learning rate for ``epoch``."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * self.factor(epoch, group["thaw_epoch"])

    def get_last_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


def clip_gradients(optimizer: torch.optim.Optimizer, network: nn.Module, largest: float) -> None:
    """Scale all gradients together so that their norm is at most ``largest``; frozen parameters lose theirs."""
    for group in optimizer.param_groups:
        if group["lr"] == 0.0:  # frozen: neither moved nor counted
            for parameter in group["params"]:
                parameter.grad = None
    nn.utils.clip_grad_norm_(network.parameters(), largest)


def without_wrappers(network: Any) -> nn.Module:
    """The network without the wrappers of DDP and torch.compile."""
    if isinstance(network, nn.parallel.DistributedDataParallel):
        network = network.module
    return getattr(network, "_orig_mod", network)


def parameter_groups(
    network: nn.Module,
    lr: float,
    weight_decay: float,
    decay_all: bool = False,
    layer_decay: float = 1.0,
    thaw_epoch: int = 0,
) -> list[dict[str, Any]]:
    """Split a network's parameters by learning rate and weight decay.

    Args:
        network: a network with ``encoder``; its parameters' order is that of its layers, from the image on.
        lr: peak rate of everything but the encoder.
        weight_decay: for matrices and kernels.
        decay_all: also for vectors (norms, biases, layer scales).
        layer_decay: the encoder's last block has ``lr``, each block before it this factor less.
        thaw_epoch: epoch from which the encoder is trained, -1 for never.

    Returns:
        Groups for an optimiser, with ``peak_lr``, ``thaw_epoch`` and ``name``. The first one belongs to the decoder:
        nnU-Net logs the rate of the first.
    """
    blocks = list(encoder_blocks(network))
    depth = {id(p): len(blocks) - 1 - i for i, block in enumerate(blocks) for p in block}
    # The encoder's in the order of its blocks: an optimiser's saved state goes by the order of parameters.
    others = (p for p in network.parameters() if id(p) not in depth)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for p in (*(p for block in blocks for p in block), *others):
        if not p.requires_grad:
            continue
        below = depth.get(id(p), -1)
        decays = decay_all or p.ndim > 1
        if (below, decays) not in groups:
            groups[below, decays] = {
                "params": [],
                "name": ("decoder" if below < 0 else f"encoder-{below}") + ("" if decays else NOT_DECAYED),
                "weight_decay": weight_decay if decays else 0.0,
                "peak_lr": lr * (layer_decay**below if below >= 0 else 1.0),
                "lr": lr,
                "thaw_epoch": thaw_epoch if below >= 0 else 0,
            }
        groups[below, decays]["params"].append(p)
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0], not key[1]))]


def encoder_blocks(network: nn.Module) -> Iterator[list[nn.Parameter]]:
    """The encoder's pretrained parameters by layer, as it says itself: stem, then blocks and what leads to them."""
    blocks: Any = getattr(getattr(network, "encoder", None), "parameter_blocks", None)
    return blocks() if blocks is not None else iter(())


def let_encoder_learn(network: nn.Module, learns: bool) -> None:
    """Train the pretrained part of the encoder or not; what is new in it (DINeuro's bends and gate) always is."""
    for block in encoder_blocks(network):
        for parameter in block:
            parameter.requires_grad_(learns)
