"""The whole way from nothing to a traced neuron, through the commands that a user types."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_neurino.demo.programs import run_program
from nnunet_neurino.demo.progress import LiveLine, TrainingBar
from nnunet_neurino.demo.steps import Step
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import atomic_path

Command = list[str]
GIB = 2**30


@dataclass(frozen=True)
class DemoSettings:
    """What the demo makes and how long it trains."""

    output: Path  # Folder for everything
    device: str = "cpu"  # `cuda` or `cpu`
    seed: int = 7  # Of the generated neurons
    training_cases: int = 6  # Volumes to train on (nnU-Net's five folds need at least five)
    test_cases: int = 2  # Volumes that training never sees; they are predicted, traced and scored
    shape: tuple[int, int, int] = (40, 96, 96)  # Voxels z, y, x of each volume
    spacing: tuple[float, float, float] = (1.0, 0.5, 0.5)  # Voxel size z, y, x in micrometres
    trainer: str = "nnUNetTrainerNeurINO_demo"  # nnU-Net's `-tr`
    epochs: int = 8  # Of that trainer, for the progress bar
    dataset_id: int = 1  # nnU-Net's number of the data set, inside the demo's own folders

    @property
    def cases(self) -> list[str]:
        """Names of all cases, the training cases first."""
        return [f"case_{index:03d}" for index in range(self.training_cases + self.test_cases)]

    @property
    def held_out(self) -> list[str]:
        """Names of the cases that training never sees."""
        return self.cases[self.training_cases :]


class Workflow:
    """The demo's steps and where each leaves its results."""

    def __init__(self, settings: DemoSettings) -> None:
        self.settings = settings
        out = settings.output
        self.data = out / "data"
        self.raw = out / "nnUNet_raw"
        self.preprocessed = out / "nnUNet_preprocessed"
        self.results = out / "nnUNet_results"
        self.predictions = out / "predictions"
        self.traced = out / "traced"
        self.truth = out / "truth"
        self.scores = out / "scores"
        self.logs = out / "logs"
        self.stamps = out / "stamps"
        self.dataset = f"Dataset{settings.dataset_id:03d}_Demo"
        self.model = self.results / self.dataset / f"{settings.trainer}__nnUNetPlans__3d_fullres"
        self.environment = {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
        }
        if settings.device == "cpu":
            # Each worker process would import PyTorch again, which takes longer than its work; and PyTorch's own
            # threads wait for each other by spinning, which on a busy machine slows them down tenfold.
            self.environment |= {"nnUNet_def_n_proc": "1", "OMP_WAIT_POLICY": "PASSIVE"}

    def commands(self) -> dict[str, list[Command]]:
        """The commands of each step, as a user would type them."""
        s = self.settings
        number, size = str(s.dataset_id), [str(n) for n in s.shape]
        test_images = self.raw / self.dataset / "imagesTs"
        return {
            "generate": [
                ["neurino", "synth", "--output", str(self.data), "--count", str(len(s.cases)), "--seed", str(s.seed),
                 "--preset", "demo", "--shape", *size, "--spacing", *map(str, s.spacing)],
            ],
            "convert": [
                ["neurino", "convert", "--pairs", str(self.data / "pairs.csv"), "--dataset-id", number,
                 "--name", "Demo", "--output", str(self.raw), "--workers", "1"],
            ],
            "plan": [
                ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", "3d_fullres", "--verify_dataset_integrity",
                 "-npfp", "1", "-np", "1", "--no_pbar"],
            ],
            "train": [
                ["nnUNetv2_train", number, "3d_fullres", "0", "-tr", s.trainer, "-device", s.device],
            ],
            "predict": [
                ["nnUNetv2_predict", "-i", str(test_images), "-o", str(self.predictions), "-d", number,
                 "-c", "3d_fullres", "-f", "0", "-tr", s.trainer, "-device", s.device, "-npp", "0", "-nps", "0"],
            ],
            "trace": [
                ["neurino", "trace", str(self.predictions / f"{case}.tif"), "-o", str(self.traced / f"{case}.swc"),
                 "--image", str(test_images / f"{case}_0000.tif"), "--spacing", *map(str, s.spacing)]
                for case in s.held_out
            ],
            "score": [
                ["neurino", "evaluate", str(self.predictions), str(self.truth / "masks"),
                 "--output", str(self.scores / "masks"), "--spacing", *map(str, s.spacing)],
                ["neurino", "evaluate", str(self.traced), str(self.truth / "tracings"),
                 "--output", str(self.scores / "trees"), "--spacing", *map(str, s.spacing)],
            ],
        }  # fmt: skip

    def steps(self) -> list[Step]:
        """All steps in order, up to the scores."""
        s = self.settings
        shared = [s.seed, s.training_cases, s.test_cases, s.shape, s.spacing]
        return [
            Step("generate", f"generate {len(s.cases)} volumes with neurons", self._generate, shared, [self.data]),
            Step("convert", "TIFF + SWC -> nnU-Net raw data set", partial(self._run, "convert"), None, [self.raw]),
            Step("plan", "plan and preprocess (nnU-Net)", partial(self._run, "plan"), None, [self.preprocessed]),
            Step("train", f"train {s.trainer} on {s.device}", self._train, [s.trainer, s.device],
                 [self.results], resumes=True),
            Step("predict", "predict the held-out volumes (nnU-Net)", partial(self._run, "predict"), None,
                 [self.predictions]),
            Step("trace", "trace the predictions to SWC trees", partial(self._run, "trace"), None, [self.traced]),
            Step("score", "score masks and trees against the truth", self._score, None, [self.scores, self.truth]),
        ]  # fmt: skip

    def check_folder(self) -> None:
        """Refuse a folder of somebody else's: steps begin by removing what an earlier demo has left."""
        if self.stamps.is_dir():
            return
        for step in self.steps():
            for path in step.makes:
                if path.exists():
                    raise NeurinoError(
                        f"{path}: is not of an earlier demo and would be removed; choose another folder with --output"
                    )

    def check_disk(self) -> None:
        """Refuse to begin what cannot be finished."""
        self.settings.output.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.settings.output).free
        if free < GIB:
            raise NeurinoError(
                f"{self.settings.output}: {free / GIB:.1f} GiB free, 1 GiB is needed; "
                "free some or choose another folder with --output"
            )

    def read_scores(self, what: str) -> dict[str, Any]:
        """What ``neurino evaluate`` wrote: ``what`` is ``masks`` or ``trees``."""
        content: dict[str, Any] = json.loads((self.scores / what / "scores.json").read_text(encoding="utf-8"))
        return content

    def _run(self, step: str) -> None:
        for path in (self.raw, self.preprocessed, self.results):
            path.mkdir(exist_ok=True)
        commands = self.commands()[step]
        for index, command in enumerate(commands):
            name = step if len(commands) == 1 else f"{step}_{index}"
            with LiveLine() as line:
                run_program(command, self.logs / f"{name}.log", self.environment, line)

    def _generate(self) -> None:
        self._run("generate")
        rows = [("image", "tracing", "case", "set")]
        for case in self.settings.cases:
            kind = "test" if case in self.settings.held_out else "train"
            tracing = f"tracings/{case}.swc" if kind == "train" else ""
            rows.append((f"images/{case}.tif", tracing, case, kind))
        with atomic_path(self.data / "pairs.csv") as unfinished, unfinished.open("w", newline="") as table:
            csv.writer(table).writerows(rows)

    def _train(self) -> None:
        self.results.mkdir(exist_ok=True)
        fold = self.model / "fold_0"
        command = list(self.commands()["train"][0])
        if any(fold.glob("checkpoint_*.pth")):
            print("      going on from the last checkpoint", flush=True)
            command.append("--c")
        elif self.model.exists():
            shutil.rmtree(self.model)
        # Not for planning, which takes this number for PyTorch's threads and refuses 0.
        workers = {"nnUNet_n_proc_DA": "0"} if self.settings.device == "cpu" else {}
        with TrainingBar(self.settings.epochs) as bar:
            run_program(command, self.logs / "train.log", {**self.environment, **workers}, bar)

    def _score(self) -> None:
        for kind, suffix in (("masks", ".tif"), ("tracings", ".swc")):
            (self.truth / kind).mkdir(parents=True, exist_ok=True)
            for case in self.settings.held_out:
                shutil.copy(self.data / kind / f"{case}{suffix}", self.truth / kind)
        self._run("score")
