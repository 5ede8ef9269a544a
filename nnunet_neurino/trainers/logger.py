"""nnU-Net's training log, plus the terms of our losses, drawn as one picture."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunetv2.training.logging.nnunet_logger import LocalLogger

TERM_PREFIX = "loss_term/"


class TermLogger(LocalLogger):
    """A ``LocalLogger`` that knows further loss terms and survives checkpoints that do not.

    Args:
        terms: names of the loss terms; each becomes the key ``loss_term/<name>`` with one value an epoch.
    """

    def __init__(self, terms: Iterable[str] = ()) -> None:
        super().__init__()
        for term in terms:
            self.my_fantastic_logging.setdefault(TERM_PREFIX + term, [])

    @property
    def term_keys(self) -> list[str]:
        """Keys of all terms, those that only an older checkpoint knew included."""
        return [key for key in self.my_fantastic_logging if key.startswith(TERM_PREFIX)]

    def pad_terms(self, n_epochs: int) -> None:
        """Make every term's list ``n_epochs`` long with NaN, so that lists of all keys stay in step."""
        for key in self.term_keys:
            values = self.my_fantastic_logging[key]
            values.extend([math.nan] * (n_epochs - len(values)))

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over a log; terms it has not heard of are NaN for the epochs that are past."""
        known = self.term_keys
        super().load_checkpoint(checkpoint)
        for key in known:
            self.my_fantastic_logging.setdefault(key, [])
        self.pad_terms(len(self.my_fantastic_logging["train_losses"]))

    def plot_progress_png(self, output_folder: str) -> None:
        """Write ``progress.png``: losses and pseudo Dice, loss terms (where there are any), time, learning rate."""
        from matplotlib.figure import Figure

        log = self.my_fantastic_logging
        n = min(len(values) for key, values in log.items() if not key.startswith(TERM_PREFIX))
        epochs = range(n)
        terms = self.term_keys
        # Figure without pyplot: nothing global is touched, and it is quick enough for epochs of a few seconds.
        figure = Figure(figsize=(12, 4.5 * (4 if terms else 3)), layout="constrained")
        panels = list(figure.subplots(4 if terms else 3, 1, sharex=True))

        losses = panels.pop(0)
        losses.plot(epochs, log["train_losses"][:n], "b-", label="loss, training")
        losses.plot(epochs, log["val_losses"][:n], "r-", label="loss, validation")
        losses.set_ylabel("loss")
        dice = losses.twinx()
        dice.plot(epochs, log["mean_fg_dice"][:n], "g:", label="pseudo Dice")
        dice.plot(epochs, log["ema_fg_dice"][:n], "g-", label="pseudo Dice, moving average")
        dice.set_ylabel("pseudo Dice")
        lines = [*losses.get_lines(), *dice.get_lines()]
        losses.legend(lines, [line.get_label() for line in lines], loc="upper left", ncols=2)

        if terms:
            panel = panels.pop(0)
            for key in terms:
                values = log[key][:n] + [math.nan] * (n - len(log[key]))
                panel.plot(epochs, values, label=key.removeprefix(TERM_PREFIX))
            panel.set_ylabel("loss terms, training")
            panel.legend(loc="upper left", ncols=3)

        starts, ends = log["epoch_start_timestamps"], log["epoch_end_timestamps"]
        panels[0].plot(epochs, [end - start for start, end in zip(starts[:n], ends[:n], strict=True)], "b-")
        panels[0].set_ylim(bottom=0)
        panels[0].set_ylabel("epoch duration [s]")
        panels[1].plot(epochs, log["lrs"][:n], "b-")
        panels[1].set_ylabel("learning rate")
        panels[1].set_xlabel("epoch")
        figure.savefig(Path(output_folder) / "progress.png", dpi=80)
