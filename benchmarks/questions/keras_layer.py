"""How much faster is a Keras program with `fastgru.keras.GRU`?

The same model trains with `keras.Model.fit` in this process, with either layer in turn, on the backend of
KERAS_BACKEND. On TensorFlow Keras' layer is also measured with XLA, its fastest setting.
"""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import fastgru
import numpy as np

from benchmarks import answers
from benchmarks.harness import COOL_DOWN_SECONDS, Crew, log, median, spread
from benchmarks.options import Options
from benchmarks.report import Result, duration

QUESTION = "keras-layer"
TITLE = "Keras with `fastgru.keras.GRU`: a batch of `fit` with GRU(64) and Dense(10)"
COLUMNS = ("shape", "contender", "a batch", "times fastgru.keras", "spread")

STEPS, FEATURES, UNITS, CLASSES = 28, 28, 64, 10
BATCH_SIZES = (32, 128)
SAMPLES = 4096


class Training:
    """A compiled model on data in memory."""

    def __init__(self, layer: Any, rows: int, *, jit_compile: bool) -> None:
        import keras

        self._rows = rows
        rng = np.random.default_rng(0)
        self._x = rng.random((SAMPLES, STEPS, FEATURES), np.float32)
        self._y = rng.integers(0, CLASSES, SAMPLES)
        head = keras.layers.Dense(CLASSES, activation="softmax")
        self.model = keras.Sequential([keras.Input((STEPS, FEATURES)), layer, head])
        self.model.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit_compile)
        self.seconds: list[float] = []

    def fit(self) -> float:
        """Train for an epoch and return its loss."""
        history = self.model.fit(self._x, self._y, batch_size=self._rows, shuffle=False, verbose=0)
        return float(history.history["loss"][-1])

    def measure(self) -> None:
        """Measure once: seconds per batch."""
        time.sleep(COOL_DOWN_SECONDS)
        begin = time.perf_counter()
        self.fit()
        self.seconds.append((time.perf_counter() - begin) / (SAMPLES // self._rows))


def contenders(rows: int) -> dict[str, Training]:
    """Return models with the same weights, after comparing their losses over an epoch."""
    import fastgru.keras
    import keras

    found = {
        "fastgru.keras": Training(fastgru.keras.GRU(UNITS), rows, jit_compile=False),
        "keras": Training(keras.layers.GRU(UNITS), rows, jit_compile=False),
    }
    if keras.backend.backend() == "tensorflow":
        found["keras, jit_compile"] = Training(keras.layers.GRU(UNITS), rows, jit_compile=True)
    weights = found["keras"].model.get_weights()
    for training in found.values():
        training.model.set_weights(weights)
    losses = {name: np.array([training.fit()]) for name, training in found.items()}
    for loss in losses.values():
        answers.check({"loss": losses["keras"]}, {"loss": loss}, ("loss",))
    return found


def run(options: Options, crew: Crew) -> Result:
    """Measure Keras with its own layer and with fastgru's."""
    del crew
    if importlib.util.find_spec("keras") is None:
        return Result(QUESTION, TITLE, COLUMNS, [], [], ["skipped: Keras is not installed"])
    import keras

    fastgru.set_num_threads(options.threads)
    table, rows = [], []
    for count in BATCH_SIZES:
        log(f"{QUESTION}, N={count}")
        found = contenders(count)
        for _ in range(options.rounds):
            for training in found.values():
                training.measure()
        ours = median(found["fastgru.keras"].seconds)
        for name, training in found.items():
            middle, shape = median(training.seconds), f"N={count} T={STEPS} F={FEATURES} H={UNITS}"
            table.append([shape, name, duration(middle), f"{middle / ours:.2f}", f"{spread(training.seconds):.0%}"])
            rows.append({"shape": shape, "contender": name, "seconds": training.seconds, "skipped": ""})
    notes = [f"Keras {keras.__version__} on {keras.backend.backend()}; KERAS_BACKEND=torch asks for the other one."]
    return Result(QUESTION, TITLE, COLUMNS, table, rows, notes)
