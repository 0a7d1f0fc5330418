"""``fastgru evaluate``: loss and accuracy, or error, of a saved model on a data set."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastgru
from fastgru.cli import data
from fastgru.cli.options import (
    add_dataset,
    add_json,
    add_scaling,
    add_state_dict_options,
    load_model,
    model_file,
    print_json,
    scaled,
)
from fastgru.datasets.arrays import Sequences
from fastgru.layers import Head
from fastgru.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    Loss,
    MeanSquaredError,
    SparseCategoricalCrossentropy,
)
from fastgru.models.sequential import Sequential


class Score(NamedTuple):
    """The loss and the metric of a model on some samples."""

    loss: float
    metric: str  # "accuracy" or "mean_absolute_error"
    value: float

    def __str__(self) -> str:
        return f"{self.metric_text}, loss {self.loss:.4f}"

    @property
    def metric_text(self) -> str:
        """``accuracy 98.64%`` or ``mean absolute error 0.1234``."""
        return f"{self.metric.replace('_', ' ')} {form(self.metric, self.value)}"

    def as_json(self) -> dict[str, float]:
        """The metric by its name, and the loss."""
        return {self.metric: self.value, "loss": self.loss}


def form(metric: str, value: float) -> str:
    """``98.64%`` for an accuracy, ``0.1234`` for others."""
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.4g}"


def score(model: Sequential, part: Sequences, rows: NDArray[np.intp] | None = None) -> Score:
    """Evaluate a model that was compiled with one metric on all sequences, or on those of the indices `rows`."""
    if rows is None:
        loss, value = model.evaluate(part.x, part.y, lengths=part.lengths)
    else:
        loss, value = model.evaluate(data.as_dict(piece) for piece in data.pieces(part, rows))
    return Score(loss, model.metrics[0].name, value)


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "evaluate",
        help="compute loss and accuracy, or error, of a saved model on test data",
        description="Evaluate the model in MODEL on the test samples of DATA, or on all samples if DATA has no test "
        "samples.",
    )
    command.add_argument("model", metavar="MODEL", type=model_file, help="a model file of any supported format")
    group = add_dataset(command)
    add_scaling(group, "default: the input is not scaled")
    add_json(command.add_argument_group("output"), "print the results as one line of JSON, the last one")
    add_state_dict_options(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Evaluate on the test samples, or on all samples if there are no test samples."""
    model = load_model(arguments.model, arguments)
    task = arguments.task
    own = arguments.dataset is not None and arguments.dataset not in data.DIGITS
    if own and task is None and model.loss is not None:
        task = "classify" if model.loss.classifies else "regress"
    found = data.load(arguments.dataset, arguments.data, 0, task)
    print(f"Data: {found.name} ({found.reason})", flush=True)
    model = scaled(arguments.model, model, arguments.divide_by, {found.name: found.train.x.dtype})
    _compile(model, found.task)
    kind, part = ("test ", found.test) if found.test is not None else ("", found.train)
    try:
        result = score(model, part)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{found.name}: {error}") from None
    print(f"Result: {found.name}: {result} on {len(part.x):,} {kind}{found.samples}")
    if arguments.json:
        print_json(dataset=found.name, **result.as_json(), model=arguments.model, version=fastgru.__version__)


def _compile(model: Sequential, task: str) -> None:
    """Compile the model with the metric that suits its loss; the loss is kept, or chosen if there is none."""
    loss = model.loss if model.loss is not None else _loss_for(model, task)
    metric = "accuracy" if loss.classifies or loss.asks else "mean_absolute_error"
    if [each.name for each in model.metrics] != [metric]:
        model.compile(model.optimizer or "adam", loss, metrics=[metric])


def _loss_for(model: Sequential, task: str) -> Loss:
    head = model.layers[-1] if model.layers else None
    activation = head.activation if isinstance(head, Head) else None
    if activation == "softmax":
        return CategoricalCrossentropy()
    if activation == "sigmoid":
        return BinaryCrossentropy()
    return SparseCategoricalCrossentropy(from_logits=True) if task == "classify" else MeanSquaredError()
