"""The parser of the command line: short errors that name the nearest option, command or choice."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from fastgru.cli.suggestions import did_you_mean

#: Exceptions whose message tells the user what to change; any other is a bug and shows its traceback.
EXPECTED_ERRORS = (OSError, ValueError, TypeError, ArithmeticError, ImportError, MemoryError, RuntimeError)


class UsageError(Exception):
    """The arguments are wrong; raised before the command starts its work."""


@contextlib.contextmanager
def checking() -> Iterator[None]:
    """Context manager that raises expected errors as `UsageError`, which ends the program with exit code 2."""
    try:
        yield
    except EXPECTED_ERRORS as error:
        raise UsageError(str(error) or type(error).__name__) from error


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` for commands whose errors fit on one line.

    It differs from its base class in three ways. An unknown option is reported before anything else is checked, so
    that the value after it is not taken for another argument; the message names the nearest option, or the command
    that has this option. Wrong commands and choices name the nearest one. Options and other arguments may be mixed in
    any order. Options cannot be abbreviated, so that a new option never changes the meaning of a script.

    Attributes
    ----------
    commands : mapping of str to Parser
        All commands of the program, whose options are suggested.
    """

    commands: Mapping[str, Parser]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})
        self.commands = {}

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2; the base class also prints the usage."""
        text = message.removeprefix("argument ")
        self.exit(2, f"{self.prog}: {text} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments of the program or, called by the program's parser, those of a command."""
        if self._subparsers is not None:
            words = list(sys.argv[1:] if args is None else args)
            command = next((index for index, word in enumerate(words) if not _is_option(word)), len(words))
            for word in words[:command]:
                self._require_known(word)
            return super().parse_known_args(words, namespace)
        found, others = super().parse_known_args(self._arrange(args), namespace)
        if others:
            self.error(f"unexpected argument {others[0]!r}")
        return found, others

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise unless `value` is one of the choices of an argument; the base class names no nearest one."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, expected_one_of(value, action.choices))

    def _arrange(self, words: Sequence[str]) -> list[str]:
        """Return the arguments of a command with options last, each option joined with its value by ``=``.

        `argparse` assigns no value to an optional argument such as DATA if an option precedes it.
        """
        arguments: list[str] = []
        options: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "--":
                return [*options, word, *arguments, *rest]
            if not _is_option(word):
                arguments.append(word)
                continue
            action = self._require_known(word)
            takes_value = action.nargs in (None, "?") and "=" not in word
            if takes_value and rest and not _is_option(rest[0]):
                word = f"{word}={rest.pop(0)}"
            options.append(word)
        return arguments + options

    def _require_known(self, word: str) -> argparse.Action:
        """The action of an option, ``--name`` or ``--name=value``, which must be one of this parser's."""
        name = word.partition("=")[0]
        if name not in self._option_string_actions:
            owners = [each.prog for each in self.commands.values() if name in each._option_string_actions]
            remedy = f"; it is an option of {', '.join(owners)}" if owners else ""
            self.error(f"unknown option {name}{remedy or did_you_mean(name, self._option_string_actions)}")
        return self._option_string_actions[name]


def expected_one_of(value: Any, choices: Iterable[Any]) -> str:
    """Return the message for a value that is not one of the choices, without the name of the argument."""
    names = [str(choice) for choice in choices]
    return f"expected one of {', '.join(names)}, got {value!r}{did_you_mean(str(value), names)}"


def _is_option(word: str) -> bool:
    """Whether a word is an option: it begins with a dash, and is neither a number nor a text with spaces."""
    if not re.match(r"--?[^-\d.]|--\d", word):
        return False
    name = word.partition("=")[0]
    return " " not in name and not _is_number(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
