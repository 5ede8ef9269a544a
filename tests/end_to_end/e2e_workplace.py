"""nnU-Net's folders and commands, as a user in a new shell has them."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from unittest import mock

import torch
from e2e_data import RawDataset

ISOTROPIC = RawDataset("Dataset901_Isotropic")
# As thick slices of two dyes, three kinds of neurite.
ANISOTROPIC = RawDataset("Dataset902_Anisotropic", shape=(20, 64, 64), spacing=(1.0, 0.3, 0.3), channels=2, labels=3)
REGIONS = RawDataset("Dataset903_Regions", labels=3, regions=True)

# As of a head: one small structure, and a number of slices that windows do not divide.
BLOB = RawDataset("Dataset904_Blob", shape=(26, 48, 56), blob=True)


@dataclass(frozen=True)
class Workplace:
    """nnU-Net's three folders, and commands run with nothing else exported."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    @property
    def preprocessed(self) -> Path:
        return self.folder / "preprocessed"

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def environment(self) -> dict[str, str]:
        """A new shell's environment: what nnU-Net users set, and frugal, forked workers; nothing of ours."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("nnUNet", "NNUNET", "PYTHONPATH"))}
        return kept | {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "nnUNet_def_n_proc": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parent / "forked"),
            # Weights must not come from the developer's own cache.
            "HF_HOME": str(self.folder / "no_hugging_face"),
            **self.variables,
        }

    def start(self, command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
        """Start a console script of this environment in a process group of its own."""
        program = Path(sys.executable).parent / command[0]
        return subprocess.Popen(
            [str(program), *map(str, command[1:])],
            env={**self.environment, **variables},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str | Path, **variables: str) -> str:
        """Run a console script to its end and return what it printed."""
        process = self.start([str(part) for part in command], **variables)
        output, _ = process.communicate(timeout=570)
        assert process.returncode == 0, f"{command} ended with {process.returncode}:\n{output}"
        return output

    def call(self, *command: str | Path, **variables: str) -> None:
        """The same in this process, which has imported everything already; workers are forked as in ``run``."""
        (script,) = entry_points(group="console_scripts", name=str(command[0]))
        forked, n_threads = multiprocessing.get_context("fork"), torch.get_num_threads()
        with (
            mock.patch.dict(os.environ, {**self.environment, **variables}),
            mock.patch.object(sys, "argv", list(map(str, command))),
            mock.patch.object(multiprocessing, "get_context", return_value=forked),
        ):
            try:
                assert not script.load()(), command
            finally:
                torch.set_num_threads(n_threads)

    def train(self, *arguments: str | Path, **variables: str) -> str:
        """``nnUNetv2_train`` on the CPU without worker processes for the data."""
        return self.run("nnUNetv2_train", *arguments, "-device", "cpu", nnUNet_n_proc_DA="0", **variables)


def model_folder(place: Workplace, trainer: str, dataset: str = ISOTROPIC.name, plans: str = "nnUNetPlans") -> Path:
    """Where nnU-Net keeps a model."""
    return place.results / dataset / f"{trainer}__{plans}__3d_fullres"


def read_json(path: Path) -> dict:
    """Contents of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))
