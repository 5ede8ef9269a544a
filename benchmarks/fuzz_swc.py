"""Feed damaged SWC files to the reader and all that follows it: only NeurinoError may come out, in bounded time.

Every case is a seed file (good and bad ones, built in; more from --seeds) damaged in a few places: bytes flipped,
removed, doubled, replaced by numbers and tokens that break parsers. A file that is read goes on through writing and
reading back (which must give the same tree), merging, resampling, pruning, cropping and rasterising. Warnings count
as failures. Case k is the same in every run.

Example:
  python benchmarks/fuzz_swc.py --cases 20000
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from nnunet_neurino.errors import NeurinoError
from nnunet_neurino.swc import (
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
    *(b"\0", b"\x1a", b"\n", b"\r", b"\r\n", b"\t", b" ", b"\xa0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x85", b"\x0b"),
    *(b"\n7 2 1 2 3 1 6\n", b"\n1 1 4 4 4 1 2\n", b"\n# unit: micrometre\n", b"9" * 400, b"1" * 70000),
)
CASE_SECONDS = 10.0


def damaged(seeds: list[bytes], case: int) -> bytes:
    """Case number ``case``: one seed with up to six damages (the first cases are the seeds themselves)."""
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


def run(cases: int, seeds: list[bytes], progress: bool = False) -> tuple[Counter[str], list[tuple[int, str]]]:
    """All cases from 0; returns how many were read or refused, and number and traceback of the failures."""
    counts: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []

    def too_slow(*_: object) -> None:
        raise TimeoutError(f"case took more than {CASE_SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_slow)
    try:
        with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
            warnings.simplefilter("error")
            for case in range(cases):
                signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
                try:
                    counts[exercise(damaged(seeds, case), Path(name))] += 1
                except Exception:
                    failures.append((case, traceback.format_exc()))
                signal.setitimer(signal.ITIMER_REAL, 0)
                if progress and (case + 1) % 2000 == 0:
                    print(f"{case + 1} cases, {len(failures)} failures", flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return counts, failures


def main() -> int:
    """Parse the command line, run, print a summary; 1 when a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20000, help="number of damaged files (default: %(default)s)")
    parser.add_argument("--seeds", type=Path, help="folder of SWC files up to 20 kB to damage as well")
    options = parser.parse_args()
    seeds = list(SEEDS)
    if options.seeds:
        seeds += [p.read_bytes() for p in sorted(options.seeds.rglob("*.*swc")) if p.stat().st_size < 20_000]
    began = time.perf_counter()
    counts, failures = run(options.cases, seeds, progress=True)
    seconds = time.perf_counter() - began
    print(f"{options.cases} cases of {len(seeds)} seeds in {seconds:.0f} s: {dict(counts)}, {len(failures)} failures")
    for case, text in failures[:10]:
        print(f"--- case {case}\n{text}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
