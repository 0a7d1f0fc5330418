"""The command line: train, evaluate, predict, convert, info.

An error is one line on standard error and an exit code, without a traceback. The exit code is 2 for wrong arguments,
which are reported before any work begins, 1 for other errors, and 130 for Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import fastgru
from fastgru.cli import convert, evaluate, info, predict, train
from fastgru.cli.options import as_options
from fastgru.cli.parser import EXPECTED_ERRORS, Parser, UsageError
from fastgru.formats.description import AmbiguousFileError

INTERRUPTED = 130


def _parser() -> Parser:
    parser = Parser(prog="fastgru", description="Train, evaluate and convert GRU networks on CPUs.")
    parser.add_argument("--version", action="version", version=f"fastgru {fastgru.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    train.add_to(commands)
    evaluate.add_to(commands)
    predict.add_to(commands)
    convert.add_to(commands)
    info.add_to(commands)
    for each in (parser, *commands.choices.values()):
        each.commands = commands.choices
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    formatwarning, warnings.formatwarning = warnings.formatwarning, _warning_line
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
    except UsageError as error:
        command = f"fastgru {arguments.command}"
        print(f"{command}: {_one_line(error)} (see {command} --help)", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:  # its text names the saved file
        print(f"fastgru: interrupted{interrupt}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output, such as head, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED_ERRORS as error:
        print(f"fastgru: {_one_line(error)}", file=sys.stderr)
        return 1
    finally:
        warnings.formatwarning = formatwarning
    return 0


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as the command prints it: without the place in the source code, which no user of it has written."""
    del category, filename, lineno, line
    return f"fastgru: warning: {' '.join(str(message).split())}\n"


def _one_line(error: Exception) -> str:
    text = error.text(as_options) if isinstance(error, AmbiguousFileError) else str(error)
    return " ".join(text.split()) or type(error).__name__
