"""The curve of a training, read from nnU-Net's own log files (no checkpoint is opened)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.figures.colours import ON_WHITE
from nnunet_neurino.figures.projections import DPI, TEXT

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|-?inf"
_EPOCH = re.compile(r"Epoch (\d+)\s*$")
_VALUES = {
    "train_loss": re.compile(rf"\btrain_loss\s+({_NUMBER})"),
    "val_loss": re.compile(rf"\bval_loss\s+({_NUMBER})"),
}
_DICE = re.compile(r"Pseudo dice\s+\[(.*)\]")
_TERMS = re.compile(r"\bloss terms:\s*(.*)")
_TERM = re.compile(rf"([\w./-]+)\s+({_NUMBER})(?:,|\s*$)")


@dataclass(frozen=True, eq=False)
class TrainingLog:
    """One value an epoch; NaN where the log has none."""

    epochs: NDArray[np.int64]  # ascending
    train_loss: NDArray[np.float64]
    val_loss: NDArray[np.float64]
    pseudo_dice: NDArray[np.float64]  # mean over classes of nnU-Net's estimate on validation patches
    terms: Mapping[str, NDArray[np.float64]]  # our further loss terms by name


def read_training_log(folder: str | os.PathLike[str]) -> TrainingLog:
    """Read all ``training_log_*.txt`` of a fold's folder; epochs that were repeated after a resume count once.

    Raises:
        NeurinoError: no log, or no finished epoch in it.
    """
    folder = Path(folder)
    # The parts of the date are not padded with zeros: sort them as numbers.
    logs = sorted(folder.glob("training_log_*.txt"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
    if not logs:
        hint = next((str(path.parent) for path in sorted(folder.glob("fold_*/training_log_*.txt"))), "")
        remedy = f"did you mean {hint}?" if hint else "give the fold_... folder of a trained model"
        raise NeurinoError(f"{folder}: no training_log_*.txt here: {remedy}")
    epochs: dict[int, dict[str, float]] = {}
    for log in logs:
        _read_one(log.read_text(encoding="utf-8", errors="replace"), epochs)
    finished = sorted(epoch for epoch, values in epochs.items() if "train_loss" in values)
    if not finished:
        raise NeurinoError(f"{logs[-1]}: no finished epoch in it yet")

    def column(name: str) -> NDArray[np.float64]:
        return np.array([epochs[epoch].get(name, math.nan) for epoch in finished])

    names = dict.fromkeys(name for epoch in finished for name in epochs[epoch] if name.startswith("term:"))
    return TrainingLog(
        epochs=np.array(finished),
        train_loss=column("train_loss"),
        val_loss=column("val_loss"),
        pseudo_dice=column("pseudo_dice"),
        terms={name.removeprefix("term:"): column(name) for name in names},
    )


def _read_one(text: str, epochs: dict[int, dict[str, float]]) -> None:
    values: dict[str, float] | None = None
    for line in text.splitlines():
        if found := _EPOCH.search(line):
            values = epochs[int(found.group(1))] = {}
        if values is None:
            continue
        for name, pattern in _VALUES.items():
            if found := pattern.search(line):
                values[name] = float(found.group(1))
        if found := _DICE.search(line):
            inside = re.sub(r"np\.float\d+", "", found.group(1))
            numbers = [float(number) for number in re.findall(_NUMBER, inside)]
            finite = [number for number in numbers if math.isfinite(number)]
            values["pseudo_dice"] = sum(finite) / len(finite) if finite else math.nan
        if found := _TERMS.search(line):
            for name, number in _TERM.findall(found.group(1)):
                values[f"term:{name}"] = float(number)


def training_figure(logs: TrainingLog | Mapping[str, TrainingLog]) -> Figure:
    """Loss and pseudo Dice by epoch; one run, or several by name; a third panel when there are loss terms."""
    runs = {"": logs} if isinstance(logs, TrainingLog) else dict(logs)
    count = 3 if any(log.terms for log in runs.values()) else 2
    figure = Figure(figsize=(10.4, 2.9 * count), dpi=DPI, layout="constrained", facecolor="white")
    panels: list[Axes] = list(figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    for number, (name, log) in enumerate(runs.items()):
        prefix = f"{name}: " if name else ""
        # One run: a colour for each curve. Several: a colour for each run, and the dash tells the curves apart.
        first = ON_WHITE[number % len(ON_WHITE)]
        second = first if len(runs) > 1 else ON_WHITE[1]
        _plot(panels[0], log.epochs, log.train_loss, first, "-", f"{prefix}training")
        _plot(panels[0], log.epochs, log.val_loss, second, "--", f"{prefix}validation")
        _plot(panels[1], log.epochs, log.pseudo_dice, first, "-", f"{prefix}pseudo Dice")
        for at, (term, values) in enumerate(log.terms.items()):
            style = ("-", "--", "-.", ":")[at % 4]
            colour = first if len(runs) > 1 else ON_WHITE[at % len(ON_WHITE)]
            _plot(panels[2], log.epochs, values, colour, style, f"{prefix}{term}")
    for panel, label in zip(panels, ("loss", "pseudo Dice", "loss terms"), strict=False):
        panel.set_ylabel(label, fontsize=TEXT + 1)
        panel.grid(color="#dddddd", linewidth=0.8)
        panel.tick_params(labelsize=TEXT)
        panel.spines[["top", "right"]].set_visible(False)
        if panel.lines:
            # Outside, where it can hide nothing: beside the panel, or above it where names of runs make it wide.
            place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
            if len(runs) > 1:
                place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2}
            panel.legend(fontsize=TEXT, frameon=False, borderaxespad=0.2, **place)
    panels[1].set_ylim(0, 1)
    panels[-1].set_xlabel("epoch", fontsize=TEXT + 1)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _plot(axes: Axes, epochs: NDArray, values: NDArray[np.float64], colour: str, style: str, label: str) -> None:
    if np.isfinite(values).any():
        marker = "o" if len(epochs) < 30 else ""
        (line,) = axes.plot(epochs, values, color=colour, linestyle=style, label=label, linewidth=1.6)
        line.set(marker=marker, markersize=4)
