"""What is written down about a case, as JSON in the data set, and the paths of the files that belong to it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_neurino.conversion.settings import Case, ConvertSettings
from nnunet_neurino.files import write_json

#: Sub-folder of the data set with a record and a picture for each case.
RECORDS = "conversion"


@dataclass(frozen=True)
class AlignmentReport:
    """How a tracing fits its image: placements in words, and the contrast of the image along the tracing there."""

    stored: str
    stored_contrast: float
    best: str
    best_contrast: float
    clear: bool  # the image can tell the best placement from all others
    runner_up: str  # the next best one, where it cannot
    applied: str  # with which the label was drawn
    nodes_inside: float  # share of the nodes, 0 to 1
    misplaced: bool = False  # the tracing fits better elsewhere beyond doubt, and was not moved


@dataclass(frozen=True)
class Refusal:
    """A case that was not converted: its name, its images, and the reason in one line."""

    case: str
    images: list[str]
    refused: str

    @classmethod
    def of(cls, case: Case, reason: str) -> Refusal:
        """Refuse ``case``; the reason becomes one line."""
        return cls(case.name, [str(p) for p in case.images], " ".join(reason.split()))

    def as_json(self) -> dict[str, Any]:
        """The refusal as the report shows it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Record:
    """A case that was converted. All but the first two fields are keys of its JSON file; None is left out there."""

    folder: Path  # the data set
    ending: str  # of images and labels
    case: str  # nnU-Net's identifier
    set: str  # "train" or "test"
    specimen: str
    images: list[str]
    inputs: list[dict[str, Any]]  # fingerprints of images, tracing and mask
    shape: list[int]  # z, y, x
    channels: int
    type: str  # of the written voxels
    spacing: list[float]  # z, y, x in micrometres
    image_findings: list[str]
    tracing: str | None = None
    nodes: int | None = None
    pieces: int | None = None
    pieces_that_do_not_touch: int | None = None  # pieces whose tubes touch count as one
    tracing_findings: list[str] | None = None
    alignment: AlignmentReport | None = None
    mask: str | None = None
    mask_findings: list[str] | None = None
    written: list[str] = dataclasses.field(default_factory=list)  # nnU-Net's identifiers: the volume or its blocks
    foreground: list[float] | None = None  # share of each of them; None without a label
    blocks_dropped: int | None = None  # those with too little foreground

    @classmethod
    def read(cls, case: Case, settings: ConvertSettings, folder: Path) -> Record | None:
        """The record that an earlier run wrote, when the inputs are unchanged and all its files are there."""
        try:
            content = json.loads(record_path(folder, case.name).read_text(encoding="utf-8"))
            alignment = content.pop("alignment", None)
            record = cls(
                folder, settings.ending, alignment=AlignmentReport(**alignment) if alignment else None, **content
            )
            unchanged = record.inputs == fingerprints(case) and record.specimen == case.specimen
            whole = unchanged and record.is_test == case.test and all(p.is_file() for p in record.files())
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return record if whole else None

    def write(self) -> None:
        """Write the record into the data set: the sign that all other files of the case are there."""
        write_json(record_path(self.folder, self.case), self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The record as its file and the report show it."""
        fields = dataclasses.asdict(self).items()
        return {name: value for name, value in fields if value is not None and name not in ("folder", "ending")}

    @property
    def is_test(self) -> bool:
        """Does the case belong to the test set?"""
        return self.set == "test"

    @property
    def findings(self) -> list[str]:
        """What was odd in the image, the tracing and the mask, a line each."""
        return [*self.image_findings, *(self.tracing_findings or ()), *(self.mask_findings or ())]

    @property
    def picture(self) -> Path:
        """The case's picture."""
        return record_path(self.folder, self.case).with_suffix(".png")

    def image_files(self, part: str) -> list[Path]:
        """The image of one of ``written``: a file for each channel."""
        return [self._file("images", f"{part}_{c:04d}{self.ending}") for c in range(self.channels)]

    def label_file(self, part: str) -> Path:
        """The label of one of ``written``."""
        return self._file("labels", f"{part}{self.ending}")

    def spacing_file(self, part: str, kind: str) -> Path:
        """The voxel size that nnU-Net's TIFF reader wants beside images and labels; ``kind`` is one of ``kinds``."""
        return self._file(kind, f"{part}.json")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What was written: "images", and "labels" where there is one."""
        return ("images",) if self.foreground is None else ("images", "labels")

    def files(self) -> Iterator[Path]:
        """Everything that was written for the case but the record itself."""
        yield self.picture
        for part in self.written:
            yield from self.image_files(part)
            if "labels" in self.kinds:
                yield self.label_file(part)
            if self.ending == ".tif":
                yield from (self.spacing_file(part, kind) for kind in self.kinds)

    def _file(self, kind: str, name: str) -> Path:
        return self.folder / f"{kind}{'Ts' if self.is_test else 'Tr'}" / name


def record_path(folder: Path, case: str) -> Path:
    """Where in the data set ``folder`` the record of a case is; it need not exist."""
    return folder / RECORDS / f"{case}.json"


def fingerprints(case: Case) -> list[dict[str, Any]]:
    """What tells whether an input of ``case`` has changed: path, bytes and time of each."""
    stats = [(path, os.stat(path)) for path in case.inputs]
    return [{"path": str(path), "bytes": s.st_size, "modified_ns": s.st_mtime_ns} for path, s in stats]
