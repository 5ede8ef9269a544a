"""Feed damaged SWC files and image stacks to every command: no traceback, no crash, no hang, bounded memory.

Every case is a good or bad file (built in; more from --seeds) damaged in a few places: bytes flipped, removed, doubled,
cut off, replaced by numbers and tokens that break parsers. The file is given to all commands that take its kind,
beside good partners; SWC files go through all functions of ``nnunet_neurino.swc`` as well. A command may refuse a file
in one line and end with status 1; anything else is a failure: another exception, a warning, a process that dies, more
than 10 s, more than 2 GB. Case k is the same in every run.

Example:
  python benchmarks/fuzz.py --files 2000 --stacks 1000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import SimpleITK
import tifffile

from nnunet_neurino.cli.main import main as neurino
from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.images import write_tiff
from nnunet_neurino.swc import (
    Tree,
    crop,
    inspect_swc,
    merge_touching,
    portable_types,
    prune,
    rasterise,
    read_swc,
    repair_radii,
    resample,
    write_swc,
)

SEEDS: tuple[bytes, ...] = (
    b"1 1 4 4 4 1 -1\n2 3 8 4 4 0.5 1\n3 3 12 4.5 4 0.5 2\n4 3 8 9 4 0.25 2\n",
    b"# a comment\r\n1\t2\t0.0\t0.0\t0.0\t6\t0\r\n2\t2\t1\t0\t1\t6\t1\r\n",
    b"1,1,4.5,4,4,1,-1\n2,3,8,4,4,0.5,1\n",
    b"97389 2 245.160 251.316 22.772 1.000 97388\n97390 2 245.352 246.708 23.700 1.000 97389\n",
    b"1 3 1 1 1 1 -1\n2 3 9 1 1 1 1\n3 3 9 1 1 1 -1\n4 3 9 7 1 1 3\n5 3 5 1 1 0 -1\n6 3 5 1 6 0 5\n",
    b"\xef\xbb\xbf2 2 3 7 3 0.6 3 0 22 618 0\n3 2 2 8 3 0.6 4 0 22 618 0\n4 2 3 10 4 0.6 -1 0 22 618 0\n",
    b"4 3 0 0 4 0.5 3\n4 3 0 0 4 0.5 3 # again\n3 3 0 0 3 NA 2\n2 3 0 0 2 nan 1\n1 1 0 0 1 0.5 -1\n",
    b"id type x y z radius parent\n1 1 1,5 2,5 3 1 -1\n2 1 2,5 3,5 3 1 1\n",
    "# in \u00b5m\n1 1 4 4 4 1 -1\n2 2 1e1 4 4 1e0 1\n".encode("latin-1"),
    "1 1 4 4 4 1 -1\n2 3 8 4 4 1 1\n".encode("utf-16"),
)
TOKENS: tuple[bytes, ...] = (
    *(b"nan inf -inf NA 1e308 -1e308 1e400 5e-324 -0.0 0 -1 -2 1 2 3 9223372036854775807 9223372036854775808".split()),
    *(b"-9223372036854775808 9007199254740993 1e18 0.5 1_0 0x10 1,5 +3 --1 . - # ; , \\N".split()),
    *b"600 999 -2000 5e4 1e5 1e7 9e8 -9e8".split(),  # what is large, but not too large to be refused
    *(b"\0", b"\x1a", b"\n", b"\r", b"\r\n", b"\t", b" ", b"\xa0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x85", b"\x0b"),
    *(b"\n7 2 1 2 3 1 6\n", b"\n1 1 4 4 4 1 2\n", b"\n# unit: micrometre\n", b"9" * 400, b"1" * 70000),
)
CASE_SECONDS = 10.0
MOST_BYTES = 2 * 10**9
SHAPE = (12, 24, 30)  # of all stacks, z, y, x
# What is done with a damaged SWC file; view takes a second, so it comes last.
SWC_JOBS = ("library", "check", "evaluate it", "evaluate by it", "evaluate a mask by it", "convert", "view", "view it")
STACK_JOBS = ("check", "trace", "trace along it", "evaluate it", "convert", "view")


def damaged_swc(seeds: list[bytes], case: int) -> bytes:
    """SWC file number ``case``: one seed with up to six damages (the first cases are the seeds themselves)."""
    if case < len(seeds):
        return seeds[case]
    rng = random.Random(case)
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.choice((1, 2, 5, 40))]
        elif kind == 2:
            data[at:at] = rng.choice(TOKENS)
        elif kind == 3:  # replace a field
            fields = bytes(data).split(b" ")
            fields[rng.randrange(len(fields))] = rng.choice(TOKENS)
            data = bytearray(b" ".join(fields))
        elif kind == 4:  # double a line elsewhere
            lines = bytes(data).splitlines(keepends=True) or [b""]
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            data = bytearray(b"".join(lines))
        elif kind == 5:
            data = data[:at]
        else:
            data += rng.choice(seeds)
    return bytes(data)


def stack_seeds(folder: Path, voxels: np.ndarray) -> dict[str, bytes]:
    """A good file of every format, by name, of ``voxels`` (z, y, x) uint16."""
    small, (z, y, x) = voxels.astype(np.uint8), voxels.shape
    write_tiff(folder / "zlib.tif", voxels, (2, 1, 1))
    tifffile.imwrite(folder / "plain.tif", voxels, imagej=True, metadata={"axes": "ZYX", "unit": "um", "spacing": 2})
    tifffile.imwrite(folder / "lzw.tif", small, compression="lzw", bigtiff=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "ome.ome.tif", voxels, ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 1.0})
    for ending in (".nii", ".nrrd", ".mha"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(folder / f"a{ending}"))
    sizes = struct.pack("<h4i", 2, x, y, z, 1)
    (folder / "a.v3draw").write_bytes(b"raw_image_stack_by_hpengL" + sizes + voxels.tobytes())
    literal = b"".join(bytes([x - 1]) + row.tobytes() for row in voxels.reshape(-1, x))
    (folder / "a.v3dpbd").write_bytes(b"v3d_volume_pkbitdf_encodL" + sizes + literal)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def damaged_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """``data`` with one to five damages."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, len(changed)))
        kind = rng.integers(0, 5)
        if kind == 0:
            changed[at] = int(rng.integers(0, 256))
        elif kind == 1:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            changed[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\1\0\0\0"])
        elif kind == 3:
            del changed[at : at + int(rng.integers(1, 20))]
        else:
            changed[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 8)), dtype=np.uint8))
        if not changed:
            return b""
    return bytes(changed)


def damaged_stack(seeds: dict[str, bytes], case: int) -> tuple[str, bytes]:
    """Name and bytes of stack number ``case``; half of the damage goes into the header, where it matters most."""
    name, rng = sorted(seeds)[case % len(seeds)], np.random.default_rng(case)
    data = seeds[name]
    return name, damaged_bytes(data[:400], rng) + data[400:] if rng.random() < 0.5 else damaged_bytes(data, rng)


def _check_refusal(message: str, path: str) -> None:
    assert message.strip(), "a refusal must say something"
    assert "\n" not in message, "a refusal must be one line"
    assert path in message, "a refusal must name the file"


def exercise(data: bytes, folder: Path) -> str:
    """Run one file through ``nnunet_neurino.swc``; returns "read" or "refused", raises any other error."""
    path = folder / "case.swc"
    path.write_bytes(data)
    try:
        tree = read_swc(path)
    except NeurinoError as error:
        _check_refusal(str(error), str(path))
        return "refused"
    inspect_swc(path)
    try:
        assert read_swc(path, strict=True) == tree
    except NeurinoError:
        assert any(finding.mended for finding in tree.findings)
    write_swc(tree, folder / "again.swc")
    again = read_swc(folder / "again.swc", strict=True)
    assert again == tree, "read(write(tree)) differs"
    merged = merge_touching(tree)
    assert merged.n_pieces <= tree.n_pieces
    portable_types(repair_radii(tree))
    for step in (
        lambda: resample(tree, 0.7),
        lambda: prune(tree, 2.0),
        lambda: crop(tree, (0, 0, 0), (6, 6, 6)),
        lambda: rasterise(tree, (8, 9, 10), (2.5, 1, 1)),
        lambda: rasterise(tree, (8, 9, 10), mode="distance"),
    ):
        try:
            step()
        except NeurinoError as error:
            _check_refusal(str(error), "")
    return "read"


class Commands:
    """The commands, and good files to give them beside the damaged one."""

    def __init__(self, folder: Path) -> None:
        """Make the files in ``folder``."""
        self.folder = folder
        for name in ("seeds", "masks"):
            (folder / name).mkdir()
        x = np.linspace(3, 27, 40)
        tree = Tree.build(np.stack([x, 12 + 6 * np.sin(x / 5), 3 + x / 5], axis=1), np.arange(40) - 1, radii=1.3)
        mask = rasterise(tree, SHAPE)
        rng = np.random.default_rng(0)
        write_swc(tree, folder / "good.swc")
        write_tiff(folder / "mask.tif", mask, (1, 1, 1))
        write_tiff(folder / "image.tif", (100 + 2000 * mask + rng.integers(0, 200, SHAPE)).astype(np.uint16), (1, 1, 1))
        self.images = stack_seeds(folder / "seeds", tifffile.imread(folder / "image.tif"))
        self.masks = stack_seeds(folder / "masks", mask.astype(np.uint16))
        self.tree = (folder / "good.swc").read_bytes()

    def damaged_swc(self, seeds: Sequence[bytes], case: int) -> Path:
        """Write SWC file number ``case``."""
        path = self.folder / "case.swc"
        path.write_bytes(damaged_swc([*seeds, *[self.tree] * len(seeds)], case))
        return path

    def damaged_stack(self, case: int, mask: bool) -> Path:
        """Write stack number ``case``."""
        name, data = damaged_stack(self.masks if mask else self.images, case)
        path = self.folder / f"case-{name}"
        path.write_bytes(data)
        return path

    def do(self, job: str, path: Path) -> None:
        """Give the damaged file to a command; raises what no command may raise."""
        if job == "library":
            exercise(path.read_bytes(), self.folder)
            return
        good, mask, image, out = (str(self.folder / n) for n in ("good.swc", "mask.tif", "image.tif", "out"))
        bad = str(path)
        command = {
            "check": ["check", bad],
            "trace": ["trace", bad, "-o", f"{out}.swc"],
            "trace along it": ["trace", mask, "--image", bad, "-o", f"{out}.swc"],
            "evaluate it": ["evaluate", bad, good if path.suffix == ".swc" else mask],
            "evaluate by it": ["evaluate", good, bad],
            "evaluate a mask by it": ["evaluate", mask, bad],
            "view": ["view", "--image", image, "--truth", mask, "--tree", bad, "-o", f"{out}.png"]
            if path.suffix == ".swc"
            else ["view", "--image", bad, "--truth", good, "-o", f"{out}.png"],
            "view it": ["view", "--tree", bad, "--truth", good, "-o", f"{out}.png"],
            "convert": [
                *["convert", "--dataset-id", "7", "--name", "T", "--overwrite", "--workers", "1"],
                "--pairs",
                f"{out}.csv",
            ],
        }[job]
        command += ["--dataset-id", "7", "--name", "T", "--workers", "1"] if job == "convert" else []
        pair = (image, bad) if path.suffix == ".swc" else (bad, good)
        Path(f"{out}.csv").write_text("image,tracing\n{},{}\n".format(*pair))
        printed, said = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
            status = neurino(command)
        assert status in (0, 1), f"status {status}: {said.getvalue()}"
        assert status == 0 or printed.getvalue() + said.getvalue(), "refused without a word"


class TooSlow(BaseException):
    """A case took more time than it may; no command catches this."""


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    """Raise TooSlow after the time that a case may take."""

    def too_slow(*_: object) -> None:
        raise TooSlow(f"more than {CASE_SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def attempt(work: Callable[[], object]) -> str:
    """Do it; returns what went wrong, or nothing. Warnings count."""
    try:
        with alarm(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            work()
    except (Exception, TooSlow):
        return traceback.format_exc()
    return ""


def plan(files: int, stacks: int, every: int = 0) -> list[tuple[str, int, str]]:
    """Kind, number and job of each case: each file to all jobs, or, with ``every``, to one, each Nth time to view."""
    cases = []
    for kind, count, jobs in (("swc", files, SWC_JOBS), ("stack", stacks, STACK_JOBS)):
        quick = [job for job in jobs if not job.startswith("view")]
        slow = [job for job in jobs if job.startswith("view")]
        for case in range(count):
            if not every:
                cases += [(kind, case, job) for job in jobs]
            elif case % every == every - 1:
                cases.append((kind, case, slow[case // every % len(slow)]))
            else:
                cases.append((kind, case, quick[case % len(quick)]))
    return cases


def one(commands: Commands, seeds: Sequence[bytes], kind: str, case: int, job: str) -> str:
    """Do one case; returns what went wrong, or nothing."""
    path = (
        commands.damaged_swc(seeds, case)
        if kind == "swc"
        else commands.damaged_stack(case, job in ("trace", "evaluate it"))
    )
    return attempt(lambda: commands.do(job, path))


def worker(pipe: Connection, seeds: Sequence[bytes], cases: Sequence[tuple[str, int, str]], folder: Path) -> None:
    """Do the cases one by one, and tell after each what went wrong, its seconds, and the most memory so far."""
    resource.setrlimit(resource.RLIMIT_AS, (4 * MOST_BYTES, 4 * MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    commands = Commands(folder)
    for kind, case, job in cases:
        start = time.process_time()
        wrong = one(commands, seeds, kind, case, job)
        pipe.send((wrong, time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def run(seeds: Sequence[bytes], cases: Sequence[tuple[str, int, str]]) -> tuple[list[str], float]:
    """All cases in a process that is started again when it dies or hangs; the failures, and the longest seconds."""
    failures, longest, done = [], 0.0, 0
    context = multiprocessing.get_context("spawn")
    while done < len(cases):
        ours, theirs = context.Pipe()
        folder = Path(tempfile.mkdtemp())
        process = context.Process(target=worker, args=(theirs, seeds, cases[done:], folder))
        process.start()
        theirs.close()
        started, first = False, done
        while done < len(cases):
            try:
                if not ours.poll(10 * CASE_SECONDS if started else 60 + 10 * CASE_SECONDS):
                    raise TimeoutError("it hangs: the process had to be ended")
                wrong, seconds, memory = ours.recv()
                longest = max(longest, seconds)
                if memory > MOST_BYTES:
                    wrong += f"{memory / 1e9:.1f} GB of memory"
            except (EOFError, TimeoutError) as error:
                wrong, memory = f"{error or 'the process died'}", MOST_BYTES + 1
            started = True
            if wrong:
                failures.append(f"{' '.join(map(str, cases[done]))}: {wrong}")
                print("---", failures[-1], flush=True)
            done += 1
            if done % 500 == 0:
                print(f"{done} of {len(cases)} runs, {len(failures)} failures", flush=True)
            if memory > MOST_BYTES:
                break
        process.kill()
        process.join()
        shutil.rmtree(folder, ignore_errors=True)
        assert done > first
    return failures, longest


def main() -> int:
    """Parse the command line, run, print a summary; 1 when a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="damaged SWC files (default: %(default)s)")
    parser.add_argument("--stacks", type=int, default=1000, help="damaged stacks (default: %(default)s)")
    parser.add_argument("--jobs", nargs="+", help=f"only some of: {', '.join(dict.fromkeys(SWC_JOBS + STACK_JOBS))}")
    parser.add_argument("--seeds", type=Path, help="folder of SWC files up to 20 kB to damage as well")
    options = parser.parse_args()
    seeds = list(SEEDS)
    if options.seeds:
        seeds += [p.read_bytes() for p in sorted(options.seeds.rglob("*.*swc")) if p.stat().st_size < 20_000]
    cases = [c for c in plan(options.files, options.stacks) if not options.jobs or c[2] in options.jobs]
    began = time.perf_counter()
    failures, longest = run(seeds, cases)
    runs = Counter(job for _, _, job in cases)
    print(f"{options.files} SWC files and {options.stacks} stacks in {time.perf_counter() - began:.0f} s: {dict(runs)}")
    print(f"{len(failures)} failures; the longest run took {longest:.1f} s of CPU time")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
