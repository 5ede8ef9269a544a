"""Converting a whole data set: so that it can be stopped and goes on, with report and contact sheet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nnunet_neurino.conversion.case import CannotWrite
from nnunet_neurino.conversion.record import RECORDS, Record, Refusal, record_path
from nnunet_neurino.conversion.settings import Case, ConvertSettings
from nnunet_neurino.conversion.splits import with_specimens
from nnunet_neurino.conversion.summary import REPORT, SETTINGS, Conversion, write_summary
from nnunet_neurino.conversion.workers import convert_cases
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.files import write_json


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
    if overwrite and any(folder.resolve() in path.resolve().parents for case in cases for path in case.inputs):
        raise NeurinoError(f"{folder}: holds files to be converted, --overwrite would remove them; move them elsewhere")
    try:
        _prepare(folder, settings, resume, overwrite)
        outcomes = _convert_all(cases, settings, folder, workers, progress)
        return write_summary(outcomes, settings, folder, notes, preprocessed, overwrite)
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
    record = folder / RECORDS / SETTINGS
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
) -> list[Record | Refusal]:
    """Convert what is not done yet; what became of each case, in the order of the cases."""
    outcomes: dict[str, Record | Refusal] = {}
    todo = []
    for case in cases:
        done = None if case.problem else Record.read(case, settings, folder)
        if done is not None:
            outcomes[case.name] = done
        else:
            # Without its record, what was written for a case is removed in the end, or written anew.
            record_path(folder, case.name).unlink(missing_ok=True)
            todo.append(case)
    for outcome in tqdm(
        convert_cases(todo, settings, folder, workers),
        total=len(cases),
        initial=len(outcomes),
        desc="converting",
        unit="case",
        disable=None if progress else True,
    ):
        outcomes[outcome.case] = outcome
    return [outcomes[case.name] for case in cases]
