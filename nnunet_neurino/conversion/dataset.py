"""Converting a whole data set: in parallel, so that it can be stopped and goes on, with report and contact sheet."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_neurino.conversion.case import RECORDS, CannotWrite, convert_case, is_done, refusal
from nnunet_neurino.conversion.picture import BETTER, contact_sheets
from nnunet_neurino.conversion.settings import Case, ConvertSettings
from nnunet_neurino.conversion.splits import make_splits, with_specimens
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import write_json

REPORT = "conversion_report.json"
_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Conversion:
    """What came out of a conversion.

    Attributes:
        folder: the data set, nnU-Net's raw form.
        converted: records of the cases that were written.
        refused: records of those that were not, each with its reason.
        notes: what concerns the whole data set.
    """

    folder: Path
    converted: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    notes: list[str]


def convert_dataset(
    cases: Sequence[Case],
    settings: ConvertSettings,
    output: Path,
    *,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    notes: Sequence[str] = (),
    preprocessed: Path | None = None,
    progress: bool = True,
) -> Conversion:
    """Convert ``cases`` into the nnU-Net raw data set ``output / DatasetNNN_NAME``.

    An unfinished run of the same settings goes on where it stopped; the result is the same, byte by byte, as that of
    an undisturbed run.

    Args:
        cases: from :func:`~nnunet_neurino.conversion.pairing.find_cases` or ``read_pairs``.
        settings: what is to be done.
        output: the nnUNet_raw folder.
        workers: cases converted at the same time.
        resume: go on with a finished data set of the same settings, too (refused or new cases).
        overwrite: remove what the data set's folder holds.
        notes: lines for the report.
        preprocessed: the nnUNet_preprocessed folder, which gets a copy of the splits; None for none.
        progress: show a bar.

    Raises:
        NeurinoError: the folder holds something else, or cannot be written.
    """
    cases = with_specimens(cases, settings.specimen)
    folder = output / settings.folder_name
    inputs = [path for case in cases for path in (*case.images, case.tracing, case.mask) if path is not None]
    if overwrite and any(folder.resolve() in path.resolve().parents for path in inputs):
        raise NeurinoError(f"{folder}: holds files to be converted, --overwrite would remove them; move them elsewhere")
    try:
        _prepare(folder, settings, resume, overwrite)
        records = _convert_all(cases, settings, folder, workers, progress)
        return _finish(records, settings, folder, list(notes), preprocessed, overwrite)
    except OSError as error:
        raise CannotWrite(
            f"{error.filename or folder}: cannot write ({error.strerror or error}); run the same command again when "
            "there is room and permission: it goes on"
        ) from None


def _prepare(folder: Path, settings: ConvertSettings, resume: bool, overwrite: bool) -> None:
    """Make the folder ready, or refuse it; write down the settings first of all."""
    for other in sorted(folder.parent.glob(f"Dataset{settings.dataset_id:03d}_*")) if folder.parent.is_dir() else ():
        if other.name != folder.name:
            raise NeurinoError(
                f"{other}: already has the number {settings.dataset_id}, nnU-Net wants each once; "
                "choose another --dataset-id"
            )
    record = folder / RECORDS / _SETTINGS
    told = json.loads(json.dumps(settings.as_json()))
    if folder.exists() and overwrite:
        shutil.rmtree(folder)
    elif folder.exists() and not folder.is_dir():
        raise NeurinoError(f"{folder}: is a file, a folder was expected; remove it")
    elif any(p.is_file() and not p.name.startswith(".unfinished-") for p in folder.rglob("*")):
        try:
            earlier = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            earlier = None
        if not isinstance(earlier, dict):
            raise NeurinoError(f"{folder}: is not empty and not of `neurino convert`; choose another or --overwrite")
        if earlier != told:
            changed = sorted(k for k in {*earlier, *told} if earlier.get(k) != told.get(k))
            raise NeurinoError(
                f"{folder}: begun with other settings ({', '.join(changed)}); give the same ones, or --overwrite"
            )
        if (folder / REPORT).exists() and not resume:
            raise NeurinoError(
                f"{folder}: already converted; --resume converts what was refused or is new, --overwrite starts afresh"
            )
    for leftover in list(folder.rglob(".unfinished-*")):
        leftover.unlink(missing_ok=True)
    write_json(record, told)


def _convert_all(
    cases: Sequence[Case], settings: ConvertSettings, folder: Path, workers: int, progress: bool
) -> list[dict[str, Any]]:
    """Convert what is not done yet; records in the order of the cases."""
    records: dict[str, dict[str, Any]] = {}
    todo = []
    for case in cases:
        done = None if case.problem else is_done(case, settings, folder)
        if done is not None:
            records[case.name] = done
        else:
            _forget(folder, case.name)
            todo.append(case)
    for name, record in tqdm(
        _run(todo, settings, folder, workers),
        total=len(cases),
        initial=len(records),
        desc="converting",
        unit="case",
        disable=None if progress else True,
    ):
        records[name] = record
    return [records[case.name] for case in cases]


def _run(
    cases: Sequence[Case], settings: ConvertSettings, folder: Path, workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    if workers <= 1 or len(cases) <= 1:
        for case in cases:
            yield case.name, convert_case(case, settings, folder)
        return
    # Started afresh, not forked: image libraries run threads of their own.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(cases)), mp_context=context, initializer=_worker_habits) as pool:
        jobs = {pool.submit(convert_case, case, settings, folder): case for case in cases}
        try:
            for job in as_completed(jobs):
                yield jobs[job].name, job.result()
        except BrokenProcessPool:
            raise NeurinoError(
                "a worker was ended by the system, most likely for want of memory; run the same command again with "
                "fewer --workers: it goes on"
            ) from None
        finally:
            for job in jobs:
                job.cancel()


def _worker_habits() -> None:
    """A worker leaves Ctrl-C to its parent, and ends with it, also when the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _forget(folder: Path, name: str) -> None:
    """Remove the record of a case; without it :func:`_sweep` removes what was written for it."""
    (folder / RECORDS / f"{name}.json").unlink(missing_ok=True)


def _sweep(records: list[dict[str, Any]], settings: ConvertSettings, folder: Path) -> list[str]:
    """Remove what no record speaks of: left by a stopped run for a case that is now refused, cut otherwise or gone.

    What somebody else has put there stays; a line about it is returned.
    """
    known = {f"{RECORDS}/{_SETTINGS}"}
    for record in records:
        if "refused" in record:
            continue
        where = "Ts" if record["set"] == "test" else "Tr"
        known |= {f"{RECORDS}/{record['case']}{ending}" for ending in (".json", ".png")}
        for part in record["written"]:
            known |= {f"images{where}/{part}_{c:04d}{settings.ending}" for c in range(record["channels"])}
            known |= {f"labels{where}/{part}{settings.ending}"}
            known |= {f"{kind}{where}/{part}.json" for kind in ("images", "labels")}
    cases = {str(r["case"]) for r in records} | {p.stem for p in (folder / RECORDS).glob("*.*")}
    ours = tuple(case + mark for case in sorted(cases) for mark in "._")
    foreign = 0
    for kind in (RECORDS, "imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        for path in (folder / kind).glob("*"):
            if f"{kind}/{path.name}" in known or not path.is_file():
                continue
            if kind == RECORDS or path.name.startswith(ours):
                path.unlink()
            else:
                foreign += 1
    return [f"{foreign} files of another source in imagesTr, labelsTr, ... are left as they are"] if foreign else []


def _finish(
    records: list[dict[str, Any]],
    settings: ConvertSettings,
    folder: Path,
    notes: list[str],
    preprocessed: Path | None,
    overwrite: bool,
) -> Conversion:
    """Write what concerns all cases: dataset.json, splits, contact sheet, and last the report."""
    records = _same_channels(records, folder)
    done = [r for r in records if "refused" not in r]
    refused = [r for r in records if "refused" in r]
    training = [r for r in done if r["set"] == "train"]
    notes += _sweep(records, settings, folder)
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    write_json(folder / "dataset.json", _dataset_json(training, done, settings))
    specimens: dict[str, list[str]] = defaultdict(list)
    for record in training:
        specimens[record["specimen"]] += record["written"]
    splits = make_splits(specimens, settings.folds)
    if splits:
        write_json(folder / "splits_final.json", splits)
        if preprocessed is not None:
            notes += _copy_splits(splits, preprocessed / folder.name / "splits_final.json", overwrite)
    else:
        notes.append(
            "fewer than two specimens with labels: no splits_final.json (nnU-Net needs a second one to validate)"
        )
    sheets = contact_sheets([(folder / RECORDS / f"{r['case']}.png", _caption(r)) for r in done], folder)
    report = {
        "settings": settings.as_json(),
        "converted": len(done),
        "refused": len(refused),
        "specimens": len(specimens),
        "notes": notes,
        "contact_sheets": [p.name for p in sheets],
        "cases": records,
    }
    write_json(folder / REPORT, report)
    return Conversion(folder, done, refused, notes)


def _same_channels(records: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """nnU-Net wants the same channels everywhere: refuse the cases that differ from most."""
    counts = Counter(r["channels"] for r in records if "refused" not in r)
    if len(counts) < 2:
        return records
    usual = max(counts, key=lambda n: (counts[n], -n))
    result = []
    for record in records:
        if "refused" not in record and record["channels"] != usual:
            _forget(folder, record["case"])
            case = Case(record["case"], tuple(Path(p) for p in record["images"]))
            reason = (
                f"{case.images[0]}: {record['channels']} channels, most images have {usual}; choose one with --channel"
            )
            record = refusal(case, reason)
        result.append(record)
    return result


def _dataset_json(
    training: list[dict[str, Any]], done: list[dict[str, Any]], settings: ConvertSettings
) -> dict[str, Any]:
    n_channels = done[0]["channels"] if done else 1
    names = settings.channel_names or tuple(f"microscopy{c if n_channels > 1 else ''}" for c in range(n_channels))
    if len(names) != n_channels and done:
        raise NeurinoError(f"--channel-names: {len(names)} names for {n_channels} channels")
    content = {
        "name": settings.folder_name,
        "channel_names": {str(c): name for c, name in enumerate(names)},
        "labels": {"background": 0, "neuron": 1},
        "numTraining": sum(len(r["written"]) for r in training),
        "file_ending": settings.ending,
        "overwrite_image_reader_writer": "Tiff3DIO" if settings.file_format == "tiff" else "SimpleITKIO",
        "licence": settings.licence,
        "reference": settings.reference,
        "converted_by": "nnunet_neurino",
    }
    return {k: v for k, v in content.items() if v != ""}


def _copy_splits(splits: list[dict[str, list[str]]], path: Path, overwrite: bool) -> list[str]:
    try:
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError):
        earlier = "unreadable"
    if earlier is None or overwrite:
        write_json(path, splits)
        return [f"splits written to {path}, where nnU-Net looks for them"]
    if earlier != splits:
        return [f"WARNING: {path} holds other splits and is left as it is; --overwrite replaces it"]
    return [f"splits written to {path}, where nnU-Net looks for them"]


def _caption(record: dict[str, Any]) -> str:
    size = " x ".join(str(n) for n in record["shape"])
    first = f"{record['case']}  {size}"
    if record["set"] == "test":
        return f"{first}\ntest"
    share = sum(record["foreground"]) / max(1, len(record["foreground"]))
    parts = [f"foreground {share:.2%}"]
    alignment = record.get("alignment")
    if alignment:
        parts.append(f"contrast {alignment['stored_contrast']:.2f} {alignment['stored']}")
        if alignment["best"] != alignment["stored"]:
            verb = "TAKEN AS" if alignment["applied"] == alignment["best"] else BETTER
            parts.append(f"{verb}: {alignment['best']} ({alignment['best_contrast']:.2f})")
    if len(record["written"]) > 1:
        parts.append(f"{len(record['written'])} blocks")
    return f"{first}\n{', '.join(parts)}"


def default_workers(n_cases: int) -> int:
    """Up to four, and no more than there are processors or cases."""
    return max(1, min(4, os.cpu_count() or 1, n_cases))
