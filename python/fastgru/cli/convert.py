"""``fastgru convert``: a model file of one kind to another, and the proof that both say the same."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from fastgru import conversion, formats
from fastgru.cli.options import add_state_dict_options, as_options, require_writable, state_dict_options
from fastgru.formats.description import AssumptionWarning, list_assumptions


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    kinds = "; ".join(f"{kind} ({', '.join(endings)})" for kind, endings in formats.KINDS.items())
    command = commands.add_parser(
        "convert",
        help="write a model file as one of another framework's",
        description="Write the model in IN to OUT, after both were run on the same random samples: each by its own "
        "framework, where that is installed, or else by the equations in NumPy. Nothing is written if they differ.",
        epilog=f"Kinds, and how their names end: {kinds}.",
    )
    command.add_argument("source", metavar="IN", help="whose kind shows in its contents")
    command.add_argument("target", metavar="OUT", help="whose kind shows in its name")
    command.add_argument("--from", dest="source_format", choices=formats.KINDS, help="the kind of IN")
    add_state_dict_options(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Convert, and say how far the two files differ."""
    require_writable("OUT", arguments.target)
    kind = arguments.source_format or formats.kind_of_file(arguments.source)
    options = state_dict_options(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)  # what was assumed is printed with the comparison
        compared = conversion.convert(arguments.source, arguments.target, source_format=kind, **options)
    print(f"{arguments.source} ({kind}, run by {compared.source})")
    print(f"{arguments.target} ({formats.kind_of_name(arguments.target)}, run by {compared.target})")
    if compared.left_behind is not None:
        print(f"Without its training: {compared.left_behind}")
    if compared.assumptions:
        print("\n".join(list_assumptions(compared.assumptions, as_options)))
        print("Compared under these assumptions, which the comparison does not confirm:")
    print(f"Largest difference on random samples: {compared.difference:.1e}, outputs up to {compared.largest:.3g}")
