"""Folders, device, memory, weights and external programs."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from nnunet_neurino.diagnosis.result import Result, note, ok, problem
from nnunet_neurino.errors import NeurinoError

FOLDERS = {
    "nnUNet_raw": "data sets as you convert them",
    "nnUNet_preprocessed": "what nnU-Net makes of them; on a fast disk",
    "nnUNet_results": "trained models",
}
GIB = 2**30


def folders() -> Iterator[Result]:
    """nnU-Net's three folders: set, there, writable, with room."""
    for name, purpose in FOLDERS.items():
        value = os.environ.get(name)
        if not value:
            yield problem(name, f"not set ({purpose})", f"export {name}=/a/folder/of/yours")
            continue
        folder = Path(value)
        if not folder.is_dir():
            remedy = f"export {name}=/a/folder/of/yours" if folder.exists() else f"mkdir -p {shlex.quote(value)}"
            yield problem(name, f"{folder} is not a folder ({purpose})", remedy)
        elif not os.access(folder, os.W_OK):
            yield problem(name, f"{folder} cannot be written to", f"chmod u+w {folder}, or choose another")
        else:
            free = shutil.disk_usage(folder).free / GIB
            seen = f"{folder}, {free:.0f} GiB free"
            yield note(name, seen, "a training needs a few GiB") if free < 5 else ok(name, seen)


def device() -> Iterator[Result]:
    """What training will run on."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield ok(f"cuda:{index}", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")
    elif torch.backends.mps.is_available():
        yield note("device", "Apple GPU", "add -device mps to nnU-Net's commands")
    elif torch.version.cuda is None and shutil.which("nvidia-smi"):
        seen = f"an NVIDIA driver, but torch {torch.__version__} has no CUDA"
        yield problem("device", seen, "install torch with CUDA")
    else:
        yield note(
            "device",
            f"no GPU; {torch.get_num_threads()} CPU threads",
            "add -device cpu to nnUNetv2_train and nnUNetv2_predict; real trainings want a GPU",
        )


def memory() -> Iterator[Result]:
    """Main memory: nnU-Net's data workers die silently without it."""
    import psutil

    total = psutil.virtual_memory().total / GIB
    seen = f"{total:.0f} GiB, {os.cpu_count()} cores"
    remedy = "export nnUNet_n_proc_DA=2 if 'background workers are no longer alive'"
    yield note("memory", seen, remedy) if total < 15 else ok("memory", seen)


def weights() -> Iterator[Result]:
    """Where a new training would take its 2D weights from."""
    from nnunet_neurino.trainers.families import families
    from nnunet_neurino.trainers.pretraining import VARIABLE, find_source
    from nnunet_neurino.transfer import load_2d_weights

    family = families()["nnUNetTrainerNeurINO"]
    location = find_source(family, family.settings).location
    named = os.environ.get(VARIABLE)
    if location is None:
        seen = f"{VARIABLE}={named}" if named else "none found"
        remedy = f"neurino weights --help tells how to get DINOv3 weights; then export {VARIABLE}=FILE"
        yield note("2D weights", f"{seen}: training starts from scratch", remedy)
        return
    try:
        found = load_2d_weights(location)
    except NeurinoError as error:
        yield problem("2D weights", str(error), f"correct {VARIABLE}, or set it to none")
        return
    yield ok("2D weights", f"{location}: {getattr(found, 'architecture', 'read')}")


def external_tracers() -> Iterator[Result]:
    """Tracers of others that `neurino trace --tracer` can call; none is needed."""
    from nnunet_neurino.tracing import find_external_tracers

    found = {name: path for name, path in find_external_tracers().items() if path}
    listing = ", ".join(f"{name} ({path})" for name, path in found.items())
    yield ok("other tracers", listing or "none installed (none is needed: neurino trace has its own)")
