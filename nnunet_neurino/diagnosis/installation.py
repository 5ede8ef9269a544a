"""Is everything installed, and will nnU-Net's own commands find our trainers?"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from nnunet_neurino import __version__, _startup
from nnunet_neurino.diagnosis.result import Result, note, ok, problem

DISTRIBUTION = "nnunet-neurino"
TRAINER = "nnUNetTrainerNeurINO"
SHOWN = ("nnunetv2", "torch", "timm", "dynamic-network-architectures", "SimpleITK", "tifffile", "numpy")
TIMEOUT_S = 180


def python() -> Iterator[Result]:
    """The interpreter and our own version."""
    yield ok("nnunet-neurino", f"{__version__} in {Path(_startup.__file__).parent}")
    yield ok("Python", f"{platform.python_version()} at {sys.executable}")


def packages() -> Iterator[Result]:
    """Each requirement of ours: installed, and in the range that was tested."""
    try:
        requirements = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        yield problem(
            "installation",
            "the package runs from its folder, but pip does not know it: nnU-Net will not find the trainers",
            f"pip install {DISTRIBUTION}, or in a checkout: pip install -e .",
        )
        return
    needed = [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
    versions = []
    for item in needed:
        remedy = f'pip install "{item.name}{item.specifier}"'
        try:
            version = metadata.version(item.name)
        except metadata.PackageNotFoundError:
            yield problem(item.name, "not installed", remedy)
            continue
        if not item.specifier.contains(version, prereleases=True):
            yield problem(item.name, f"version {version}, but {item.specifier} is needed", remedy)
        elif item.name in SHOWN:
            versions.append(f"{item.name} {version}")
    yield ok("packages", ", ".join(versions))


def startup() -> Iterator[Result]:
    """Does a new Python, with nothing exported, know our plugin folder?"""
    export = f"export nnUNet_extTrainer={_startup.PLUGIN_FOLDER}"
    seen = _fresh_python("import os; print(os.environ.get('nnUNet_extTrainer', ''))")
    if _startup.PLUGIN_FOLDER in seen.stdout.strip().split(os.pathsep):
        yield ok("start-up file", "a new Python registers the trainers by itself")
    elif os.environ.get(_startup.OPT_OUT, "") not in ("", "0"):
        yield note("start-up file", f"switched off by {_startup.OPT_OUT}", f"unset {_startup.OPT_OUT}, or {export}")
    else:
        yield problem(
            "start-up file",
            "nnunet_neurino.pth is not in site-packages (pip install --target, or used through PYTHONPATH?)",
            f"pip install --force-reinstall --no-deps {DISTRIBUTION}, or {export}",
        )
    for folder in _user_folders():
        if Path(folder).is_dir():
            yield ok("nnUNet_extTrainer", f"your own folder {folder} is searched first")
        else:
            yield note("nnUNet_extTrainer", f"your own folder {folder} does not exist", "correct or unset the variable")


def trainer() -> Iterator[Result]:
    """Does nnU-Net's own search find the trainer, in a new Python?"""
    code = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        f"print('FOUND', find({TRAINER!r}).__module__)"
    )
    try:
        seen = _fresh_python(code)
    except subprocess.TimeoutExpired:
        yield problem(TRAINER, f"nnU-Net's search took more than {TIMEOUT_S} s", "try again; is the disk slow?")
        return
    found = [line for line in seen.stdout.splitlines() if line.startswith("FOUND")]
    if found:
        yield ok(TRAINER, f"nnU-Net finds it (in {found[0].split()[1]})")
    else:
        reason = (seen.stderr.strip().splitlines() or ["no message"])[-1]
        yield problem(TRAINER, f"nnU-Net's search fails: {reason}", "see the other lines; then run this again")


def commands() -> Iterator[Result]:
    """Does the shell's nnUNetv2_train belong to this environment? (The wrong one on PATH is a common trap.)"""
    here = Path(sys.executable).parent
    on_path = shutil.which("nnUNetv2_train")
    if on_path is None:
        yield note("nnUNetv2_train", "not on PATH", f"activate the environment, or call {here / 'nnUNetv2_train'}")
    elif Path(on_path).parent.resolve() != here.resolve():
        yield problem(
            "nnUNetv2_train",
            f"your shell would start {on_path}, of another environment than this one ({here})",
            "activate this environment, or install nnunet-neurino in the other",
        )
    else:
        yield ok("nnUNetv2_train", on_path)


def _user_folders() -> list[str]:
    folders = os.environ.get("nnUNet_extTrainer", "").split(os.pathsep)
    return [folder for folder in folders if folder and folder != _startup.PLUGIN_FOLDER]


def _fresh_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` as a new shell would: without what our own start-up line exported into this process."""
    environment = {key: value for key, value in os.environ.items() if key != "nnUNet_extTrainer"}
    if _user_folders():
        environment["nnUNet_extTrainer"] = os.pathsep.join(_user_folders())
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(sys.executable).parent,  # not a checkout, whose folder would be importable
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
