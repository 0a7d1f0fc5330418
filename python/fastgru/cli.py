"""The command line: train, evaluate, predict, info.

Every error is one line on standard error and an exit code, never a traceback: 1 for what went wrong, 2 for a wrong use,
130 for Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

import fastgru
from fastgru import _native, checks, datasets, images, layers, optimizers, plotting
from fastgru.datasets.mnist import DATA_VARIABLE, DataUnavailableError
from fastgru.functional import MOST_THREADS
from fastgru.model import Sequential, load_model

Array = NDArray[Any]

#: What goes wrong in a way that one line explains.
EXPECTED_ERRORS = (OSError, ValueError, TypeError, ArithmeticError, ImportError, MemoryError)

INTERRUPTED = 130


class Data(NamedTuple):
    """A data set, and what to say about it."""

    name: str
    reason: str
    train: tuple[Array, Array]
    test: tuple[Array, Array]


def _load_data(name: str | None, path: str | None, seed: int) -> Data:
    """The data set asked for; without a name MNIST where it can be had, else synthetic digits."""
    if name == "synthetic":
        if path is not None:
            raise ValueError("--data: expected none because the synthetic digits are made on the spot, got a folder")
        train, test = datasets.synthetic.load_data(seed=seed)
        return Data("synthetic", "as asked for, digits made on the spot", train, test)
    try:
        (train, test), source = datasets.mnist.locate(path)
        return Data("mnist", f"60,000 images of handwritten digits from {source}", train, test)
    except DataUnavailableError as error:
        # What was named must be there; only what was merely hoped for has a substitute.
        if name == "mnist":
            raise
        train, test = datasets.synthetic.load_data(seed=seed)
        return Data("synthetic", f"digits made on the spot, because {error.reason}", train, test)


# --- Commands -------------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace) -> int:
    if arguments.plot is not None:
        plotting.require_plottable(arguments.plot)
        _require_folder("--plot", arguments.plot)
    if arguments.save is not None:
        _require_folder("--save", arguments.save)
    if arguments.threads is not None:
        fastgru.set_num_threads(arguments.threads)
    seed = arguments.seed if arguments.seed is not None else int.from_bytes(os.urandom(4), "big")
    fastgru.set_seed(seed)

    data = _load_data(arguments.dataset, arguments.data, seed)
    print(f"Data: {data.name} ({data.reason})", flush=True)
    (x, y), (x_test, y_test) = data.train, data.test
    classes = 10
    model = Sequential(
        [
            layers.GRU(arguments.units, input_shape=x.shape[1:]),
            layers.Dense(classes, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=optimizers.Adam(arguments.learning_rate), loss="categorical_crossentropy", metrics=["accuracy"]
    )
    print(
        f"Model: GRU({arguments.units}) and Dense({classes}), {model.count_params():,} parameters; seed {seed}, "
        f"{fastgru.get_num_threads()} threads, {_native.ISA}",
        flush=True,
    )
    begin = time.perf_counter()
    try:
        history = model.fit(
            x,
            y,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            validation_data=(x_test, y_test) if arguments.plot is not None else None,
        )
    except KeyboardInterrupt:
        saved = ""
        if arguments.save is not None:
            _save(model, arguments.save)
            saved = f"; the weights so far are saved to {arguments.save}"
        print(f"fastgru: interrupted{saved}", file=sys.stderr)
        return INTERRUPTED
    except FloatingPointError as error:
        kept = f"; {arguments.save} was not written" if arguments.save is not None else ""
        raise FloatingPointError(f"{error}{kept}") from None
    seconds = time.perf_counter() - begin
    if arguments.save is not None:
        _save(model, arguments.save)
        print(f"Saved: {arguments.save}")
    loss, accuracy = model.evaluate(x_test, y_test)
    if arguments.plot is not None:
        predicted = model.predict(x_test).argmax(axis=1)
        title = f"fastgru on {data.name}: GRU({arguments.units}), test accuracy {accuracy:.2%}"
        plotting.plot_training(arguments.plot, history, plotting.confusion_matrix(y_test, predicted, classes), title)
        print(f"Plot: {arguments.plot}")
    rate = len(x) * arguments.epochs / seconds
    print(
        f"Result: {data.name} ({data.reason}): test accuracy {accuracy:.2%}, loss {loss:.4f} after {arguments.epochs} "
        f"epochs in {seconds:.1f} s ({rate:,.0f} samples/s)"
    )
    if arguments.json:
        _print_json(
            dataset=data.name,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            accuracy=accuracy,
            loss=loss,
            seconds=round(seconds, 3),
            samples_per_second=round(rate, 1),
            isa=_native.ISA,
            threads=fastgru.get_num_threads(),
            seed=seed,
            version=fastgru.__version__,
        )
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    model = load_model(arguments.model)
    data = _load_data(arguments.dataset, arguments.data, 0)
    print(f"Data: {data.name} ({data.reason})", flush=True)
    if model.optimizer is None or [metric.name for metric in model.metrics] != ["accuracy"]:
        model.compile(metrics=["accuracy"])
    loss, accuracy = model.evaluate(*data.test)
    print(f"Result: {data.name}: accuracy {accuracy:.2%}, loss {loss:.4f} on {len(data.test[0]):,} test images")
    if arguments.json:
        _print_json(dataset=data.name, accuracy=accuracy, loss=loss, model=arguments.model, version=fastgru.__version__)
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    model = load_model(arguments.model)
    if len(model.input_shape) != 3 or len(model.output_shape) != 2:
        raise ValueError(
            f"{arguments.model}: expected a model from (N, T, F) to (N, C), got one from "
            f"{checks.dims(model.input_shape)} to {checks.dims(model.output_shape)}"
        )
    _, steps, features = model.input_shape
    assert features is not None
    for path in arguments.inputs:
        samples = images.read_samples(Path(path), steps, features, invert=arguments.invert)
        try:
            outputs = model.predict(samples)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None
        for number, output in enumerate(outputs):
            name = path if len(outputs) == 1 else f"{path}[{number}]"
            if not np.isfinite(output).all():
                raise ValueError(f"{name}: the model's outputs are not finite; look for NaN or infinity in it")
            best = int(output.argmax())
            if arguments.json:
                _print_json(input=name, label=best, outputs=[float(value) for value in output])
            else:
                print(f"{name}: {best} ({output[best]:.1%})")
    return 0


def _info(arguments: argparse.Namespace) -> int:
    facts = {
        "version": fastgru.__version__,
        "isa": _native.ISA,
        "reason": _native.REASON,
        "available": _native.available(),
        "compiler": _native.kernels.__compiler__,
        "threads": fastgru.get_num_threads(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }
    if arguments.json:
        _print_json(**facts)
        return 0
    print(f"fastgru {facts['version']}")
    print(f"instruction set: {facts['isa']} ({facts['reason']})")
    print(f"threads: {facts['threads']} of {facts['processors']} processors")
    print(f"kernels built with: {facts['compiler']}")
    print(f"Python {facts['python']}, NumPy {facts['numpy']}, {facts['platform']}")
    return 0


# --- Arguments ------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line instead of the usage and a line."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _checked(check: Any, name: str, convert: Any, **limits: Any) -> Any:
    """A type for argparse that applies one of the package's own checks."""

    def parse(text: str) -> Any:
        try:
            return check(name, convert(text), **limits)
        except (ValueError, TypeError) as error:
            message = str(error)
            if not message.startswith(name):  # from int() or float()
                message = f"expected {'an integer' if convert is int else 'a number'}, got {text!r}"
            raise argparse.ArgumentTypeError(message.removeprefix(f"{name}: ")) from None

    return parse


def _require_folder(option: str, path: str) -> None:
    """Find out before the training, not after, that a result cannot be written."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{option}: expected a file to write, got the folder {path}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{option}: expected a file in an existing folder, got {path}")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"{option}: the folder of {path} cannot be written to")


def _parser() -> argparse.ArgumentParser:
    integer = {"check": checks.integer, "convert": int}
    parser = _Parser(prog="fastgru", description="GRU networks on CPUs: train, evaluate, predict.")
    parser.add_argument("--version", action="version", version=f"fastgru {fastgru.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add_data(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "dataset",
            nargs="?",
            choices=("mnist", "synthetic"),
            help="without it, MNIST where it can be had and otherwise synthetic digits",
        )
        command.add_argument(
            "--data",
            metavar="FOLDER",
            help=f"folder with MNIST's files (else {DATA_VARIABLE}, the cache, a download)",
        )
        command.add_argument("--json", action="store_true", help="end with one line of JSON")

    train = commands.add_parser("train", help="train GRU(64) and Dense(10) on digits read row by row")
    add_data(train)
    train.add_argument("--epochs", type=_checked(name="epochs", least=1, **integer), default=10)
    train.add_argument("--batch-size", type=_checked(name="batch-size", least=1, **integer), default=32)
    train.add_argument("--units", type=_checked(name="units", least=1, **integer), default=64)
    train.add_argument("--learning-rate", type=_checked(checks.number, "learning-rate", float, above=0), default=0.001)
    train.add_argument("--seed", type=_checked(name="seed", least=0, **integer), help="the same seed, the same bits")
    train.add_argument(
        "--threads", type=_checked(name="threads", least=1, most=MOST_THREADS, **integer), help="at most this many"
    )
    train.add_argument("--save", metavar="FILE", help="write the model there, also after Ctrl-C")
    train.add_argument(
        "--plot",
        metavar="FILE",
        nargs="?",
        const="fastgru-training.png",
        help="draw loss, accuracy and confusion matrix (default file: %(const)s)",
    )
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="loss and accuracy of a saved model on test images")
    evaluate.add_argument("model", metavar="MODEL")
    add_data(evaluate)
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser("predict", help="classify pictures or arrays")
    predict.add_argument("model", metavar="MODEL")
    predict.add_argument("inputs", metavar="IMAGE", nargs="+", help="PNG, or .npy of shape (T, F) or (N, T, F)")
    predict.add_argument("--invert", action="store_true", help="for black on white; MNIST is white on black")
    predict.add_argument("--json", action="store_true", help="a line of JSON for each sample, with all outputs")
    predict.set_defaults(run=_predict)

    info = commands.add_parser("info", help="what runs here, and why")
    info.add_argument("--json", action="store_true", help="as one line of JSON")
    info.set_defaults(run=_info)
    return parser


def _print_json(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def _save(model: Sequential, path: str) -> None:
    """Save, whatever the user presses meanwhile: it takes a moment, and the training took minutes."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        model.save(path)
    finally:
        signal.signal(signal.SIGINT, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("fastgru: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, e.g. head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED_ERRORS as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"fastgru: {message}", file=sys.stderr)
        return 1
