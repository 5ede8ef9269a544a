"""Which tracing (or mask) belongs to which image: by name or by folder."""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from nnunet_neurino.conversion.names import case_name, is_mask_name, stacks_in, stem_of, tracings_in, without_role
from nnunet_neurino.conversion.settings import Case
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images.slices import is_slice_folder

_CHANNEL = re.compile(r"^(.*)_(\d{4})$")


def find_cases(images: Path, tracings: Path | None = None, masks: Path | None = None) -> tuple[list[Case], list[str]]:
    """Pair the stacks below ``images`` with the tracings (or masks) below the other folder.

    The rules, the first that fits counts: the names are equal without their endings ("a.tif", "a.swc"; "b.v3dpbd",
    "b.v3dpbd.swc"); they are equal without words such as image, tracing, label ("a_image.tif", "a_gold.swc"); one
    begins with the other ("a.tif", "a_app2.swc"); both are the only ones in a folder of the same name. Files
    "a_0000.tif", "a_0001.tif" are channels of one image, unless there is "a_0001.swc": then they are two images.

    In one folder with images, masks are recognised by a word such as mask, label, seg.

    Images left over become test cases, unless tracings are left over as well: then the names probably do not match,
    and both are refused. Two tracings for one image, two images for one tracing, and two cases with one identifier
    are refused, too. Refused cases carry their ``problem``.

    Returns:
        The cases, sorted by name, and a line for each tracing or mask that was not used.
    """
    for folder in filter(None, (images, tracings, masks)):
        if not folder.is_dir():
            raise NeurinoError(f"{folder}: no such folder")
    if is_slice_folder(images):
        raise NeurinoError(f"{images}: these are the slices of one stack; give the folder above it, one folder a stack")
    stacks = stacks_in(images)
    partners, where = [], masks or tracings
    if tracings is not None:
        partners = tracings_in(tracings)
    elif masks is not None:
        partners = [p for p in stacks_in(masks) if masks.resolve() != images.resolve() or is_mask_name(stem_of(p))]
        taken = set(partners)
        stacks = [p for p in stacks if p not in taken]
    if not stacks:
        raise NeurinoError(f"{images}: no image stacks found (TIFF, .v3draw, .v3dpbd, NIfTI, NRRD, folders of slices)")
    if where is not None and not partners:
        what = "tracings (.swc, .eswc)" if tracings is not None else "masks"
        raise NeurinoError(f"{where}: no {what} found")
    groups = _channels(stacks, partners)
    matches = _match(list(groups), partners, images, where or images)
    return _cases(groups, partners, matches, is_mask=tracings is None, roots=(images, where or images))


def _channels(paths: list[Path], partners: list[Path]) -> dict[Path, tuple[Path, ...]]:
    """Group "name_0000", "name_0001", ... of one folder; the key is the path without the channel number.

    They are volumes that were numbered, and no channels, where another than the first has a partner of its own name.
    """
    named = {stem_of(p).lower() for p in partners}
    numbered: dict[Path, list[tuple[int, Path]]] = defaultdict(list)
    groups: dict[Path, tuple[Path, ...]] = {}
    for path in paths:
        match = _CHANNEL.match(stem_of(path))
        if match and path.is_file():
            numbered[path.parent / match[1]].append((int(match[2]), path))
        else:
            groups[path] = (path,)
    for key, found in numbered.items():
        are_volumes = any(stem_of(path).lower() in named for n, path in found if n > 0)
        if sorted(n for n, _ in found) == list(range(len(found))) and not are_volumes:
            groups[key] = tuple(p for _, p in sorted(found))
        else:
            groups |= {path: (path,) for _, path in found}
    return dict(sorted(groups.items()))


def _match(images: list[Path], partners: list[Path], image_root: Path, partner_root: Path) -> dict[Path, list[Path]]:
    """Partners of each image by the first rule that gives any; partners that fit by an earlier rule are taken."""
    matches: dict[Path, list[Path]] = {image: [] for image in images}
    free = set(partners)
    rules: list[Callable[[Path, Path], bool]] = [
        lambda i, p: stem_of(i).lower() == stem_of(p).lower() and _folder(i, image_root) == _folder(p, partner_root),
        lambda i, p: _key(i, image_root) == _key(p, partner_root),
        lambda i, p: _folder(i, image_root) == _folder(p, partner_root) and _begins(stem_of(p), stem_of(i)),
        lambda i, p: _folder(i, image_root) == _folder(p, partner_root) and _begins(stem_of(i), stem_of(p)),
        lambda i, p: stem_of(i).lower() == stem_of(p).lower(),
        lambda i, p: _begins(stem_of(p), stem_of(i)),
        lambda i, p: _lone(i, images, image_root) == _lone(p, partners, partner_root) is not None,
    ]
    for rule in rules:
        taken: set[Path] = set()
        for image in images:
            if not matches[image]:
                matches[image] = [p for p in partners if p in free and rule(image, p)]
                taken.update(matches[image])
        free -= taken
    # By beginnings, "cell1_2_app2" fits "cell1" and "cell1_2": the longer name is meant.
    for partner in partners:
        owners = [i for i in images if partner in matches[i]]
        longest = max((len(stem_of(i)) for i in owners), default=0)
        for image in owners:
            if len(owners) > 1 and len(stem_of(image)) < longest:
                matches[image].remove(partner)
    return matches


@functools.cache  # asked for every pair of an image and a partner
def _folder(path: Path, root: Path) -> str:
    return path.parent.relative_to(root).as_posix().lower()


@functools.cache
def _key(path: Path, root: Path) -> tuple[str, str]:
    return _folder(path, root), without_role(stem_of(path))


def _begins(long: str, short: str) -> bool:
    long, short = long.lower(), short.lower()
    return long.startswith(short) and len(long) > len(short) and not long[len(short)].isalnum()


def _lone(path: Path, everything: list[Path], root: Path) -> str | None:
    """The sub-folder of ``path``, when nothing else is in it."""
    folder = _folder(path, root)
    alone = sum(1 for p in everything if p.parent == path.parent) == 1
    return folder if alone and folder != "." else None


def _cases(
    groups: dict[Path, tuple[Path, ...]],
    partners: list[Path],
    matches: dict[Path, list[Path]],
    is_mask: bool,
    roots: tuple[Path, Path],
) -> tuple[list[Case], list[str]]:
    owners = Counter(p for found in matches.values() for p in found)
    left = [p for p in partners if p not in owners]
    what = "masks" if is_mask else "tracings"
    cases = []
    for key, images in groups.items():
        found, problem = matches[key], ""
        if len(found) > 1:
            names = ", ".join(p.name for p in found[:4])
            problem = f"{len(found)} {what} fit ({names}); keep one, or pair them with --pairs"
        elif found and owners[found[0]] > 1:
            rivals = ", ".join(k.name for k in groups if found[0] in matches[k] and k != key)
            problem = f"{found[0].name} fits other images as well ({rivals}); pair them with --pairs"
        elif left and not found:
            close = difflib.get_close_matches(stem_of(key), [stem_of(p) for p in left], 1, 0.4)
            hint = f" (did you mean {close[0]}?)" if close else ""
            problem = f"none of the {what} has this name{hint}; rename it, or pair them with --pairs"
        case = Case(_name_of(key, groups, roots[0]), images, test=not found and not left)
        if problem:
            case = replace(case, problem=f"{images[0]}: {problem}")
        elif found:
            case = replace(case, mask=found[0]) if is_mask else replace(case, tracing=found[0])
        cases.append(case)
    notes = [f"{p}: not used, all images have another one" for p in left]
    if any(not found for found in matches.values()):
        notes = []
        for partner in left:
            problem = f"{partner}: no image has this name; rename it, or pair them with --pairs"
            cases.append(Case(case_name(partner.relative_to(roots[1]).as_posix()) + "_unpaired", (), problem=problem))
    return refuse_duplicates(cases), notes


def _name_of(key: Path, groups: Iterable[Path], root: Path) -> str:
    """The stem; with its folders where stems repeat ("fly1/image.tif" and "fly2/image.tif": fly1, fly2)."""
    stems = Counter(stem_of(k).lower() for k in groups)
    if stems[stem_of(key).lower()] == 1:
        return case_name(stem_of(key))
    parts = key.parent.relative_to(root).parts
    role = without_role(stem_of(key))
    return case_name("_".join((*parts, role) if role else parts) or stem_of(key))


def refuse_duplicates(cases: list[Case]) -> list[Case]:
    """Give all cases that share an identifier a problem (upper and lower case count as the same)."""
    counts = Counter(case.name.lower() for case in cases)
    seen: Counter[str] = Counter()
    result = []
    for case in cases:
        key = case.name.lower()
        if counts[key] > 1:
            seen[key] += 1
            source = case.images[0] if case.images else case.name
            problem = (
                f"{source}: {counts[key]} images give the case identifier {case.name!r}; rename them or use --pairs"
            )
            case = replace(case, name=f"{case.name}_duplicate{seen[key]}", problem=case.problem or problem)
        result.append(case)
    return sorted(result, key=lambda c: c.name)
