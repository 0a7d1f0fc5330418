"""Leaks: after thousands of training steps and saves, a process is not larger than before.

Measured are the resident memory, open files, threads, and the number of Python objects.
"""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fastgru
import numpy as np
from fastgru import Sequential, callbacks, layers, load_model

from campaign import formats
from campaign.run import Run

#: Steps or saves before the first measurement, in which caches fill and reusable memory is allocated.
_WARM_UP = 0.1
#: Tolerance: memory is allocated in blocks; a leak of 200 bytes per step is 4 MB after 20,000 steps.
_MOST_BYTES = 4 << 20
_MOST_OBJECTS = 200


@dataclass(frozen=True)
class Size:
    memory: int
    files: int
    threads: int
    objects: int

    @classmethod
    def now(cls) -> Size:
        gc.collect()
        with open("/proc/self/statm") as file:
            memory = int(file.read().split()[1]) * resource.getpagesize()
        return cls(memory, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), len(gc.get_objects()))


def run(run: Run) -> None:
    if run.subject == "saves":
        check(run, _saves(run.memory), "saves and loads")
    else:
        check(run, _steps(run.scratch), "steps")


def check(run: Run, work: Callable[[int], None], what: str) -> None:
    """Run the work of each number, and compare the size of the process at the start and the end."""
    before: Size | None = None
    warm_up = _WARM_UP * run.count if run.count else None
    for number in run.cases(least=100):
        # Without a count, the first measurement comes after a tenth of the time, or 50 cases.
        if before is None and number >= 50 and (number >= warm_up if warm_up else run.elapsed() > _WARM_UP):
            before, first = Size.now(), number
        work(number)
    assert before is not None
    after, count = Size.now(), run.report.cases - first
    growth = after.memory - before.memory
    run.report.done = f"{run.report.cases:,} {what}"
    run.report.worst = (
        f"{growth / 1024:+,.0f} KB, {after.files - before.files:+} files, {after.threads - before.threads:+} threads, "
        f"{after.objects - before.objects:+} objects"
    )
    if growth > _MOST_BYTES:
        run.found("the memory grows", f"{growth:,} bytes in {count:,} {what}", count)
    if after.objects - before.objects > _MOST_OBJECTS:
        run.found(
            "the number of Python's objects grows", f"{after.objects - before.objects} in {count:,} {what}", count
        )
    for name in ("files", "threads"):
        grown = getattr(after, name) - getattr(before, name)
        if grown > 0:
            run.found(f"the number of {name} grows", f"{grown} in {count:,} {what}", count)


# --- Training ---------------------------------------------------------------------------------------------------------


def _steps(folder: Path) -> Callable[[int], None]:
    """Training steps, sometimes of other shapes, with validation, predictions or a complete call of fit."""
    fastgru.set_seed(0)
    fastgru.set_num_threads(2)
    model = Sequential(
        [
            layers.Bidirectional(layers.GRU(16, return_sequences=True, dropout=0.1), input_shape=(None, 8)),
            layers.GRU(8),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", "f1_score"])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 12, 8)).astype(np.float32), rng.integers(0, 3, 64)
    lengths = rng.integers(0, 13, 64)

    def step(number: int) -> None:
        rows = 32 if number % 3 else 7 + number % 50
        model.train_on_batch(x[:rows], y[:rows], lengths=lengths[:rows] if number % 2 else None)
        if number % 50 == 0:
            model.predict(x[:rows, : 1 + number % 12])
            model.evaluate(x, y, verbose=0)
        if number % 500 == 0:
            told = [callbacks.EarlyStopping("loss", restore_best_weights=True), callbacks.CSVLogger(folder / "log.csv")]
            model.fit(x, y, epochs=2, validation_split=0.2, verbose=0, callbacks=told)

    return step


def _saves(folder: Path) -> Callable[[int], None]:
    """A save and a load of each file format in turn."""
    kinds = [formats.get(subject) for subject in formats.SUBJECTS]
    models = [formats.make_model(subject, seed=1) for subject in formats.SUBJECTS]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6, 16)).astype(np.float32), rng.integers(0, 4, 8)
    checkpoint = folder / "run.safetensors"
    trained = formats.make_model("native", seed=2)

    def save(number: int) -> None:
        which = number % (len(kinds) + 1)
        if which < len(kinds):
            kinds[which].write(models[which], folder / kinds[which].name)
            kinds[which].read(folder / kinds[which].name)
            return
        trained.fit(x, y, epochs=1, verbose=0, callbacks=[callbacks.ModelCheckpoint(checkpoint)])
        load_model(checkpoint)

    return save
