"""``fastgru convert``: a model file of one kind to another, and the proof that both say the same."""

from __future__ import annotations

import argparse
from typing import Any

from fastgru import conversion, formats
from fastgru.cli.options import require_writable


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    command = commands.add_parser(
        "convert",
        help="write a model file as one of another framework's, and compare what both compute",
        epilog="Kinds, by the ends of names: "
        + "; ".join(f"{kind} {', '.join(endings)}" for kind, endings in formats.KINDS.items()),
    )
    command.add_argument("source", metavar="IN", help="whose kind shows in its contents")
    command.add_argument("target", metavar="OUT", help="whose kind shows in its name")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Convert, run both files on random samples, and say how far they differ."""
    require_writable("OUT", arguments.target)
    compared = conversion.convert(arguments.source, arguments.target)
    print(f"{arguments.source} ({formats.kind_of_file(arguments.source)}, run by {compared.source})")
    print(f"{arguments.target} ({formats.kind_of_name(arguments.target)}, run by {compared.target})")
    if compared.left_behind is not None:
        print(f"Without its training: {compared.left_behind}")
    print(f"Largest difference on random samples: {compared.difference:.1e}, outputs up to {compared.largest:.3g}")
    if not compared.agrees:
        raise ValueError(f"{arguments.target}: does not compute what {arguments.source} does")
