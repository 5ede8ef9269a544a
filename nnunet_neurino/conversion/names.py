"""File names: which files are stacks or tracings, their stems, and case identifiers that nnU-Net takes."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from nnunet_neurino.images import slices
from nnunet_neurino.images.read import SUFFIXES as STACK_SUFFIXES
from nnunet_neurino.swc.read import SUFFIXES as TRACING_SUFFIXES

# Words that tell what a file is, not which neuron.
_ROLES = (
    "image|images|img|raw|stack|volume|tracing|trace|traced|swc|eswc|label|labels|mask|masks|seg|segmentation|gold|"
    "gt|truth|groundtruth|manual|annotation|skeleton|reconstruction|neuron|ano|stamped|consensus"
)
_ROLE = re.compile(rf"(?:^|(?<=[._\- ]))(?:{_ROLES})(?=[._\- ]|$)", re.IGNORECASE)


@functools.cache
def stem_of(path: Path) -> str:
    """The name without all endings that are known here ("a.v3dpbd.swc", "b.ome.tif", "c.nii.gz")."""
    name = path.name
    endings = (*STACK_SUFFIXES, *TRACING_SUFFIXES, *slices.SUFFIXES, ".ome", ".ano", ".gz")
    while True:
        ending = next((e for e in endings if name.lower().endswith(e) and len(name) > len(e)), None)
        if ending is None:
            return name
        name = name[: -len(ending)]


def without_role(stem: str) -> str:
    """The stem without words such as "image", "tracing", "label", lower case: "cell1_image" and "cell1" are alike."""
    return re.sub(r"[._\- ]+", "_", _ROLE.sub("", stem)).strip("_").lower()


def is_mask_name(stem: str) -> bool:
    """Does the stem say that the file is a mask ("cell1_mask", "label_3")?"""
    return (
        re.search(r"(?:^|[._\- ])(?:masks?|labels?|seg|segmentation|gt)(?:[._\- ]|$)", stem, re.IGNORECASE) is not None
    )


def case_name(stem: str) -> str:
    """A case identifier of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9.\-]+", "_", stem).strip("._-") or "case"


def stacks_in(folder: Path) -> list[Path]:
    """All stacks below ``folder``: files with a known ending and folders of slices, sorted."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            found += [path] if slices.is_slice_folder(path) else stacks_in(path)
        elif path.name.lower().endswith(STACK_SUFFIXES):
            found.append(path)
    return found


def tracings_in(folder: Path) -> list[Path]:
    """All SWC and eSWC files below ``folder``, sorted."""
    return sorted(
        p for p in folder.rglob("*") if p.name.lower().endswith(TRACING_SUFFIXES) and not p.name.startswith(".")
    )
