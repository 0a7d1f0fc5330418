"""The command line: train, evaluate, predict, convert, info.

Every error is one line on standard error and an exit code, never a traceback: 1 for what went wrong, 2 for a wrong use,
130 for Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import fastgru
from fastgru.cli import convert, evaluate, info, predict, train
from fastgru.cli.options import Parser, as_options
from fastgru.formats.description import UnsaidError

#: What goes wrong in a way that one line explains.
EXPECTED_ERRORS = (OSError, ValueError, TypeError, ArithmeticError, ImportError, MemoryError, RuntimeError)

INTERRUPTED = 130


def _parser() -> Parser:
    parser = Parser(prog="fastgru", description="GRU networks on CPUs: train, evaluate, predict, convert.")
    parser.add_argument("--version", action="version", version=f"fastgru {fastgru.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train.add_to(commands)
    evaluate.add_to(commands)
    predict.add_to(commands)
    convert.add_to(commands)
    info.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except KeyboardInterrupt as interrupt:  # which may carry what has been saved
        print(f"fastgru: interrupted{interrupt}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, e.g. head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED_ERRORS as error:
        text = error.text(as_options) if isinstance(error, UnsaidError) else str(error)
        message = " ".join(text.split()) or type(error).__name__
        print(f"fastgru: {message}", file=sys.stderr)
        return 1
    return 0
