"""``fastgru train``: train a network of GRU layers on digits or on a person's own arrays."""

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
from fastgru._support.samples import natural_dtype
from fastgru._support.sequences import valid_steps
from fastgru.callbacks import History
from fastgru.cli import data, plotting
from fastgru.cli.data import Data, HeldBack
from fastgru.cli.evaluate import Score, form, score
from fastgru.cli.options import (
    add_dataset,
    add_settings,
    given_settings,
    integer,
    number,
    print_json,
    require_writable,
    several,
)
from fastgru.datasets.arrays import Sequences
from fastgru.formats import native
from fastgru.functional import MOST_THREADS
from fastgru.models.recipes import GOALS, RECIPES, Recipe
from fastgru.models.sequential import Sequential

Array = NDArray[Any]


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    command = commands.add_parser("train", help="train GRU layers and a Dense layer on digits or on your own arrays")
    add_dataset(command)
    network, training = (command.add_argument_group(f"the {name}") for name in ("network", "training"))
    training.add_argument(
        "--recipe", choices=RECIPES, help="settings for fast: MNIST in few seconds; options change them"
    )
    add_settings({"network": network, "training": training})
    training.add_argument(
        "--validation",
        type=number(above=0, below=1),
        metavar="FRACTION",
        help="hold back this fraction of the training samples to validate on",
    )
    training.add_argument(
        "--validation-samples",
        choices=data.CHOICES,
        help="which samples to hold back (default: random, classes in proportion; but the last ones where numbers are "
        "predicted from overlapping windows of a series)",
    )
    training.add_argument(
        "--patience",
        type=integer(0),
        metavar="N",
        help="stop when the validation loss has not fallen for N epochs, and go back to the best weights",
    )
    seeds = training.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=integer(0), metavar="N", help="the same seed, the same bits")
    seeds.add_argument(
        "--seeds", type=several(integer(0)), metavar="N,N...", help="train once with each, and report the mean"
    )
    training.add_argument("--threads", type=integer(1, MOST_THREADS), metavar="N", help="at most this many")
    results = command.add_argument_group("results")
    results.add_argument("--save", metavar="FILE", help="write the model there, also after Ctrl-C")
    results.add_argument("--checkpoint", metavar="FILE", help="write the whole training there after each epoch")
    results.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint, if it is there, as if never interrupted: with its seed and learning rate; "
        "the time reported is that of the epochs done now",
    )
    results.add_argument(
        "--plot",
        metavar="FILE",
        nargs="?",
        const="fastgru-training.png",
        help="draw loss, accuracy and confusion matrix (default file: %(const)s)",
    )
    command.set_defaults(run=run)


class Outcome(NamedTuple):
    """What came of a training."""

    seed: int
    score: Score
    epochs: int
    seconds: float
    samples_per_second: float
    epochs_now: int  # of all epochs; the others were done before the training was resumed

    def __str__(self) -> str:
        rate = f"{self.samples_per_second:,.0f} samples/s"
        now = "" if self.epochs_now == self.epochs else f", {self.epochs_now} of them now,"
        return f"{self.score} after {self.epochs} epochs{now} in {self.seconds:.1f} s ({rate})"

    def as_json(self) -> dict[str, Any]:
        """All of it, the score by its names."""
        return {
            "epochs": self.epochs,
            **self.score.as_json(),
            "seconds": round(self.seconds, 3),
            "samples_per_second": round(self.samples_per_second, 1),
            "seed": self.seed,
        }


def run(arguments: argparse.Namespace) -> None:
    """Train, once with each seed, and say what came of it."""
    _require_consistent(arguments)
    if arguments.threads is not None:
        fastgru.set_num_threads(arguments.threads)
    recipe = _recipe(arguments)
    if _resumes(arguments):
        _take_from_checkpoint(arguments)
    elif arguments.seed is None:
        arguments.seed = int.from_bytes(os.urandom(4), "big")
    seeds = arguments.seeds or (arguments.seed,)
    found = data.load(arguments.dataset, arguments.data, seeds[0], arguments.task)
    print(f"Data: {found.name} ({found.reason})", flush=True)
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


# --- What was asked for ---------------------------------------------------------------------------------------


def _require_consistent(arguments: argparse.Namespace) -> None:
    """Raise what would otherwise go wrong after minutes of training."""
    if arguments.plot is not None:
        plotting.require_plottable(arguments.plot)
    paths: dict[Path, str] = {}
    for name in ("plot", "save", "checkpoint"):
        path = getattr(arguments, name)
        require_writable(f"--{name}", path)
        if path is not None:
            other = paths.setdefault(Path(path).resolve(), name)
            if other != name:
                raise ValueError(f"--{name}: expected another file than --{other}, which would replace it, got {path}")
        if path is not None and arguments.seeds:
            raise ValueError(f"--{name}: expected none because --seeds trains several times, got {path}")
    if arguments.resume and arguments.checkpoint is None:
        raise ValueError("--resume: expected --checkpoint FILE as well, which says what to go on from, got none")
    for option, why in (("patience", "says what to watch"), ("validation_samples", "says how many")):
        if getattr(arguments, option) is not None and arguments.validation is None:
            name = option.replace("_", "-")
            raise ValueError(f"--{name}: expected --validation FRACTION as well, which {why}, got none")


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe named, or else the usual settings, changed by the options that were given."""
    recipe = RECIPES[arguments.recipe] if arguments.recipe else Recipe()
    return dataclasses.replace(recipe, **given_settings(arguments))


class Seed(callbacks.Callback):
    """Keeps in a checkpoint what decides the data of a resumed training: synthetic digits, and samples held back.

    Parameters
    ----------
    seed : int
    samples : {"random", "last"}, optional
        Which samples are held back, if any.
    """

    def __init__(self, seed: int, samples: str | None) -> None:
        self.seed = seed
        self.samples = samples

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"seed": self.seed, "samples": self.samples}

    @classmethod
    def in_checkpoint(cls, path: str) -> Seed:
        """What a checkpoint keeps."""
        config, _ = native.load(path)
        try:
            states = config["training"]["callbacks"]
            (state,) = (each["state"] for each in states if each["class_name"] == cls.__name__)
            samples = state.get("samples", "last")  # the only ones before there was a choice
            if samples is not None:
                checks.choice("samples", samples, data.CHOICES)
            return cls(checks.integer("seed", state["seed"], least=0), samples)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise ValueError(f"{path}: expected what --checkpoint wrote, got another model file") from None


def _take_from_checkpoint(arguments: argparse.Namespace) -> None:
    """Take the seed, and which samples are held back, from the training to resume, which must be those asked for."""
    saved = Seed.in_checkpoint(arguments.checkpoint)
    for option, value in (("seed", saved.seed), ("validation_samples", saved.samples)):
        given = getattr(arguments, option)
        if given not in (None, value):
            name = option.replace("_", "-")
            raise ValueError(f"--{name}: expected {value} because the training to resume had it, got {given}")
        setattr(arguments, option, value)


def _resumes(arguments: argparse.Namespace) -> bool:
    return bool(arguments.resume) and Path(arguments.checkpoint).exists()


def _mean(outcomes: list[Outcome]) -> dict[str, float]:
    """The means of what differs from seed to seed."""
    entries = [each.as_json() for each in outcomes]
    return {name: float(np.mean([entry[name] for entry in entries])) for name in entries[0] if name != "seed"}


def _describe_mean(outcomes: list[Outcome]) -> str:
    metric, mean = outcomes[0].score.metric, _mean(outcomes)
    values = [each.score.value for each in outcomes]
    low, high = form(metric, min(values)), form(metric, max(values))
    reached = f"{Score(mean['loss'], metric, mean[metric]).metric_text} ({low} to {high}), loss {mean['loss']:.4f}"
    return f"{reached} after {mean['epochs']:g} epochs in {mean['seconds']:.1f} s"


def _describe_goal(goal: float, outcomes: list[Outcome]) -> str:
    """Which seeds reached the accuracy, and in how many seconds of training."""
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
        # Pictures all have the same rows; a person's sequences may be longer where the model is used.
        (None, x.shape[1] if found.name in data.DIGITS else None, x.shape[2]),
        found.outputs,
        dtype=natural_dtype(x),
        classify=found.task == "classify",
        samples=samples,
        each_step=found.each_step,
    )
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
    rate = samples * len(history.seconds) / seconds  # of the epochs done here
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
    except KeyboardInterrupt:
        saved = ""
        if arguments.save is not None:
            _save(model, arguments.save)
            saved = f"; the weights so far are saved to {arguments.save}"
        if arguments.checkpoint is not None and Path(arguments.checkpoint).exists():
            saved += f"; --resume goes on from {arguments.checkpoint}"
        raise KeyboardInterrupt(saved) from None
    except FloatingPointError as error:
        kept = f"; {arguments.save} was not written" if arguments.save is not None else ""
        raise FloatingPointError(f"{error}{kept}") from None


def _mention_unseen(found: Data, held: HeldBack) -> None:
    """Warn if the last samples have other classes than the rest: the data are sorted, the validation is no use."""
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
                f"--validation-samples random if the order means nothing",
                file=sys.stderr,
            )


def _save(model: Sequential, path: str) -> None:
    """Save, whatever the user presses meanwhile: it takes a moment, and the training took minutes."""
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
