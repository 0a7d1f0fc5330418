"""``fastgru convert``: convert a model file to another format, and compare the outputs of both files."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

from fastgru import conversion, formats
from fastgru.cli.options import add_state_dict_options, as_options, model_file, state_dict_options
from fastgru.cli.parser import checking
from fastgru.cli.targets import require_model_target
from fastgru.formats.description import AssumptionWarning, list_assumptions


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    formats_and_endings = "; ".join(f"{kind} ({', '.join(endings)})" for kind, endings in formats.KINDS.items())
    command = commands.add_parser(
        "convert",
        help="convert a model file to the format of another framework",
        description="Convert the model in IN to OUT. Both files are first run on the same random samples: each by its "
        "own framework if that is installed, otherwise by the equations in NumPy. OUT is not written if the results "
        "differ.",
        epilog=f"Formats and their endings: {formats_and_endings}.",
    )
    command.add_argument(
        "source", metavar="IN", type=model_file, help="the model file to read; its contents decide the format"
    )
    command.add_argument("target", metavar="OUT", help="the file to write; its ending decides the format")
    command.add_argument(
        "--from",
        dest="source_format",
        choices=formats.KINDS,
        help="the format of IN, for files whose contents do not show it (default: detected)",
    )
    add_state_dict_options(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Convert, and print how far the outputs of the two files differ."""
    with checking():
        require_model_target("OUT", arguments.target)
    kind = arguments.source_format or formats.kind_of_file(arguments.source)
    options = state_dict_options(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)  # the assumptions are printed below
        compared = conversion.convert(arguments.source, arguments.target, source_format=kind, **options)
    print(f"{arguments.source} ({kind}, run by {compared.source})")
    print(f"{arguments.target} ({formats.kind_of_name(arguments.target)}, run by {compared.target})")
    if compared.left_behind is not None:
        print(f"Without optimizer, loss and metrics: {compared.left_behind}")
    if compared.assumptions:
        print("\n".join(list_assumptions(compared.assumptions, as_options)))
        print("Compared under these assumptions, which the comparison does not confirm:")
    print(f"Largest difference on random samples: {compared.difference:.1e}, outputs up to {compared.largest:.3g}")
