"""One function for every tracer: our own, and those of others, which are run as programs where they are installed.

None of the others is imported. Several are GPL, some need libraries of their own age, one ends with status 1 when all
went well: so each is a program that is given a file, a time limit and a folder, and is judged by the SWC file that it
writes there.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import write_tiff
from nnunet_neurino.images.foreground import foreground
from nnunet_neurino.images.stack import check_spacing
from nnunet_neurino.swc import Tree, flip_y, join_trees, read_swc, to_micrometres
from nnunet_neurino.tracing.settings import TraceSettings
from nnunet_neurino.tracing.tracer import trace

OWN = "neurino"
_VAA3D = ("vaa3d", "Vaa3D", "Vaa3D-x", "vaa3d-x", "start_vaa3d.sh")
_THRESHOLD = 0.5  # of probabilities, where a program wants a mask
_KIMIMARO_UNIT = 1000.0  # kimimaro takes whole numbers for the voxel size


@dataclass(frozen=True)
class ExternalTracer:
    """A tracer that is a program of its own.

    Attributes:
        name: what ``--tracer`` calls it.
        programs: names of the executable, the first one found on PATH is used.
        remedy: how to get it.
        command: arguments for (program, input file, output folder, spacing z y x).
        outputs: patterns of the SWC files it writes, relative to the folder of the input.
        input_name: name of the input file.
        y_may_be_up: whether some versions count rows from the bottom.
    """

    name: str
    programs: tuple[str, ...]
    remedy: str
    command: Callable[[str, Path, Path, Sequence[float]], list[str]]
    outputs: tuple[str, ...]
    input_name: str = "input.tif"
    y_may_be_up: bool = False

    def find(self) -> str | None:
        """Path of the program, or ``None``."""
        return next((path for name in self.programs if (path := shutil.which(name))), None)


def _vaa3d(plugin: str, function: str, parameters: Sequence[str]) -> Callable[..., list[str]]:
    def command(program: str, source: Path, folder: Path, spacing: Sequence[float]) -> list[str]:
        words = [program, "-x", plugin, "-f", function, "-i", str(source), "-o", str(folder / "output.swc")]
        return _with_display([*words, "-p", *parameters] if parameters else words)

    return command


def _with_display(words: list[str]) -> list[str]:
    """Vaa3D opens a window: without a display it needs a virtual one."""
    xvfb = shutil.which("xvfb-run")
    if os.name == "posix" and not os.environ.get("DISPLAY") and xvfb:
        return [xvfb, "-a", "-s", "-screen 0 640x480x24", *words]
    return words


def _pyneutube(program: str, source: Path, folder: Path, spacing: Sequence[float]) -> list[str]:
    return [program, str(source), "--output-swc", str(folder / "output.swc"), "--overwrite", "--verbose", "0"]


def _kimimaro(program: str, source: Path, folder: Path, spacing: Sequence[float]) -> list[str]:
    unit = _KIMIMARO_UNIT / min(spacing)
    size = ",".join(str(round(s * unit)) for s in reversed(spacing))
    scale = ["--scale", "1.5", "--const", str(int(4 * _KIMIMARO_UNIT)), "--dust", "8", "--fix-borders"]
    # Cell bodies are thicker than neurites by so little that kimimaro's search for them (in nanometres) misleads.
    no_soma = ["--soma-detect", "1e9", "--soma-accept", "1e9"]
    return [program, "forge", str(source), *scale, *no_soma, "--anisotropy", size, "-o", str(folder / "skeletons")]


_VAA3D_REMEDY = (
    "install a release of Vaa3D with its plugins and put its program on PATH (and xvfb-run without a display)"
)
EXTERNAL = (
    ExternalTracer(
        "smarttracing",
        _VAA3D,
        _VAA3D_REMEDY,
        _vaa3d("smartTrace", "smartTrace", ()),
        ("*_smartTracing.swc", "output.swc"),
        y_may_be_up=True,
    ),
    ExternalTracer(
        "app2",
        _VAA3D,
        _VAA3D_REMEDY,
        # No marker, channel 0, threshold 10, whole volume (1 would trace a reduced one), radius from 2D, no GSDT, no
        # gap, branches from 5 voxels, no resampling.
        _vaa3d("vn2", "app2", ("NULL", "0", "10", "0", "1", "0", "0", "5", "0", "0")),
        ("output.swc", "*_app2.swc"),
        y_may_be_up=True,
    ),
    ExternalTracer(
        "neutube",
        _VAA3D,
        _VAA3D_REMEDY,
        _vaa3d("neuTube", "neutube_trace", ("1", "1")),
        ("*_neutube.swc", "output.swc"),
        y_may_be_up=True,
    ),
    ExternalTracer(
        "pyneutube",
        ("pyneutube",),
        "build pyNeuTube in an environment of its own and put its command pyneutube on PATH",
        _pyneutube,
        ("output.swc",),
    ),
    ExternalTracer(
        "kimimaro",
        ("kimimaro",),
        "pip install kimimaro cloud-volume click in an environment of its own and put its command kimimaro on PATH",
        _kimimaro,
        ("skeletons/*.swc",),
        input_name="input.npy",
    ),
)


TRACERS: tuple[str, ...] = (OWN, *(tracer.name for tracer in EXTERNAL))


def trace_with(
    tracer: str,
    volume: NDArray,
    spacing: Sequence[float] = (1, 1, 1),
    image: NDArray | None = None,
    settings: TraceSettings | None = None,
    timeout: float = 3600.0,
) -> Tree:
    """Trace with the tracer of that name (see ``TRACERS``).

    External tracers get the mask or probability map alone: ``image`` and all settings but the unit are for our own.

    Args:
        tracer: "neurino" or the name of an external one.
        volume: (z, y, x) mask, or probabilities from 0 to 1.
        spacing: voxel size (z, y, x) in micrometres.
        image: (z, y, x) raw image.
        settings: of our own tracer.
        timeout: seconds that an external program may take.
    """
    if tracer == OWN:
        return trace(volume, spacing, image, settings)
    tree = trace_external(tracer, volume, spacing, timeout)
    return to_micrometres(tree, spacing) if settings is not None and settings.unit == "micrometre" else tree


def find_external_tracers() -> dict[str, str | None]:
    """Path of each external tracer's program, or ``None`` where it is not installed."""
    return {tracer.name: tracer.find() for tracer in EXTERNAL}


def trace_external(name: str, volume: NDArray, spacing: Sequence[float] = (1, 1, 1), timeout: float = 3600.0) -> Tree:
    """Trace a mask or a probability map with an external program.

    Args:
        name: one of ``find_external_tracers()``.
        volume: (z, y, x) mask, or probabilities from 0 to 1.
        spacing: voxel size (z, y, x) in micrometres.
        timeout: seconds after which the program is ended.

    Returns:
        The tree in voxels (x, y, z); an empty one for an empty mask, which no program is given.

    Raises:
        NeurinoError: the volume is no mask or probability map, or the program is not installed, takes too long, or
            writes no usable SWC file.
    """
    if not 0 < timeout < math.inf:
        raise NeurinoError(f"timeout {timeout:g}: expected seconds above 0")
    tracer = next((t for t in EXTERNAL if t.name == name), None)
    if tracer is None:
        raise NeurinoError(f"tracer {name!r} is unknown: choose one of {', '.join(t.name for t in EXTERNAL)}")
    program = tracer.find()
    if program is None:
        raise NeurinoError(
            f"the tracer {name} is not installed ({' or '.join(tracer.programs)} is not on PATH): {tracer.remedy}"
        )
    volume, spacing = np.asarray(volume), check_spacing(spacing, "the mask")
    mask, probabilities = foreground(volume, _THRESHOLD, _THRESHOLD)
    if not (mask if tracer.input_name.endswith(".npy") else volume > 0).any():
        return Tree.build(np.empty((0, 3)), np.empty(0, dtype=np.int64), unit="voxel")
    with tempfile.TemporaryDirectory(prefix="neurino-trace-") as temporary:
        folder = Path(temporary)
        source = folder / tracer.input_name
        _write(source, mask, volume if probabilities else None)
        said = _run(tracer.command(program, source, folder, spacing), folder, timeout, name)
        files = _written(tracer, folder)
        if not files:
            raise NeurinoError(f"{name} wrote no SWC file; it said: {said or 'nothing'}")
        try:
            tree = join_trees([read_swc(path, allow_empty=True) for path in files])
        except NeurinoError as error:
            raise NeurinoError(f"{name} wrote a file that cannot be used: {error}") from error
    return _into_voxels(tracer, tree, mask, spacing)


def _write(source: Path, mask: NDArray[np.bool_], probabilities: NDArray | None) -> None:
    if source.suffix == ".npy":
        np.save(source, np.asfortranarray(mask.astype(np.uint8).T))  # axes x, y, z
        return
    grey = mask * np.uint8(255)
    if probabilities is not None:
        scale = 255.0 if probabilities.max() < 2 else 1.0
        grey = np.clip(np.rint(probabilities * scale), 0, 255).astype(np.uint8)
    write_tiff(source, grey, compress=False)


def _run(words: list[str], folder: Path, timeout: float, name: str) -> str:
    """Run a program in its own process group; return the end of what it said. Its exit status means nothing."""
    # A file, not a pipe: something that the program leaves running may hold a pipe open for ever.
    with (folder / "said.txt").open("w+b") as said:
        try:
            process = subprocess.Popen(
                words, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
        except OSError as error:
            raise NeurinoError(f"{name} cannot be started ({words[0]}: {error.strerror}); check the program") from error
        try:
            process.wait(timeout)
        except BaseException as error:
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise NeurinoError(
                    f"{name} was ended after {timeout:g} s; trace a smaller volume or allow more time"
                ) from error
            raise
        said.seek(max(said.seek(0, os.SEEK_END) - 4000, 0))
        return " ".join(said.read().decode(errors="replace").split())[-300:]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _written(tracer: ExternalTracer, folder: Path) -> list[Path]:
    """The SWC files of the first pattern that matches, without the initial traces that Vaa3D leaves beside."""
    for pattern in tracer.outputs:
        files = sorted(p for p in folder.glob(pattern) if not p.name.endswith("_ini.swc") and p.stat().st_size)
        if files:
            return files
    return []


def _into_voxels(tracer: ExternalTracer, tree: Tree, mask: NDArray[np.bool_], spacing: Sequence[float]) -> Tree:
    xyz, radii = tree.xyz, tree.radii
    if tracer.name == "kimimaro":
        size = np.array(spacing[::-1]) * (_KIMIMARO_UNIT / min(spacing))
        xyz, radii = xyz / size, radii / size[0]
    tree = Tree(tree.ids, tree.types, xyz, radii, tree.parents, "voxel", tree.findings)
    if tracer.y_may_be_up:
        turned = flip_y(tree, mask.shape[1])
        if _on_foreground(turned, mask) > _on_foreground(tree, mask) + 0.2:
            return turned
    return tree


def _on_foreground(tree: Tree, mask: NDArray[np.bool_]) -> float:
    if not len(tree):
        return 0.0
    voxel = np.rint(tree.xyz[:, ::-1]).astype(int)
    inside = ((voxel >= 0) & (voxel < mask.shape)).all(axis=1)
    return float(mask[tuple(voxel[inside].T)].sum()) / len(tree)
