"""What concerns all cases of a data set: dataset.json, splits, contact sheet, and last the report."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_neurino.conversion.picture import BETTER, contact_sheets
from nnunet_neurino.conversion.record import RECORDS, Record, Refusal, record_path
from nnunet_neurino.conversion.settings import ConvertSettings
from nnunet_neurino.conversion.splits import make_splits
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import write_json

REPORT = "conversion_report.json"
#: In the folder of the records: the settings they were made with.
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Conversion:
    """What came out of a conversion."""

    folder: Path  # the data set, nnU-Net's raw form
    converted: list[Record]  # records of the cases that were written
    refused: list[Refusal]  # those that were not, each with its reason
    notes: list[str]  # what concerns the whole data set


def write_summary(
    outcomes: Sequence[Record | Refusal],
    settings: ConvertSettings,
    folder: Path,
    notes: Sequence[str],
    preprocessed: Path | None,
    overwrite: bool,
) -> Conversion:
    """Write what belongs to no single case; see :func:`~nnunet_neurino.conversion.convert_dataset`."""
    outcomes = _same_channels(outcomes)
    done = [one for one in outcomes if isinstance(one, Record)]
    refused = [one for one in outcomes if isinstance(one, Refusal)]
    training = [record for record in done if not record.is_test]
    notes = [*notes, *_sweep(outcomes, folder)]
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    write_json(folder / "dataset.json", _dataset_json(training, done, settings))
    specimens: dict[str, list[str]] = defaultdict(list)
    for record in training:
        specimens[record.specimen] += record.written
    splits = make_splits(specimens, settings.folds)
    if splits:
        write_json(folder / "splits_final.json", splits)
        if preprocessed is not None:
            notes.append(_copy_splits(splits, preprocessed / folder.name / "splits_final.json", overwrite))
    else:
        notes.append(
            "fewer than two specimens with labels: no splits_final.json (nnU-Net needs a second one to validate)"
        )
    sheets = contact_sheets([(record.picture, _caption(record)) for record in done], folder)
    report = {
        "settings": settings.as_json(),
        "converted": len(done),
        "refused": len(refused),
        "specimens": len(specimens),
        "notes": notes,
        "contact_sheets": [p.name for p in sheets],
        "cases": [one.as_json() for one in outcomes],
    }
    write_json(folder / REPORT, report)
    return Conversion(folder, done, refused, notes)


def _same_channels(outcomes: Sequence[Record | Refusal]) -> list[Record | Refusal]:
    """nnU-Net wants the same channels everywhere: refuse the cases that differ from most."""
    counts = Counter(one.channels for one in outcomes if isinstance(one, Record))
    usual = max(counts, key=lambda n: (counts[n], -n), default=0)
    result: list[Record | Refusal] = []
    for one in outcomes:
        if isinstance(one, Record) and one.channels != usual:
            record_path(one.folder, one.case).unlink(missing_ok=True)
            reason = f"{one.images[0]}: {one.channels} channels, most images have {usual}; choose one with --channel"
            one = Refusal(one.case, one.images, reason)
        result.append(one)
    return result


def _sweep(outcomes: Sequence[Record | Refusal], folder: Path) -> list[str]:
    """Remove what no record speaks of: left by a stopped run for a case that is now refused, cut otherwise or gone.

    What somebody else has put there stays; a line about it is returned.
    """
    known = {folder / RECORDS / SETTINGS}
    for record in outcomes:
        if isinstance(record, Record):
            known |= {record_path(folder, record.case), *record.files()}
            for part in record.written:  # for a test case you may have added the label
                known |= {record.label_file(part), record.spacing_file(part, "labels")}
    cases = {one.case for one in outcomes} | {p.stem for p in (folder / RECORDS).glob("*.*")}
    ours = tuple(case + mark for case in sorted(cases) for mark in "._")
    foreign = 0
    for kind in (RECORDS, "imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        for path in (folder / kind).glob("*"):
            if path in known or not path.is_file():
                continue
            if kind == RECORDS or path.name.startswith(ours):
                path.unlink()
            else:
                foreign += 1
    return [f"{foreign} files of another source in imagesTr, labelsTr, ... are left as they are"] if foreign else []


def _dataset_json(training: Sequence[Record], done: Sequence[Record], settings: ConvertSettings) -> dict[str, Any]:
    n_channels = done[0].channels if done else 1
    names = settings.channel_names or tuple(f"microscopy{c if n_channels > 1 else ''}" for c in range(n_channels))
    if len(names) != n_channels and done:
        raise NeurinoError(f"--channel-names: {len(names)} names for {n_channels} channels")
    content = {
        "name": settings.folder_name,
        "channel_names": {str(c): name for c, name in enumerate(names)},
        "labels": {"background": 0, "neuron": 1},
        "numTraining": sum(len(record.written) for record in training),
        "file_ending": settings.ending,
        "overwrite_image_reader_writer": "Tiff3DIO" if settings.file_format == "tiff" else "SimpleITKIO",
        "licence": settings.licence,
        "reference": settings.reference,
        "converted_by": "nnunet_neurino",
    }
    return {k: v for k, v in content.items() if v != ""}


def _copy_splits(splits: list[dict[str, list[str]]], path: Path, overwrite: bool) -> str:
    """Put the splits where nnU-Net looks for them, unless other ones are there; say which."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError):
        earlier = "unreadable"
    if earlier not in (None, splits) and not overwrite:
        return f"WARNING: {path} holds other splits and is left as it is; --overwrite replaces it"
    write_json(path, splits)
    return f"splits written to {path}, where nnU-Net looks for them"


def _caption(record: Record) -> str:
    first = f"{record.case}  {' x '.join(str(n) for n in record.shape)}"
    if record.is_test:
        return f"{first}\ntest"
    foreground = record.foreground or ()
    parts = [f"foreground {sum(foreground) / max(1, len(foreground)):.2%}"]
    if alignment := record.alignment:
        parts.append(f"contrast {alignment.stored_contrast:.2f} {alignment.stored}")
        if alignment.best != alignment.stored:
            verb = "TAKEN AS" if alignment.applied == alignment.best else BETTER
            parts.append(f"{verb}: {alignment.best} ({alignment.best_contrast:.2f})")
    if len(record.written) > 1:
        parts.append(f"{len(record.written)} blocks")
    return f"{first}\n{', '.join(parts)}"
