"""Folders, device, memory, weights and external programs."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from nnunet_neurino.diagnosis.finding import Finding, Level
from nnunet_neurino.errors import NeurinoError

FOLDERS = {
    "nnUNet_raw": "data sets as you convert them",
    "nnUNet_preprocessed": "what nnU-Net makes of them; on a fast disk",
    "nnUNet_results": "trained models",
}
GIB = 2**30


def folders() -> Iterator[Finding]:
    """nnU-Net's three folders: set, there, writable, with room."""
    for name, purpose in FOLDERS.items():
        value = os.environ.get(name)
        if not value:
            yield Finding(Level.PROBLEM, name, f"not set ({purpose})", f"export {name}=/a/folder/of/yours")
            continue
        folder = Path(value)
        if not folder.is_dir():
            remedy = f"export {name}=/a/folder/of/yours" if folder.exists() else f"mkdir -p {shlex.quote(value)}"
            yield Finding(Level.PROBLEM, name, f"{folder} is not a folder ({purpose})", remedy)
        elif not os.access(folder, os.W_OK):
            yield Finding(
                Level.PROBLEM, name, f"{folder} cannot be written to", f"chmod u+w {folder}, or choose another"
            )
        else:
            free = shutil.disk_usage(folder).free / GIB
            little = free < 5
            yield Finding(
                Level.NOTE if little else Level.OK,
                name,
                f"{folder}, {free:.0f} GiB free",
                "a training needs a few GiB" if little else "",
            )


def device() -> Iterator[Finding]:
    """What training will run on."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield Finding(Level.OK, f"cuda:{index}", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")
    elif torch.backends.mps.is_available():
        yield Finding(Level.NOTE, "device", "Apple GPU", "add -device mps to nnU-Net's commands")
    elif torch.version.cuda is None and shutil.which("nvidia-smi"):
        yield Finding(
            Level.PROBLEM,
            "device",
            f"an NVIDIA driver, but torch {torch.__version__} has no CUDA",
            "install torch with CUDA",
        )
    else:
        yield Finding(
            Level.NOTE,
            "device",
            f"no GPU; {torch.get_num_threads()} CPU threads",
            "add -device cpu to nnUNetv2_train and nnUNetv2_predict; real trainings want a GPU",
        )


def memory() -> Iterator[Finding]:
    """Main memory: nnU-Net's data workers die silently without it."""
    import psutil

    total = psutil.virtual_memory().total / GIB
    level = Level.NOTE if total < 15 else Level.OK
    remedy = "export nnUNet_n_proc_DA=2 if 'background workers are no longer alive'" if level else ""
    yield Finding(level, "memory", f"{total:.0f} GiB, {os.cpu_count()} cores", remedy)


def weights() -> Iterator[Finding]:
    """Where a new training would take its 2D weights from."""
    from nnunet_neurino.trainers.families import families
    from nnunet_neurino.trainers.pretraining import VARIABLE, find_source
    from nnunet_neurino.transfer import load_2d_weights

    family = families()["nnUNetTrainerNeurINO"]
    location = find_source(family, family.settings).location
    named = os.environ.get(VARIABLE)
    if location is None:
        yield Finding(
            Level.NOTE,
            "2D weights",
            f"{VARIABLE}={named}: training starts from scratch"
            if named
            else "none found: training starts from scratch",
            f"neurino weights --help tells how to get DINOv3 weights; then export {VARIABLE}=FILE",
        )
        return
    try:
        found = load_2d_weights(location)
    except NeurinoError as error:
        yield Finding(Level.PROBLEM, "2D weights", str(error), f"correct {VARIABLE}, or set it to none")
        return
    yield Finding(Level.OK, "2D weights", f"{location}: {getattr(found, 'architecture', 'read')}")


def external_tracers() -> Iterator[Finding]:
    """Tracers of others that `neurino trace --tracer` can call; none is needed."""
    from nnunet_neurino.tracing import find_external_tracers

    found = {name: path for name, path in find_external_tracers().items() if path}
    listing = ", ".join(f"{name} ({path})" for name, path in found.items())
    yield Finding(Level.OK, "other tracers", listing or "none installed (none is needed: neurino trace has its own)")
