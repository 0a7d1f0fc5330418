"""Training that is killed at random times and resumed ends with the same bytes as uninterrupted training."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fastgru
import numpy as np
from fastgru import Sequential, callbacks, layers, optimizers, schedules
from models import classifier, samples

from campaign.kills import KILLED, forked
from campaign.run import Run

_EPOCHS = 6
_MOST_KILLS = 3
#: Files of a training run: the last two are compared, training resumes from the first.
_CHECKPOINT, _MODEL, _LOG = "run.safetensors", "model.safetensors", "log.csv"


def run(run: Run) -> None:
    check(run, TRAININGS)


def check(run: Run, trainings: Sequence[Training]) -> None:
    """Kill and resume each training run, repeatedly."""
    expected, durations = [], []
    for number, train in enumerate(trainings):
        folder = run.scratch / f"whole{number}"
        folder.mkdir()
        begin = time.perf_counter()
        _at_work(train, folder)
        durations.append(time.perf_counter() - begin)
        expected.append(_results(folder))
    for number in run.cases(least=len(trainings)):
        which = number % len(trainings)
        folder = run.scratch / str(number)
        folder.mkdir()
        _killed_and_resumed(run, trainings[which], folder, durations[which], number)
        for name, content in _results(folder).items():
            if content != expected[which][name]:
                run.found(f"training {which}: {name} differs from that of a training never killed", "", number)
        run.counts["trainings"] += 1


def _killed_and_resumed(run: Run, train: Training, folder: Path, duration: float, number: int) -> None:
    random = run.random(number)
    for _ in range(random.randint(1, _MOST_KILLS)):
        with forked(lambda: train(folder)) as child:
            time.sleep(random.uniform(0.05, 1) * duration)
            child.kill()
        if child.status not in (KILLED, 0):  # 0: training finished before the kill
            run.found("a training ended by itself", f"status {child.status}", number)
        run.counts["kills"] += not (folder / _MODEL).exists()
        run.counts["resumed"] += (folder / _CHECKPOINT).exists()
    status = _at_work(train, folder)
    if status != 0 or not (folder / _MODEL).exists():
        run.found("a resumed training failed", f"status {status}, {sorted(os.listdir(folder))}", number)


def _at_work(train: Training, folder: Path) -> int:
    with forked(lambda: train(folder)) as child:
        pass
    return child.status


def _results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() if (folder / name).exists() else b"" for name in (_MODEL, _LOG)}


# --- Training runs --------------------------------------------------------------------------------------------------

#: Trains in the folder, from its checkpoint if there is one, and writes the model at the end.
Training = Callable[[Path], None]


def _fit(folder: Path, model: Sequential, *data: Any, told: list[callbacks.Callback] | None = None, **options: Any):
    checkpoint = folder / _CHECKPOINT
    resume = checkpoint if checkpoint.exists() else None
    log = folder / _LOG
    model.fit(
        *data,
        epochs=_EPOCHS,
        verbose=0,
        resume_from=resume,
        callbacks=[
            *(told or []),
            callbacks.CSVLogger(log, append=resume is not None),
            callbacks.ModelCheckpoint(checkpoint, save_freq=options.pop("save_freq", 3)),
        ],
        **options,
    )
    model.save(folder / _MODEL)


def _data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    return samples(seed, 72, 9, features=4, classes=3)


def _lengths_and_dropouts(folder: Path) -> None:
    fastgru.set_seed(1)
    x, y = _data(1)
    model = Sequential(
        [
            layers.Bidirectional(layers.GRU(7, return_sequences=True, dropout=0.2), input_shape=(9, 4)),
            layers.Dropout(0.3),
            layers.GRU(5, recurrent_dropout=0.1),
            layers.Dense(3, activation="softmax", kernel_regularizer="l2"),
        ]
    )
    model.compile(
        optimizers.AdamW(schedules.OneCycle(0.01, 60), global_clipnorm=1.0),
        "categorical_crossentropy",
        metrics=["accuracy"],
    )
    stop = callbacks.EarlyStopping(patience=50, restore_best_weights=True)
    lengths = np.random.default_rng(2).integers(0, 10, len(x))
    _fit(folder, model, x, y, lengths=lengths, validation_split=0.1, batch_size=8, told=[stop])


def _stateful(folder: Path) -> None:
    optimizer = optimizers.SGD(0.05, momentum=0.9, nesterov=True)
    model = classifier(
        6, classes=3, input_shape=(9, 4), stateful=True, optimizer=optimizer, metrics=["f1_score"], seed=2
    )
    plateau = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=0.1)
    _fit(folder, model, *_data(2), batch_size=12, shuffle=False, told=[plateau])


class _Stream:
    """The same batches in every iteration."""

    def __iter__(self):
        x, y = _data(3)
        for begin in range(0, len(x), 10):
            yield {"x": x[begin : begin + 10], "y": y[begin : begin + 10]}


def _stream(folder: Path) -> None:
    optimizer = optimizers.RMSprop(0.005, momentum=0.3, centered=True)
    model = classifier(8, classes=3, input_shape=(None, 4), dropout=0.1, optimizer=optimizer, metrics=())
    _fit(folder, model, _Stream(), save_freq=2)


TRAININGS: tuple[Training, ...] = (_lengths_and_dropouts, _stateful, _stream)
