"""The ``neurino`` command: finds the subcommand, runs it, and turns user errors into one line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from nnunet_neurino import __version__
from nnunet_neurino.errors import NeurinoError

# name -> one line for `neurino --help`. The module of a subcommand (dashes become underscores) has
# `EXAMPLE`, `add_arguments(parser)` and `run(args) -> int` and is imported only when it is called.
COMMANDS = {
    "demo": "generate neurons, train, predict, trace, score, and write one page about it",
    "synth": "generate neurons: image stacks with exact tracings and masks",
    "convert": "SWC + image stacks -> an nnU-Net raw data set, mended, checked and looked at",
    "check": "look for trouble in SWC files and image stacks without converting them",
    "plan": "plan and preprocess an nnU-Net data set for NeurINO (nnUNetNeurINOPlans)",
    "train": "nnUNetv2_train with epochs, learning rate and batch size from the command line",
    "trace": "mask or probability map -> SWC tree",
    "evaluate": "score masks and SWC trees, files or folders",
    "view": "pictures and one HTML page: overlays, trees, training curves, features",
    "weights": "list, check and convert 2D DINOv3 weights",
    "import-checkpoint": "turn a model trained with the released NeurINO code into an nnU-Net v2 model folder",
    "doctor": "what is installed, what nnU-Net will find, and the remedy for what is wrong",
}


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"nnunet_neurino.cli.{command.replace('-', '_')}")


def _top_parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:<{width}}  {line}" for name, line in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="neurino",
        description="3D neuron segmentation and reconstruction with nnU-Net.",
        usage="neurino COMMAND [options]",
        epilog=f"commands:\n{listing}\n\nexample:\n  neurino doctor\n  neurino COMMAND --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"neurino {__version__}")
    parser.add_argument("command", metavar="COMMAND", choices=COMMANDS, help="one of the commands below")
    return parser


def _command_parser(command: str, module: ModuleType) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"neurino {command}",
        description=module.__doc__,
        epilog=f"example:\n{module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``neurino`` with ``argv`` (default: the process's arguments) and return the exit status.

    0 means done, 1 that some or all of the input was refused (one line on stderr says which and why), 2 wrong
    usage, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = _top_parser().parse_args(arguments[:1]).command

    def work() -> int:
        module = _module(command)
        return int(module.run(_command_parser(command, module).parse_args(arguments[1:])) or 0)

    return in_one_line(f"neurino {command}", work)


def in_one_line(program: str, work: Callable[[], int]) -> int:
    """Do ``work`` and return its exit status; what the user can put right is one line, without a traceback."""
    try:
        return work()
    except NeurinoError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{program}: interrupted; running it again goes on where it can", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError as error:
        print(f"{program}: not enough memory ({error or 'none is left'}); cut the volumes into blocks", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{program}: {where}{error.strerror or error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
