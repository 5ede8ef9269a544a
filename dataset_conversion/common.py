"""What the scripts of this folder share: options, errors in one line, and the call of the converter."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nnunet_neurino.cli.convert import add_output_arguments, add_reading_arguments, convert
from nnunet_neurino.cli.main import in_one_line
from nnunet_neurino.conversion import Case


@dataclass(frozen=True)
class Source:
    """Where a data set comes from; goes into dataset.json.

    Attributes:
        download: address of the data.
        citation: what to cite.
        licence: the data's licence, or who to ask.
    """

    download: str
    citation: str
    licence: str

    def __str__(self) -> str:
        return f"download: {self.download}\ncite:     {self.citation}\nlicence:  {self.licence}"


def parser_for(description: str, source: Source, name: str, **defaults: object) -> argparse.ArgumentParser:
    """A parser with the converter's options, ``--name`` preset and other defaults as given."""
    parser = argparse.ArgumentParser(
        description=f"{description}\n{source}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_output_arguments(parser)
    add_reading_arguments(parser)
    for action in parser._actions:
        if action.dest == "name":
            action.required = False
            action.help = f"nnU-Net's name (default: {name})"
        elif action.dest in defaults and action.help:
            value = defaults[action.dest]
            text = " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
            action.help = f"{action.help.partition(' (default')[0]} (default here: {text})"
    parser.set_defaults(name=name, **defaults)
    return parser


def run(
    parser: argparse.ArgumentParser,
    source: Source,
    cases_of: Callable[[argparse.Namespace], tuple[Sequence[Case], Sequence[str]]],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, find the cases, convert them; the user's errors are one line each."""
    args = parser.parse_args(argv)

    def work() -> int:
        cases, notes = cases_of(args)
        reference = f"{source.download}; {source.citation}"
        return convert(cases, args, notes, licence=source.licence, reference=reference)

    return in_one_line(parser.prog, work)
