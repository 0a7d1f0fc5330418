"""The loops of fit and evaluate, over anything that computes logits and gradients.

This module knows no model: `fastgru.Sequential` stands above it and hands itself in as a `Network`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgru import functional
from fastgru.optimizers import Adam
from fastgru.progress import Progress
from fastgru.samples import Samples

Array = NDArray[Any]


#: Backward finds a tape of so many bytes in a last-level cache, with all else that lies there.
CACHED_TAPE = 5_000_000
#: Pieces of fewer rows would lose more in the kernels than they gain.
LEAST_ROWS = 128


class Network(Protocol):
    """What is trained here."""

    parameters: Array
    gradient: Array

    def logits(self, x: Array, *, training: bool) -> Array:
        """Outputs before the last softmax, (N, C)."""

    def tape_bytes(self, x: Array) -> int:
        """What `logits` leaves in memory for `backward` when it trains on the batch `x`."""

    def backward(self, d_logits: Array, *, add: bool = False) -> None:
        """Overwrite `gradient` with that of the last `logits` in training, or with `add` add to what it holds."""


class History:
    """What `fastgru.Sequential.fit` returns.

    Attributes
    ----------
    history : dict of str to list of float
        ``loss``, the metrics, and with validation data the same under ``val_``: a number an epoch.
    epoch : list of int
        The epochs done, counted from 0.
    params : dict
        ``epochs``, ``batch_size`` and ``samples`` as they were asked for.
    seconds : list of float
        How long each epoch's training took, without validation.
    """

    def __init__(self, epochs: int, batch_size: int, samples: int) -> None:
        self.params = {"epochs": epochs, "batch_size": batch_size, "samples": samples}
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.seconds: list[float] = []

    def __repr__(self) -> str:
        last = {name: round(values[-1], 4) for name, values in self.history.items()}
        return f"History({len(self.epoch)} epochs, last: {last})"

    def append(self, epoch: int, values: dict[str, float], seconds: float) -> None:
        """Add an epoch."""
        self.epoch.append(epoch)
        self.seconds.append(seconds)
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)


class Totals:
    """Mean loss and accuracy over the samples seen so far, however they were batched."""

    def __init__(self, metrics: list[str]) -> None:
        self._metrics = metrics
        self._loss = 0.0
        self._correct = 0
        self._count = 0

    def add(self, result: functional.CrossEntropy) -> float:
        """Count one batch, and return its summed loss."""
        loss = float(result.losses.sum(dtype=np.float64))
        self._loss += loss
        self._correct += int(np.count_nonzero(result.correct))
        self._count += len(result.losses)
        return loss

    def values(self) -> dict[str, float]:
        """``loss``, and the metrics that were asked for."""
        values = {"loss": self._loss / self._count}
        if "accuracy" in self._metrics:
            values["accuracy"] = self._correct / self._count
        return values


def batches(count: int, batch_size: int) -> Iterator[slice]:
    """Slices of at most `batch_size` that cover `count` samples."""
    for begin in range(0, count, batch_size):
        yield slice(begin, min(begin + batch_size, count))


def train_step(network: Network, optimizer: Adam, x: Array, labels: Array) -> functional.CrossEntropy:
    """Forward, loss, backward and update on one batch.

    Raises
    ------
    FloatingPointError
        The loss is not finite; the parameters are then as they were before the batch.
    """
    results = []
    for rows in pieces(network, x):
        result = functional.softmax_cross_entropy(network.logits(x[rows], training=True), labels[rows])
        if not np.isfinite(result.losses).all():
            bad = int(np.flatnonzero(~np.isfinite(result.losses))[0])
            raise FloatingPointError(f"the loss of sample {rows.start + bad} of the batch is {result.losses[bad]}")
        assert result.d_logits is not None
        if len(result.losses) != len(x):  # from the piece's mean to its share of the batch's
            np.multiply(result.d_logits, result.d_logits.dtype.type(len(result.losses) / len(x)), out=result.d_logits)
        network.backward(result.d_logits, add=rows.start > 0)
        results.append(result)
    optimizer.update(network.parameters, network.gradient)
    if len(results) == 1:
        return results[0]
    return functional.CrossEntropy(
        np.concatenate([result.losses for result in results]),
        np.concatenate([result.correct for result in results]),
        None,
    )


def pieces(network: Network, x: Array) -> list[slice]:
    """How a batch is trained on: whole, or cut by its shape alone into equal pieces whose tapes stay in the caches."""
    tape = network.tape_bytes(x)
    count = -(-tape // CACHED_TAPE)
    if count <= 1 or len(x) < count * LEAST_ROWS:
        return [slice(0, len(x))]
    edges = [len(x) * index // count for index in range(count + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


def evaluate(
    network: Network, samples: Samples, labels: Array, batch_size: int, metrics: list[str]
) -> dict[str, float]:
    """Loss and metrics over all samples."""
    totals = Totals(metrics)
    for rows in batches(len(samples), batch_size):
        logits = network.logits(samples.batch(rows), training=False)
        totals.add(functional.softmax_cross_entropy(logits, labels[rows], gradient=False))
    return totals.values()


def fit(
    network: Network,
    optimizer: Adam,
    samples: Samples,
    labels: Array,
    *,
    epochs: int,
    batch_size: int,
    metrics: list[str],
    validation: tuple[Samples, Array] | None,
    shuffle: np.random.Generator | None,
    history: History,
    progress: Progress,
) -> None:
    """Train for `epochs`, recording each in `history` as it ends.

    Raises
    ------
    FloatingPointError
        A loss is not finite; the message gives epoch and batch, and the parameters are those before that batch.
    """
    count = len(samples)
    order = np.arange(count)
    try:
        for epoch in range(epochs):
            if shuffle is not None:
                order = shuffle.permutation(count)
            progress.epoch_begins(epoch)
            begin = time.perf_counter()
            totals = Totals(metrics)
            for number, rows in enumerate(batches(count, batch_size)):
                chosen = order[rows]
                try:
                    totals.add(train_step(network, optimizer, samples.batch(chosen), labels[chosen]))
                except FloatingPointError as error:
                    raise FloatingPointError(
                        f"training stopped in epoch {epoch + 1}, batch {number + 1}: {error}; the weights are those "
                        f"before that batch. Look for NaN or infinity in x, or lower the learning rate"
                    ) from None
                if progress.wants_update():
                    progress.update(rows.stop, totals.values())
            seconds = time.perf_counter() - begin
            values = totals.values()
            if validation is not None:
                validated = evaluate(network, *validation, batch_size, metrics)
                values |= {f"val_{name}": value for name, value in validated.items()}
            history.append(epoch, values, seconds)
            progress.epoch_ends(epoch, values, seconds)
    finally:
        progress.close()
