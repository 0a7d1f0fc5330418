"""What the commands have in common: a parser with short errors, checked options, JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fastgru._support import checks
from fastgru._support.files import replaceable
from fastgru.cli.data import DIGITS, TASKS
from fastgru.datasets.mnist import DATA_VARIABLE
from fastgru.formats.description import ACTIVATIONS, list_assumptions
from fastgru.formats.torch.options import POOLINGS, ReadOptions
from fastgru.models.loading import read_model
from fastgru.models.recipes import Option, Settings
from fastgru.models.sequential import Sequential


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


def several(one: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Values with commas between them."""
    return lambda text: tuple(map(one, text.split(",")))


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


def add_settings(groups: Mapping[str, Any]) -> None:
    """An argument for each of a recipe's settings, in the group of its `Option`; None if it is not given."""
    for each in dataclasses.fields(Settings):
        option: Option = each.metadata["option"]
        shown = option.help
        if option.kind is not bool and each.default is not None:
            shown += f" (default: {each.default if option.kind is str else format(each.default, 'g')})"
        arguments: dict[str, Any] = {"help": shown.strip()}
        if option.kind is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        elif option.kind is str:
            arguments |= option.limits
        else:
            one = checked(option.check, option.kind)
            arguments |= {"type": several(one) if option.several else one, "metavar": option.metavar}
        groups[option.group].add_argument(f"--{each.name.replace('_', '-')}", **arguments)


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of `add_settings` that were given."""
    values = {each.name: getattr(arguments, each.name) for each in dataclasses.fields(Settings)}
    return {name: value for name, value in values.items() if value is not None}


def add_state_dict_options(command: argparse.ArgumentParser) -> None:
    """The options for what a state_dict of PyTorch leaves open, those of `fastgru.formats.torch.read`."""
    group = command.add_argument_group("what a state_dict of PyTorch leaves open")
    vectors = group.add_mutually_exclusive_group()
    vectors.add_argument("--return-sequences", action="store_true", help="keep every step of the last GRU's output")
    vectors.add_argument(
        "--pooling",
        choices=POOLINGS,
        help="what follows the last GRU receives: its last state (h_n), its output at the last step, or the mean or "
        "maximum of its outputs over the steps",
    )
    group.add_argument(
        "--activations",
        type=_activations,
        metavar="MODULE=NAME[,...]",
        help=f"after a module: {', '.join(ACTIVATIONS)}; names alone are those after the Linears, first to last",
    )
    group.add_argument(
        "--order", type=lambda text: text.split(","), metavar="MODULE[,...]", help="the modules, first to last"
    )


def _activations(text: str) -> list[str] | dict[str, str]:
    parts = text.split(",")
    if not any("=" in part for part in parts):
        return [_activation(part) for part in parts]
    pairs = [part.rpartition("=") for part in parts]
    if not all(module for module, _, _ in pairs):
        raise argparse.ArgumentTypeError(f"expected MODULE=NAME everywhere or nowhere, got {text!r}")
    return {module: _activation(activation) for module, _, activation in pairs}


_activation = checked(checks.choice, str, choices=ACTIVATIONS)


def state_dict_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of `add_state_dict_options` that were given, for `fastgru.load_model`."""
    names = [each.name for each in dataclasses.fields(ReadOptions)]
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name)}


def as_options(options: Mapping[str, Any]) -> str:
    """Arguments of `fastgru.load_model` as options of the command line."""
    words = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            value = [f"{module}={activation}" for module, activation in value.items()]
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [shlex.quote(_with_commas(value))])]
    return " ".join(words)


def _with_commas(value: Any) -> str:
    return value if isinstance(value, str) else ",".join(value)


def load_model(path: str, arguments: argparse.Namespace) -> Sequential:
    """The model in a file; what has to be assumed of it is printed on standard error, with the options to pass."""
    model, assumptions = read_model(path, **state_dict_options(arguments))
    if assumptions:
        print("\n".join([f"fastgru: {path}:", *list_assumptions(assumptions, as_options)]), file=sys.stderr, flush=True)
    return model


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
