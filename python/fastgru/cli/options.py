"""What the commands have in common: a parser with short errors, checked options, JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from fastgru import checks
from fastgru.cli.data import DIGITS, TASKS
from fastgru.datasets.mnist import DATA_VARIABLE
from fastgru.files import replaceable


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """One line instead of the usage and a line."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def checked(check: Callable[..., Any], convert: type, **limits: Any) -> Callable[[str], Any]:
    """A type for argparse that applies one of the package's own checks."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            expected = "an integer" if convert is int else "a number"
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None
        try:
            return check("", value, **limits)
        except (ValueError, TypeError) as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(": ")) from None

    return parse


def integer(least: int, most: int | None = None) -> Callable[[str], Any]:
    """An integer within limits."""
    return checked(checks.integer, int, least=least, most=most)


def number(**limits: float) -> Callable[[str], Any]:
    """A number within limits, those of `checks.number`."""
    return checked(checks.number, float, **limits)


def integers(least: int) -> Callable[[str], tuple[int, ...]]:
    """Integers with commas between them."""
    one = integer(least)
    return lambda text: tuple(one(part) for part in text.split(","))


def add_dataset(command: argparse.ArgumentParser) -> None:
    """The arguments that say what to train or evaluate on."""
    command.add_argument(
        "dataset",
        nargs="?",
        type=_dataset,
        metavar="DATA",
        help="mnist, synthetic, or your own arrays x and y (and lengths, x_test, y_test): FILE.npz, or a folder with "
        "x.npy and so on; without it, MNIST where it can be had and otherwise synthetic digits",
    )
    command.add_argument(
        "--data", metavar="FOLDER", help=f"folder with MNIST's files (else {DATA_VARIABLE}, the cache, a download)"
    )
    command.add_argument(
        "--task",
        choices=TASKS,
        help="whether your y are classes or numbers; if not given, integers are classes",
    )
    command.add_argument("--json", action="store_true", help="end with one line of JSON")


def _dataset(text: str) -> str:
    if text in DIGITS or text.lower().endswith(".npz") or os.sep in text or Path(text).exists():
        return text
    raise argparse.ArgumentTypeError(
        f"invalid choice: {text!r} (choose from {', '.join(map(repr, DIGITS))}, an .npz file, a folder of .npy files)"
    )


def require_writable(option: str, path: str | None) -> None:
    """Find out before the work, not after, that a result cannot be written."""
    if path is None:
        return
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{option}: expected a file to write, got the folder {path}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{option}: expected a file in an existing folder, got {path}")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"{option}: the folder of {path} cannot be written to")
    replaceable(path)


def print_json(**values: Any) -> None:
    """One line of JSON."""
    print(json.dumps(values), flush=True)
