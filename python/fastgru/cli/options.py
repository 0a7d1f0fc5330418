"""Arguments that several commands share, checks of their values, and JSON output."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from fastgru import conversion, formats
from fastgru._support import checks
from fastgru.cli.data import DIGITS, TASKS
from fastgru.cli.parser import UsageError, expected_one_of
from fastgru.cli.suggestions import did_you_mean, did_you_mean_file
from fastgru.datasets.mnist import DATA_VARIABLE
from fastgru.formats.description import ACTIVATIONS, LayerDescription, list_assumptions, numbered_name
from fastgru.formats.torch.options import POOLINGS, ReadOptions
from fastgru.layers import Rescaling
from fastgru.models.recipes import Option, Settings
from fastgru.models.sequential import Sequential


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


def choice(text: str, choices: Collection[str]) -> str:
    """Return a type for one of the choices, for arguments that accept several of them."""
    if text not in choices:
        raise argparse.ArgumentTypeError(expected_one_of(text, choices))
    return text


def integer(least: int, most: int | None = None) -> Callable[[str], Any]:
    """An integer within limits."""
    return checked(checks.integer, int, least=least, most=most)


def number(**limits: float) -> Callable[[str], Any]:
    """A number within limits, those of `checks.number`."""
    return checked(checks.number, float, **limits)


def several(one: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Return a type for values separated by commas."""
    return lambda text: tuple(map(one, text.split(",")))


# --- Files to read --------------------------------------------------------------------------------------------


def existing(text: str) -> str:
    """A file or folder that must exist; the error names the nearest one in the same folder."""
    _require_existing(text, "an existing file", did_you_mean_file(text, folders=True))
    return text


def model_file(text: str) -> str:
    """A file of a model, or a folder of TensorFlow.js, that must exist."""
    endings = tuple(ending for each in formats.KINDS.values() for ending in each)
    _require_existing(text, "an existing model file", did_you_mean_file(text, endings) or did_you_mean_file(text))
    return text


def existing_folder(text: str) -> str:
    """A folder that must exist."""
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"expected an existing folder, got {text!r}")
    return text


def _require_existing(path: str, expected: str, suggestion: str) -> None:
    if os.path.lexists(path):  # the reader reports any other problem
        return
    folder = os.path.dirname(path) or os.curdir
    missing = "" if os.path.isdir(folder) else f", in the folder {folder} that does not exist"
    raise argparse.ArgumentTypeError(f"expected {expected}, got {path!r}{missing}{suggestion}")


def add_dataset(command: argparse.ArgumentParser) -> Any:
    """Add the arguments for the data to train or evaluate on, and return their group."""
    group = command.add_argument_group("data")
    group.add_argument(
        "dataset",
        nargs="?",
        type=_dataset,
        metavar="DATA",
        help="mnist, synthetic (generated digits), or your own arrays: FILE.npz with the arrays x and y, and "
        "optionally lengths, x_test, y_test and lengths_test, or a folder with x.npy, y.npy and so on (default: mnist, "
        "or synthetic if MNIST is not available)",
    )
    group.add_argument(
        "--data",
        metavar="FOLDER",
        type=existing_folder,
        help=f"the folder with the four files of MNIST (default: the environment variable {DATA_VARIABLE}, then the "
        "cache, then a download)",
    )
    group.add_argument(
        "--task",
        choices=TASKS,
        help="classify: your y are classes, integers from 0; regress: your y are numbers (default: classify if y has "
        "an integer dtype, else regress)",
    )
    return group


def add_scaling(command: Any, default: str) -> None:
    """The option for a number that the input is divided by."""
    command.add_argument(
        "--divide-by",
        type=number(above=0),
        metavar="NUMBER",
        help=f"divide the input by this number in the model's first layer: 255 for the bytes of images ({default})",
    )


def scaled(path: str, model: Sequential, divisor: float | None, dtypes: Mapping[str, np.dtype[Any]]) -> Sequential:
    """Return the model, or one that first divides its input; prints a note if uint8 input is not scaled.

    Parameters
    ----------
    path : str
    model : Sequential
    divisor : float or None
        The value of ``--divide-by``.
    dtypes : mapping of str to dtype
        Name of an input, for messages -> its dtype.
    """
    scales = bool(model.layers) and isinstance(model.layers[0], Rescaling)
    if divisor is None:
        for name, dtype in dtypes.items():
            if dtype == np.uint8 and not scales and not model.layers[0].takes_tokens:
                print(
                    f"fastgru: {name}: uint8 numbers are not scaled because {path} does not begin with Rescaling; use "
                    f"--divide-by 255 if the model was trained on scaled images",
                    file=sys.stderr,
                    flush=True,
                )
        return model
    if scales:
        raise UsageError(
            f"--divide-by: expected none because {path} begins with Rescaling, got {divisor:g}; leave the option out"
        )
    description = model.describe()
    name = numbered_name("Rescaling", description.layers)
    description.layers.insert(0, LayerDescription("Rescaling", name, {"scale": 1 / divisor}))
    changed = Sequential.from_description(description)
    changed.set_states(model.get_states())
    return changed


def _dataset(text: str) -> str:
    if text not in DIGITS:
        suggestion = did_you_mean(text, DIGITS) or did_you_mean_file(text, (".npz",), folders=True)
        _require_existing(text, f"{', '.join(DIGITS)}, an existing .npz file or a folder of .npy files", suggestion)
    return text


# --- Options ----------------------------------------------------------------------------------------------------


def add_json(group: Any, help: str) -> None:
    """The option ``--json``."""
    group.add_argument("--json", action="store_true", help=help)


def add_settings(groups: Mapping[str, Any]) -> None:
    """Add an option for each of a recipe's settings to the group that its `Option` names; None if it is not given."""
    for each in dataclasses.fields(Settings):
        option: Option = each.metadata["option"]
        shown = option.help
        if option.kind is not bool and each.default is not None:
            shown += f" (default: {each.default if option.kind is str else format(each.default, 'g')})"
        arguments: dict[str, Any] = {"help": shown}
        if option.kind is bool:
            arguments["action"] = argparse.BooleanOptionalAction
        elif option.kind is str:
            arguments |= option.limits
        else:
            one = checked(option.check, option.kind)
            arguments |= {"type": several(one) if option.several else one, "metavar": option.metavar}
        groups[option.group].add_argument(f"--{each.name.replace('_', '-')}", **arguments)


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the given options of `add_settings`."""
    values = {each.name: getattr(arguments, each.name) for each in dataclasses.fields(Settings)}
    return {name: value for name, value in values.items() if value is not None}


def add_state_dict_options(command: argparse.ArgumentParser) -> None:
    """The options for what a PyTorch state_dict does not store, those of `fastgru.formats.torch.read`."""
    group = command.add_argument_group(
        "PyTorch state_dicts",
        "A state_dict stores weights, but not how forward() uses them. fastgru prints what it assumes.",
    )
    vectors = group.add_mutually_exclusive_group()
    vectors.add_argument(
        "--return-sequences", action="store_true", help="use the last GRU's output at every step, not at one"
    )
    vectors.add_argument(
        "--pooling",
        choices=POOLINGS,
        help="what the module after the last GRU receives: last_state: its final state h_n; last_step: its output at "
        "the last step; mean or max: over its outputs at all steps",
    )
    group.add_argument(
        "--activations",
        type=_activations,
        metavar="MODULE=NAME[,...]",
        help=f"the activation after each module, one of {', '.join(ACTIVATIONS)}; names without modules stand for the "
        "Linear modules from first to last",
    )
    group.add_argument(
        "--order",
        type=lambda text: text.split(","),
        metavar="MODULE[,...]",
        help="all modules in the order in which forward() calls them",
    )


def _activations(text: str) -> list[str] | dict[str, str]:
    parts = text.split(",")
    if not any("=" in part for part in parts):
        return [_activation(part) for part in parts]
    pairs = [part.rpartition("=") for part in parts]
    if not all(module for module, _, _ in pairs):
        raise argparse.ArgumentTypeError(f"expected MODULE=NAME everywhere or nowhere, got {text!r}")
    return {module: _activation(activation) for module, _, activation in pairs}


def _activation(text: str) -> str:
    return choice(text, ACTIVATIONS)


def state_dict_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the given options of `add_state_dict_options`, for `fastgru.load_model`."""
    names = [each.name for each in dataclasses.fields(ReadOptions)]
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name)}


def as_options(options: Mapping[str, Any]) -> str:
    """Convert arguments of `fastgru.load_model` to options of the command line."""
    words = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            value = [f"{module}={activation}" for module, activation in value.items()]
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [shlex.quote(_with_commas(value))])]
    return " ".join(words)


def _with_commas(value: Any) -> str:
    return value if isinstance(value, str) else ",".join(value)


def load_model(path: str, arguments: argparse.Namespace) -> Sequential:
    """Load a model; assumptions and unsupported parts are printed on standard error."""
    loaded = conversion.load(path, **state_dict_options(arguments))
    if loaded.not_compiled is not None:
        print(f"fastgru: {path}: read without optimizer, loss and metrics: {loaded.not_compiled}", file=sys.stderr)
    if loaded.assumptions:
        lines = [f"fastgru: {path}:", *list_assumptions(loaded.assumptions, as_options)]
        print("\n".join(lines), file=sys.stderr, flush=True)
    return loaded.model


def print_json(**values: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(values), flush=True)
