"""Crossing neurons: how many crossings the tracing joins that it should not, and how many gaps it bridges.

Grows neurons that cross (the kinds below), rasterises them into one mask, traces it clean and with gaps of 3 voxels cut
at random places of each neuron, and counts. What a crossing is and when it is joined is said in
``tests/tracing/crossing_scenes.py``. "crossings joined" counts false joins elsewhere as well, "foreign" is the share of
the cable that is in the tree of another neuron; "whole" are the neurons that are in one traced tree. First come two
fibres in 64^3 that pass each other, each with one gap beside that place or none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "tracing"))

import numpy as np
from crossing_scenes import SMOOTH, Outcome, fibre_scene, fibres_joined, grown_scene, judge

from nnunet_neurino.synth import GrowthSettings, preset
from nnunet_neurino.tracing import trace

_NONE = (0, 0)


def _growth(neurons: int, fibres: int, clearance: float, **shape: object) -> GrowthSettings:
    return GrowthSettings(
        neurons=(neurons, neurons),
        crossings=(fibres, fibres),
        touches=_NONE,
        clearance=clearance,
        **shape,  # type: ignore[arg-type]
    )


KINDS: dict[str, GrowthSettings] = {
    "one neuron": _growth(1, 0, 2.5),
    "2 neurons, 4.0 apart": _growth(2, 0, 4.0),
    "2 neurons, 2.5 apart": _growth(2, 0, 2.5),
    "2 neurons, 1.5 apart": _growth(2, 0, 1.5),
    "neuron, fibre": _growth(1, 1, 2.5),
    "smooth neuron, fibre": _growth(1, 1, 2.5, **SMOOTH),
    "2 neurons, fibre": _growth(2, 1, 2.5),
    "2 neurons, free": _growth(2, 0, -1.0),
    "2 smooth, free": _growth(2, 0, -1.0, **SMOOTH),
    "light-sheet": preset("light-sheet").growth,
}


FIBRES = {
    "2 fibres, overlapping": -1.0,
    "2 fibres, touching": -0.3,
    "2 fibres, 1.0 apart": 1.0,
    "2 fibres, 2.5 apart": 2.5,
}


def percent(part: int, whole: int) -> str:
    """A count, of how many, and its share."""
    share = f"{100 * part / whole:>5.1f} %" if whole else "       "
    return f"{part:>5d}/{whole:<4d}{share}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", metavar="N", type=int, default=20, help="scenes of each kind (default: 20)")
    parser.add_argument("--first", metavar="SEED", type=int, default=0, help="seed of the first scene (default: 0)")
    parser.add_argument(
        "--side", metavar="N", type=int, default=128, help="side of the volumes in voxels (default: 128)"
    )
    parser.add_argument("--gaps", metavar="N", type=int, default=20, help="gaps in each neuron (default: 20)")
    parser.add_argument(
        "--kinds",
        metavar="NAME",
        nargs="*",
        choices=[*FIBRES, *KINDS],
        default=[*FIBRES, *KINDS],
        help="kinds of scenes",
    )
    parser.add_argument("--list", action="store_true", help="also print the seeds of scenes with joined neurons")
    args = parser.parse_args()
    print(f"{'kind':<22}{'gaps':>5}  {'crossings joined':<16}{'foreign':>9}  {'gaps bridged':<17}{'whole':>7}")
    seeds = range(args.first, args.first + args.scenes)
    for kind in [kind for kind in args.kinds if kind in FIBRES]:
        for gaps in (0, 1):
            scenes = [fibre_scene(seed, FIBRES[kind], bool(gaps)) for seed in seeds]
            count = sum(fibres_joined(trees, trace(mask)) for trees, mask in scenes)
            print(f"{kind:<22}{gaps:>5}  {percent(count, len(scenes))}", flush=True)
    for kind in [kind for kind in args.kinds if kind in KINDS]:
        for gaps in (0, args.gaps):
            outcomes: list[Outcome] = []
            joined: list[int] = []
            for seed in seeds:
                outcomes.append(judge(grown_scene(KINDS[kind], (args.side,) * 3, seed, gaps), trace))
                if outcomes[-1].joined:
                    joined.append(seed)
            print(
                f"{kind:<22}{gaps:>5}  "
                + percent(sum(o.joined for o in outcomes), sum(o.crossings for o in outcomes))
                + f"{sum(o.foreign for o in outcomes) / sum(o.cable for o in outcomes):>9.1%}  "
                + percent(sum(o.bridged for o in outcomes), sum(o.gaps for o in outcomes))
                + f"{np.mean([part == 1 for o in outcomes for part in o.parts]):>7.0%}",
                flush=True,
            )
            if args.list and joined:
                print("  joined:", *joined)


if __name__ == "__main__":
    main()
