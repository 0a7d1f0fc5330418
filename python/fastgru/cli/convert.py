"""``fastgru convert``: a model file of one kind to another, and the proof that both say the same."""

from __future__ import annotations

import argparse
from typing import Any

from fastgru import conversion, formats
from fastgru.cli.options import require_writable
from fastgru.layers.dense import ACTIVATIONS


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
    pytorch = command.add_argument_group("what a state_dict of PyTorch's leaves open")
    pytorch.add_argument(
        "--return-sequences", action="store_true", help="the last GRU gives each step's state, not the last one"
    )
    pytorch.add_argument(
        "--activations",
        type=lambda text: text.split(","),
        metavar="NAME[,NAME...]",
        help=f"of the Linears, from the first to the last: {', '.join(ACTIVATIONS)}",
    )
    pytorch.add_argument(
        "--order", type=lambda text: text.split(","), metavar="NAME[,NAME...]", help="the modules, first to last"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Convert, and say how far the two files differ."""
    require_writable("OUT", arguments.target)
    names = ("return_sequences", "activations", "order")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    kind = arguments.source_format or formats.kind_of_file(arguments.source)
    compared = conversion.convert(arguments.source, arguments.target, source_format=kind, **options)
    print(f"{arguments.source} ({kind}, run by {compared.source})")
    print(f"{arguments.target} ({formats.kind_of_name(arguments.target)}, run by {compared.target})")
    if compared.left_behind is not None:
        print(f"Without its training: {compared.left_behind}")
    print(f"Largest difference on random samples: {compared.difference:.1e}, outputs up to {compared.largest:.3g}")
