"""What do lengths, masks, dropout and a second direction cost, compared with the plain layer?

All models are trained with `fit` in this process, in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import fastgru
import numpy as np
from fastgru import Sequential, layers

from benchmarks.harness import COOL_DOWN_SECONDS, Crew, log, median, spread
from benchmarks.options import Options
from benchmarks.report import Result, duration

TITLE = "Options: training time of GRU(64) with lengths, masks, dropout and a second direction"
COLUMNS = ("shape", "model", "a batch", "of the plain one's", "spread")

FEATURES, UNITS, CLASSES = 28, 64, 10
#: (N, T), with enough samples that a round takes some tens of milliseconds.
SHAPES = ((32, 28), (128, 28), (64, 100), (128, 200))
QUICK_SHAPES = SHAPES[:2]
SAMPLE_STEPS = 120_000

PLAIN, TAGS = "plain", "plain, an output for each step"


@dataclass(frozen=True)
class Variant:
    """A model that is compared with the plain one."""

    name: str
    base: str
    make: Callable[[], list[Any]]
    half: bool = False  # lengths from 0 to T, T / 2 in the mean
    full: bool = False  # all lengths T


def _gru(**options: Any) -> Any:
    return layers.GRU(UNITS, **options)


VARIANTS = (
    Variant(PLAIN, PLAIN, lambda: [_gru()]),
    Variant("lengths, all T", PLAIN, lambda: [_gru()], full=True),
    Variant("lengths, T/2 in the mean", PLAIN, lambda: [_gru()], half=True),
    Variant("Masking, all T", PLAIN, lambda: [layers.Masking(), _gru()]),
    Variant("dropout", PLAIN, lambda: [_gru(dropout=0.2)]),
    Variant("recurrent_dropout", PLAIN, lambda: [_gru(recurrent_dropout=0.2)]),
    Variant("both dropouts", PLAIN, lambda: [_gru(dropout=0.2, recurrent_dropout=0.2)]),
    Variant("Bidirectional", PLAIN, lambda: [layers.Bidirectional(_gru())]),
    Variant(TAGS, TAGS, lambda: [_gru(return_sequences=True)]),
    Variant("the same, lengths, T/2 in the mean", TAGS, lambda: [_gru(return_sequences=True)], half=True),
    Variant("the same, Bidirectional", TAGS, lambda: [layers.Bidirectional(_gru(return_sequences=True))]),
)


class Training:
    """A variant and data of its shape."""

    def __init__(self, variant: Variant, rows: int, steps: int) -> None:
        rng = np.random.default_rng(0)
        batches = max(1, SAMPLE_STEPS // (rows * steps))
        count = rows * batches
        each_step = variant.base == TAGS
        self.variant, self._rows, self._batches = variant, rows, batches
        self._x = rng.random((count, steps, FEATURES), np.float32)
        self._y = rng.integers(0, CLASSES, (count, steps) if each_step else count)
        self._lengths = np.full(count, steps) if variant.full else None
        if variant.half:
            self._lengths = rng.permutation(np.linspace(0, steps, count).round().astype(np.int64))
        self._model = Sequential([*variant.make(), layers.Dense(CLASSES, activation="softmax")])
        self._model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        self.seconds: list[float] = []

    def fit(self) -> float:
        """Train for an epoch; returns seconds per batch."""
        begin = time.perf_counter()
        self._model.fit(self._x, self._y, lengths=self._lengths, batch_size=self._rows, verbose=0)
        return (time.perf_counter() - begin) / self._batches

    def measure(self) -> None:
        """Warm up and measure."""
        time.sleep(COOL_DOWN_SECONDS)
        self.fit()
        self.seconds.append(self.fit())


def run(options: Options, crew: Crew) -> Result:
    """Measure fastgru only."""
    del crew
    fastgru.set_num_threads(options.threads)
    table, rows = [], []
    for count, steps in QUICK_SHAPES if options.quick else SHAPES:
        log(f"toolbox, N={count}, T={steps}")
        trainings = {variant.name: Training(variant, count, steps) for variant in VARIANTS}
        for _ in range(options.rounds):
            for training in trainings.values():
                training.measure()
        for name, training in trainings.items():
            middle = median(training.seconds)
            ratio = middle / median(trainings[training.variant.base].seconds)
            shape = f"N={count}, T={steps}"
            table.append([shape, name, duration(middle), f"{ratio:.2f}", f"{spread(training.seconds):.0%}"])
            rows.append({"shape": shape, "variant": name, "seconds": training.seconds, "ratio": ratio, "skipped": ""})
    notes = [
        "Lengths are spread evenly from 0 to T and shuffled. The smallest batches pay for Python and Adam in full."
    ]
    return Result("toolbox", TITLE, COLUMNS, table, rows, notes)
