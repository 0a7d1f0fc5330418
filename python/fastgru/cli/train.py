"""``fastgru train``: train a network of GRU layers on digits or on the user's own arrays."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastgru
from fastgru import _native, callbacks
from fastgru._support import checks
from fastgru._support.sequences import valid_steps
from fastgru.callbacks import History
from fastgru.cli import data, plotting
from fastgru.cli.data import Data, HeldBack
from fastgru.cli.evaluate import Score, form, score
from fastgru.cli.options import (
    add_dataset,
    add_json,
    add_scaling,
    add_settings,
    given_settings,
    integer,
    number,
    print_json,
    several,
)
from fastgru.cli.parser import UsageError, checking
from fastgru.cli.suggestions import did_you_mean_file
from fastgru.cli.targets import require_checkpoint_target, require_expressible, require_model_target
from fastgru.datasets.arrays import Sequences
from fastgru.formats import KINDS, native
from fastgru.functional import MOST_THREADS
from fastgru.models.recipes import GOALS, RECIPES, Recipe
from fastgru.models.sequential import Sequential

Array = NDArray[Any]


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "train",
        help="train a GRU network on digits or on your own arrays",
        description="Train GRU layers and a Dense layer. The data decide whether the network classifies or predicts "
        "numbers. Ctrl-C ends the training; --save then writes the weights reached so far.",
    )
    group = add_dataset(command)
    add_scaling(group, "default: 255 for mnist and synthetic; your own arrays are not scaled")
    network, training, output = (command.add_argument_group(name) for name in ("network", "training", "output"))
    training.add_argument(
        "--recipe",
        choices=RECIPES,
        help="start from these settings (fast: MNIST in seconds); other options change them",
    )
    add_settings({"network": network, "training": training})
    _add_validation(training)
    seeds = training.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seed",
        type=integer(0),
        metavar="N",
        help="seed of all random numbers; the same seed gives the same bits (default: random, and printed)",
    )
    seeds.add_argument(
        "--seeds", type=several(integer(0)), metavar="N,N...", help="train once with each seed, and report the mean"
    )
    training.add_argument(
        "--threads",
        type=integer(1, MOST_THREADS),
        metavar="N",
        help="use at most this many threads (default: all processors that this process may use)",
    )
    _add_output(output)
    command.set_defaults(run=run)


def _add_validation(training: Any) -> None:
    training.add_argument(
        "--validation",
        type=number(above=0, below=1),
        metavar="FRACTION",
        help="validate on this fraction of the training samples instead of training on them (default: none)",
    )
    training.add_argument(
        "--validation-samples",
        choices=data.CHOICES,
        help="which samples to validate on (default: random with all classes in proportion; last if numbers are "
        "predicted from overlapping windows of a series)",
    )
    training.add_argument(
        "--patience",
        type=integer(0),
        metavar="N",
        help="stop when the validation loss has not fallen for N epochs, and restore the best weights; needs "
        "--validation (default: do not stop early)",
    )


def _add_output(output: Any) -> None:
    endings = ", ".join(ending for each in KINDS.values() for ending in each)
    output.add_argument(
        "--save",
        metavar="FILE",
        help=f"write the trained model to FILE, also after Ctrl-C; the ending decides the format: {endings}",
    )
    output.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="after each epoch, write everything that is needed to resume the training to FILE, a .safetensors file",
    )
    resume = output.add_mutually_exclusive_group()
    resume.add_argument(
        "--resume",
        action="store_true",
        help="continue the training in the checkpoint, with the same bits as if it had never stopped; the seed and the "
        "learning rate are those of the checkpoint, and times are those of the epochs done now",
    )
    resume.add_argument(
        "--resume-if-exists",
        action="store_true",
        help="as --resume, but start a new training if there is no checkpoint",
    )
    output.add_argument(
        "--plot",
        metavar="FILE",
        nargs="?",
        const="fastgru-training.png",
        help=f"draw loss and metric by epoch, and the confusion matrix, to FILE, one of {', '.join(plotting.FORMATS)} "
        "(without FILE: %(const)s)",
    )
    add_json(output, "print the results as one line of JSON, the last one")


class Outcome(NamedTuple):
    """The result of a training run."""

    seed: int
    score: Score
    epochs: int
    seconds: float
    samples_per_second: float
    epochs_now: int  # the epochs done by this process; the others were done before the training was resumed

    def __str__(self) -> str:
        rate = f"{self.samples_per_second:,.0f} samples/s"
        now = "" if self.epochs_now == self.epochs else f", {self.epochs_now} of them now,"
        return f"{self.score} after {_epochs(self.epochs)}{now} in {self.seconds:.1f} s ({rate})"

    def as_json(self) -> dict[str, Any]:
        """Return all fields except `epochs_now`; the score has an entry for the metric and one for the loss."""
        return {
            "epochs": self.epochs,
            **self.score.as_json(),
            "seconds": round(self.seconds, 3),
            "samples_per_second": round(self.samples_per_second, 1),
            "seed": self.seed,
        }


def run(arguments: argparse.Namespace) -> None:
    """Train once with each seed, and print the results."""
    with checking():
        _require_consistent(arguments)
        recipe = _recipe(arguments)
        if _resumes(arguments):
            _take_from_checkpoint(arguments)
    if arguments.threads is not None:
        fastgru.set_num_threads(arguments.threads)
    if arguments.seed is None:
        arguments.seed = int.from_bytes(os.urandom(4), "big")
    seeds = arguments.seeds or (arguments.seed,)
    found = data.load(arguments.dataset, arguments.data, seeds[0], arguments.task)
    print(f"Data: {found.name} ({found.reason})", flush=True)
    if arguments.divide_by is None:
        arguments.divide_by = 255 if found.name in data.DIGITS else 1
    _mention_scaling(found, arguments.divide_by)
    on = "test" if found.test is not None else "training" if arguments.validation is None else "validation"
    outcomes: list[Outcome] = []
    for seed in seeds:
        if outcomes and found.name == "synthetic":  # other digits with another seed
            found = data.load(arguments.dataset, arguments.data, seed, arguments.task)
        outcomes.append(_train(arguments, recipe, found, seed, on))
        if arguments.seeds:
            print(f"Seed {seed}: {on} {outcomes[-1]}", flush=True)
    if arguments.seeds:
        print(f"Result: {found.name} ({found.reason}): mean of {len(seeds)} seeds: {on} {_describe_mean(outcomes)}")
    else:
        print(f"Result: {found.name} ({found.reason}): {on} {outcomes[0]}")
    goal = GOALS.get(arguments.recipe) if found.name == "mnist" else None
    if goal is not None and all(each.epochs_now == each.epochs for each in outcomes):
        print(f"Goal: {_describe_goal(goal, outcomes)}")
    if arguments.json:
        own = {} if found.name in data.DIGITS else {"task": found.task, "evaluated_on": on}
        results = outcomes[0].as_json()
        if arguments.seeds:
            results = {"runs": [each.as_json() for each in outcomes], "mean": _mean(outcomes)}
        print_json(
            dataset=found.name,
            batch_size=recipe.batch_size,
            **own,
            **results,
            isa=_native.ISA,
            threads=fastgru.get_num_threads(),
            version=fastgru.__version__,
        )


# --- Options ---------------------------------------------------------------------------------------


def _require_consistent(arguments: argparse.Namespace) -> None:
    """Raise errors that would otherwise occur after minutes of training."""
    paths: dict[Path, str] = {}
    for name, require in (
        ("plot", plotting.require_plottable),
        ("save", require_model_target),
        ("checkpoint", require_checkpoint_target),
    ):
        path = getattr(arguments, name)
        if path is None:
            continue
        if arguments.seeds:
            raise ValueError(f"--{name}: expected none because --seeds trains several times, got {path}; use --seed")
        require(f"--{name}", path)
        other = paths.setdefault(Path(path).resolve(), name)
        if other != name:
            raise ValueError(f"--{name}: expected another file than --{other}, which would replace it, got {path}")
    _require_checkpoint_to_resume(arguments)
    reasons = {"patience": "early stopping monitors its loss", "validation_samples": "it defines their number"}
    for option, why in reasons.items():
        if getattr(arguments, option) is not None and arguments.validation is None:
            raise ValueError(
                f"--{option.replace('_', '-')}: expected --validation FRACTION as well because {why}, got none"
            )


def _require_checkpoint_to_resume(arguments: argparse.Namespace) -> None:
    path = arguments.checkpoint
    for option in ("resume", "resume_if_exists"):
        if getattr(arguments, option) and path is None:
            raise ValueError(
                f"--{option.replace('_', '-')}: expected --checkpoint FILE as well, the file to resume from, got none"
            )
    if arguments.resume and not Path(path).exists():
        raise FileNotFoundError(
            f"--resume: expected an existing checkpoint, got {path!r}; leave --resume out to start a new training"
            f"{did_you_mean_file(path, KINDS['fastgru'])}"
        )


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """Return the given recipe, or the default settings, with the given options."""
    recipe = RECIPES[arguments.recipe] if arguments.recipe else Recipe()
    try:
        return dataclasses.replace(recipe, **given_settings(arguments))
    except (ValueError, TypeError) as error:
        setting, _, text = str(error).partition(": ")
        raise ValueError(f"--{setting.replace('_', '-')}: {text}") from None


class Seed(callbacks.Callback):
    """Keep in a checkpoint what decides the data of a training: the seed, and the choice of validation samples.

    Parameters
    ----------
    seed : int
    samples : {"random", "last"}, optional
        Which samples are held back for validation; None if there is no validation.
    """

    def __init__(self, seed: int, samples: str | None) -> None:
        self.seed = seed
        self.samples = samples

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"seed": self.seed, "samples": self.samples}

    @classmethod
    def in_checkpoint(cls, path: str) -> Seed:
        """The `Seed` that a checkpoint was written with; raises if `fastgru train` did not write the file."""
        config, _ = native.load(path)
        try:
            states = config["training"]["callbacks"]
            (state,) = (each["state"] for each in states if each["class_name"] == cls.__name__)
            samples = state.get("samples", "last")  # older checkpoints have no entry and always used the last ones
            if samples is not None:
                checks.choice("samples", samples, data.CHOICES)
            return cls(checks.integer("seed", state["seed"], least=0), samples)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise ValueError(
                f"--resume: expected a checkpoint of fastgru train, got {path}, a model file of another origin"
            ) from None


def _take_from_checkpoint(arguments: argparse.Namespace) -> None:
    """Set the seed and the choice of validation samples to those of the checkpoint; raise if others were given."""
    saved = Seed.in_checkpoint(arguments.checkpoint)
    for option, value in (("seed", saved.seed), ("validation_samples", saved.samples)):
        given = getattr(arguments, option)
        if given not in (None, value):
            name = option.replace("_", "-")
            raise ValueError(f"--{name}: expected {value} because the checkpoint was written with it, got {given}")
        setattr(arguments, option, value)


def _resumes(arguments: argparse.Namespace) -> bool:
    return (arguments.resume or arguments.resume_if_exists) and Path(arguments.checkpoint).exists()


def _mean(outcomes: list[Outcome]) -> dict[str, float]:
    """The mean of each value of `Outcome.as_json` over the seeds."""
    entries = [each.as_json() for each in outcomes]
    return {name: float(np.mean([entry[name] for entry in entries])) for name in entries[0] if name != "seed"}


def _epochs(count: float) -> str:
    return f"{count:g} epoch{'' if count == 1 else 's'}"


def _describe_mean(outcomes: list[Outcome]) -> str:
    metric, mean = outcomes[0].score.metric, _mean(outcomes)
    values = [each.score.value for each in outcomes]
    low, high = form(metric, min(values)), form(metric, max(values))
    reached = f"{Score(mean['loss'], metric, mean[metric]).metric_text} ({low} to {high}), loss {mean['loss']:.4f}"
    return f"{reached} after {_epochs(mean['epochs'])} in {mean['seconds']:.1f} s"


def _describe_goal(goal: float, outcomes: list[Outcome]) -> str:
    """The seeds that reached the accuracy, and their seconds of training."""
    seconds = {each.seed: each.seconds for each in outcomes if each.score.value >= goal}
    wanted = f"{goal:.1%} on the test images"
    if not seconds:
        return f"{wanted} was not reached"
    each = ", ".join(f"{time:.1f} s (seed {seed})" for seed, time in seconds.items())
    missed = (
        "" if len(seconds) == len(outcomes) else f"; not by {len(outcomes) - len(seconds)} of {len(outcomes)} seeds"
    )
    return f"{wanted} reached in {each}{missed}"


# --- Training -------------------------------------------------------------------------------------------------


def _train(arguments: argparse.Namespace, recipe: Recipe, found: Data, seed: int, on: str) -> Outcome:
    fastgru.set_seed(seed)
    train, held = found.train, None
    if arguments.validation is not None:
        held = data.hold_back(found, arguments.validation, seed, arguments.validation_samples)
        print(f"Validation: {held.describe(found)}", flush=True)
        _mention_unseen(found, held)
    samples = len(train.x) - (0 if held is None else len(held.rows))
    x = found.train.x
    model = recipe.make_model(
        # All images have the same rows; the user's own sequences may be longer when the model is used.
        (None, x.shape[1] if found.name in data.DIGITS else None, x.shape[2]),
        found.outputs,
        classify=found.task == "classify",
        samples=samples,
        each_step=found.each_step,
        divisor=arguments.divide_by,
    )
    if arguments.save is not None:
        with checking():
            require_expressible("--save", arguments.save, model)
    print(
        f"Model: {recipe.describe(found.outputs)}, {model.count_params():,} parameters; seed {seed}, "
        f"{fastgru.get_num_threads()} threads, {_native.ISA}",
        flush=True,
    )
    watched = found.test if held is None and arguments.plot is not None else None
    begin = time.perf_counter()
    history = _fit(arguments, model, recipe, train, held, watched, seed)
    seconds = time.perf_counter() - begin
    if arguments.save is not None:
        _save(model, arguments.save)
        print(f"Saved: {arguments.save}")
    judged = found.test if on == "test" else train
    rows = held.rows if on == "validation" and held is not None else None
    assert judged is not None
    reached = score(model, judged, rows)
    if arguments.plot is not None:
        title = f"fastgru on {found.name}: {recipe.describe(found.outputs)}, {on} {reached.metric_text}"
        watched_name = "test" if held is None else "validation"
        _plot(arguments.plot, model, found, history, data.pieces(judged, rows), title, watched_name)
        print(f"Plot: {arguments.plot}")
    rate = samples * len(history.seconds) / seconds  # of the epochs done by this process
    return Outcome(seed, reached, len(history.epoch), seconds, rate, len(history.seconds))


def _fit(
    arguments: argparse.Namespace,
    model: Sequential,
    recipe: Recipe,
    train: Sequences,
    held: HeldBack | None,
    watched: Sequences | None,
    seed: int,
) -> History:
    chosen: list[callbacks.Callback] = []
    if arguments.patience is not None:
        chosen.append(callbacks.EarlyStopping(patience=arguments.patience, restore_best_weights=True))
    if arguments.checkpoint is not None:
        literal = arguments.checkpoint.replace("{", "{{").replace("}", "}}")
        chosen += [Seed(seed, None if held is None else held.which), callbacks.ModelCheckpoint(literal)]
    if _resumes(arguments):
        print(f"Resumed: {arguments.checkpoint}", flush=True)
    try:
        return model.fit(
            train.x,
            train.y,
            lengths=train.lengths,
            epochs=recipe.epochs,
            batch_size=recipe.batch_size,
            validation_split=0.0 if held is None else held.rows,
            validation_data=None if watched is None else data.as_dict(watched),
            callbacks=chosen,
            resume_from=arguments.checkpoint if _resumes(arguments) else None,
        )
    except (KeyboardInterrupt, BrokenPipeError) as error:  # Ctrl-C, or the reader of the output has ended
        saved = ""
        if arguments.save is not None:
            _save(model, arguments.save)
            saved = f"; the weights so far are saved to {arguments.save}"
        if arguments.checkpoint is not None and Path(arguments.checkpoint).exists():
            saved += f"; --resume continues from {arguments.checkpoint}"
        raise (KeyboardInterrupt(saved) if isinstance(error, KeyboardInterrupt) else error) from None
    except FloatingPointError as error:
        kept = f"; {arguments.save} was not written" if arguments.save is not None else ""
        raise FloatingPointError(f"{error}{kept}") from None
    except ValueError as error:
        argument, _, text = str(error).partition(": ")
        if _resumes(arguments) and argument in ("resume_from", "callbacks"):
            raise UsageError(f"--resume: {text}; use the options of the training in {arguments.checkpoint}") from None
        raise


def _mention_scaling(found: Data, divisor: float) -> None:
    """Print how the input is scaled or converted, or that uint8 input, which may be images, is not scaled."""
    dtype = found.train.x.dtype
    if divisor != 1:
        print(f"Input: {dtype}, divided by {divisor:g} in the model's first layer", flush=True)
    elif dtype == np.uint8:
        print("Input: uint8, not scaled; use --divide-by 255 for the bytes of images", flush=True)


def _mention_unseen(found: Data, held: HeldBack) -> None:
    """Warn if the last samples have other classes than the rest, as in data that is sorted by class."""
    if found.task != "classify" or held.which != "last":
        return
    y = np.asarray(found.train.y)
    kept = y[: held.rows[0]]
    for some, others, where in ((y[held.rows], kept, "only"), (kept, y[held.rows], "not")):
        classes = np.setdiff1d(some, others)
        if classes.size:
            shown = ", ".join(map(str, classes[:8])) + (", ..." if classes.size > 8 else "")
            print(
                f"fastgru: classes {shown} are {where} among the samples held back by --validation; use "
                f"--validation-samples random if the order of the samples has no meaning",
                file=sys.stderr,
            )


def _save(model: Sequential, path: str) -> None:
    """Save the model; Ctrl-C is ignored meanwhile, because saving is short and losing the model is expensive."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        model.save(path)
    finally:
        signal.signal(signal.SIGINT, before)


def _plot(
    path: str, model: Sequential, found: Data, history: History, judged: Iterator[Sequences], title: str, watched: str
) -> None:
    results: list[tuple[Array, Array]] = []
    for part in judged:
        outputs, targets = model.predict(part.x, lengths=part.lengths), np.asarray(part.y)
        if found.each_step and part.lengths is not None:
            counted = valid_steps(part.lengths, part.x.shape[1])
            outputs, targets = outputs[counted], targets[counted]
        results.append((outputs, targets))
    outputs, targets = (np.concatenate(arrays) for arrays in zip(*results, strict=True))
    metric = "accuracy" if found.task == "classify" else "mean_absolute_error"
    plotting.plot_training(path, history, title, metric=metric, watched=watched, outputs=outputs, targets=targets)
