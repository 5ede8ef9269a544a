"""What the user sees while a long program runs: one live line, or a bar over the epochs of a training."""

from __future__ import annotations

import re
import shutil
import sys
from types import TracebackType

from tqdm import tqdm

_EPOCH = re.compile(r"\bEpoch (\d+)\s*$")
_VALUE = re.compile(r"(train_loss|Pseudo dice)\b.*?(-?\d+\.\d+)")


class LiveLine:
    """Show the newest line of a program's output in place; on anything but a terminal show nothing."""

    def __init__(self) -> None:
        self._on = sys.stdout.isatty()

    def __enter__(self) -> LiveLine:
        return self

    def __call__(self, line: str) -> None:
        if self._on:
            width = shutil.get_terminal_size().columns - 8
            print("\r\033[K      " + line.strip()[:width], end="", flush=True)

    def __exit__(self, *_: object) -> None:
        if self._on:
            print("\r\033[K", end="", flush=True)


class TrainingBar:
    """A progress bar over the epochs of ``nnUNetv2_train``, read from the lines it prints."""

    def __init__(self, epochs: int) -> None:
        self._bar = tqdm(total=epochs, unit="epoch", desc="      training", file=sys.stdout, mininterval=1.0)
        self._values: dict[str, str] = {}

    def __enter__(self) -> TrainingBar:
        return self

    def __call__(self, line: str) -> None:
        if match := _EPOCH.search(line):
            self._bar.n = int(match[1])
            self._bar.refresh()
        for name, value in _VALUE.findall(line):
            self._values[name.removeprefix("train_").lower()] = f"{float(value):.2f}"
            self._bar.set_postfix(self._values)
        if "Epoch time" in line:
            self._bar.n = min(self._bar.n + 1, self._bar.total)
            self._bar.refresh()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
