"""What is to be converted, and how: the settings (written beside the data) and the cases."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images.stack import check_spacing

FILE_ENDINGS = {"tiff": ".tif", "nifti": ".nii.gz"}
LABEL_MODES = ("capsule", "skeleton", "distance_binary")
UNITS = ("auto", "voxel", "micrometre")


@dataclass(frozen=True)
class ConvertSettings:
    """Settings of a conversion; all of them change what is written."""

    dataset_id: int  # nnU-Net's number of the data set, 1 to 999
    name: str  # nnU-Net's name of the data set
    # voxel size (z, y, x) in micrometres for all images; None takes each file's own
    spacing: tuple[float, float, float] | None = None
    axes: str | None = None  # what the axes of the image (and mask) files are ("ZYX", "CZYX"); None trusts the files
    channel: int | None = None  # the one channel to keep, from 0; None keeps all
    time: int | None = None  # the one time point to keep, from 0
    slice_number: int | None = None  # which of several numbers in the names of slices counts them, from 1
    allow_damaged: bool = False  # take what is left of a TIFF file whose chain of pages is broken
    # unit of the tracings: "voxel", "micrometre", or "auto" (their comments, else what fits the image)
    unit: str = "auto"
    fix_orientation: bool = False  # apply a flip, count or unit that fits better than the stored one beyond doubt
    mode: str = "capsule"  # how tracings become labels: "capsule", "skeleton" or "distance_binary"
    tube_radius: float = 1.0  # radius for "skeleton", in voxels of x
    minimum_radius: float = 1.5  # least radius for "distance_binary", in voxels of x
    radius: float | None = None  # takes the place of every radius in the tracings, in their unit; None keeps them
    # cut training volumes into blocks of this many voxels (z, y, x); None keeps them whole
    block: tuple[int, int, int] | None = None
    overlap: tuple[int, int, int] = (0, 0, 0)  # overlap of neighbouring blocks (z, y, x), voxels
    min_foreground: float = 0.0  # least share of foreground voxels (0 to 1) in a block that is kept
    allow_empty: bool = False  # keep cases without a foreground voxel instead of refusing them
    folds: int = 5  # number of cross-validation folds
    # regular expression found in a case id; its first group (else its match) names the specimen
    specimen: str | None = None
    file_format: str = "tiff"  # "tiff" or "nifti"
    # nnU-Net's names of the channels (they decide about normalisation: see its documentation)
    channel_names: tuple[str, ...] = ()
    licence: str = ""  # licence of the data, for dataset.json
    reference: str = ""  # source and citation of the data, for dataset.json

    def __post_init__(self) -> None:
        """Refuse what cannot work, naming the option."""
        if not 1 <= self.dataset_id <= 999:
            raise NeurinoError(f"--dataset-id {self.dataset_id}: expected a number from 1 to 999")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", self.name) or "__" in self.name:
            raise NeurinoError(f"--name {self.name!r}: expected letters, digits, - and single _ only")
        if self.spacing is not None:
            object.__setattr__(self, "spacing", check_spacing(self.spacing, "--spacing"))
        for option, value, known in (
            ("--unit", self.unit, UNITS),
            ("--mode", self.mode, LABEL_MODES),
            ("--format", self.file_format, tuple(FILE_ENDINGS)),
        ):
            if value not in known:
                raise NeurinoError(f"{option} {value}: expected one of {', '.join(known)}")
        if self.block is not None:
            if min(self.block) < 1:
                raise NeurinoError(f"--block {self.block}: expected three sizes of at least 1 voxel")
            if any(not 0 <= o < b for o, b in zip(self.overlap, self.block, strict=True)):
                raise NeurinoError(f"--overlap {self.overlap}: expected 0 or more, less than the block {self.block}")
        elif any(self.overlap) or self.min_foreground:
            raise NeurinoError("--overlap and --min-foreground belong to blocks: give --block Z Y X, too")
        if not 0 <= self.min_foreground < 1:
            raise NeurinoError(f"--min-foreground {self.min_foreground}: expected a share from 0 to less than 1")
        if self.radius is not None and not 0 < self.radius < math.inf:
            raise NeurinoError(f"--radius {self.radius}: expected a positive number")
        for option, radius in (("--tube-radius", self.tube_radius), ("--minimum-radius", self.minimum_radius)):
            if not 0 <= radius < math.inf:
                raise NeurinoError(f"{option} {radius}: expected a number of voxels from 0 on")
        if self.folds < 2:
            raise NeurinoError(f"--folds {self.folds}: expected at least 2")
        if self.specimen is not None:
            try:
                re.compile(self.specimen)
            except re.error as error:
                raise NeurinoError(f"--specimen {self.specimen!r}: not a regular expression ({error})") from None

    @property
    def folder_name(self) -> str:
        """nnU-Net's name of the data set's folder."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"

    @property
    def ending(self) -> str:
        """Ending of image and label files."""
        return FILE_ENDINGS[self.file_format]

    @property
    def reading(self) -> dict[str, Any]:
        """What :func:`~nnunet_neurino.images.read_stack` has to know of images and masks alike."""
        return {"slice_number": self.slice_number, "allow_damaged": self.allow_damaged}

    def as_json(self) -> dict[str, Any]:
        """The settings in JSON's own types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Case:
    """One image with what belongs to it."""

    name: str  # nnU-Net's case identifier
    images: tuple[Path, ...]  # a file (or folder of slices) for each channel, or one file with all channels
    tracing: Path | None = None  # the SWC file; None for test cases and where there is a mask
    mask: Path | None = None  # a stack whose voxels above 0 are foreground; None where there is a tracing
    specimen: str = ""  # cases of one specimen are never split between training and validation; "" is the case itself
    test: bool = False  # belongs to the test set (imagesTs)
    problem: str = ""  # why the case cannot be converted; "" when nothing is known to be wrong

    @property
    def inputs(self) -> list[Path]:
        """All files of the case: images, then tracing or mask."""
        return [path for path in (*self.images, self.tracing, self.mask) if path is not None]
