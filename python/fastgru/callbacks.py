"""Callbacks: what `fastgru.Sequential.fit` tells others about its progress, and what they can do about it.

They have Keras' names and arguments. Each can say its state and take it back, so that a training that was killed goes
on as if it had not been.
"""

from __future__ import annotations

import csv
import inspect
import io
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.files import check_path, naming, open_regular, replaceable
from fastgru.formats import native

Array = NDArray[Any]
Logs = dict[str, float]


class Callback:
    """Does nothing at each occasion; derive from it and override what you need.

    It may use the model, and set its weights, but not train, compile or extend it; see `fastgru.Sequential`.

    Attributes
    ----------
    model : Sequential
        Setting ``model.stop_training = True`` ends the training after the epoch.
    params : dict
        ``epochs``, ``batch_size`` and ``samples``.
    """

    model: Any = None
    params: dict[str, Any]

    def set_model(self, model: Any) -> None:
        """Be told whose training it is."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Be told how it was asked for."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Training begins; `set_state` may follow."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Training has ended, but for errors."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """An epoch begins, counted from 0; not where a training is resumed within it, so remember it in `get_state`."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """An epoch has ended, with its loss and metrics in `logs`, which may be added to."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """A batch begins, counted from 0."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """A batch has been trained on; `logs` are the epoch's so far."""

    def watches_batches(self) -> bool:
        """Whether it has to be told of batches, which costs time: if it overrides one of these methods."""
        own = type(self)
        return (
            own.on_train_batch_begin is not Callback.on_train_batch_begin
            or own.on_train_batch_end is not Callback.on_train_batch_end
        )

    def get_state(self) -> dict[str, Any]:
        """What has to survive if the training is killed: numbers, strings, lists, arrays, dicts of them by strings.

        Tuples come back as lists, NumPy's numbers as Python's.
        """
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:
        """Raise unless `get_state` could have returned that for a model with these weights: it comes from a file."""

    def require_same(self, state: dict[str, Any]) -> None:
        """Raise unless this callback can go on from the state: unless the files that belong to it are there."""

    def may_add_logs(self) -> bool:
        """Whether it may add entries of its own to an epoch's logs: if it overrides `on_epoch_end`."""
        return type(self).on_epoch_end.__module__ != __name__

    def require_possible(self, logs: list[str], *, complete: bool) -> None:
        """Raise before the first epoch, not after it, what cannot go well.

        Parameters
        ----------
        logs : list of str
            The entries that an epoch's logs will have.
        complete : bool
            Whether these are all; if not, other callbacks may add some.
        """


class Callbacks:
    """Several callbacks as one; those that write files come last, so that they see what the others have done."""

    def __init__(self, callbacks: Iterable[Callback], model: Any, params: dict[str, Any]) -> None:
        self._all = sorted(callbacks, key=lambda callback: isinstance(callback, ModelCheckpoint))
        self.of_batches = [callback for callback in self._all if callback.watches_batches()]
        for callback in self._all:
            callback.set_model(model)
            callback.set_params(params)

    def tell(self, occasion: str, *arguments: Any, write: bool = True) -> None:
        """Tell those that want to know, in order; without `write`, none of those that write the training to files."""
        for callback in self.of_batches if "batch" in occasion else self._all:
            if write or not isinstance(callback, ModelCheckpoint):
                getattr(callback, occasion)(*arguments)

    def require_possible(self, logs: list[str]) -> None:
        """Raise before the first epoch, not after it, what cannot go well, given the entries that logs will have."""
        if any(isinstance(callback, (LearningRateScheduler, ReduceLROnPlateau)) for callback in self._all):
            logs = [*logs, "learning_rate"]
        for callback in self._all:
            others = (other for other in self._all if other is not callback)
            callback.require_possible(logs, complete=not any(other.may_add_logs() for other in others))

    def write_files(self) -> bool:
        """Whether the training is to be written to files."""
        return any(isinstance(callback, ModelCheckpoint) for callback in self._all)

    def require_saveable(self) -> None:
        """Raise before the first epoch, not after it, if there will be files and one's state cannot be in them."""
        if self.write_files():
            for callback in self._all:
                native.split_arrays(f"{type(callback).__name__}.get_state()", callback.get_state())

    def stops_at_nan(self) -> bool:
        """Whether a loss that is not finite ends the training without an error."""
        return any(isinstance(callback, TerminateOnNaN) for callback in self._all)

    def get_state(self) -> list[dict[str, Any]]:
        """The states of all, in order."""
        return [{"class_name": type(c).__name__, "state": c.get_state()} for c in self._all]

    def require_sound(self, states: list[dict[str, Any]], weights: Sequence[Array]) -> None:
        """Raise unless `get_state` could have returned that; of callbacks of other classes it is not known."""
        for state in states:
            if not isinstance(state["class_name"], str) or not isinstance(state["state"], dict):
                raise TypeError(f"callbacks: expected the name of a class and its state, got {state!r:.100}")
        for callback, state in zip(self._all, states, strict=False):
            if type(callback).__name__ == state["class_name"]:
                callback.require_sound(state["state"], weights)

    def require_same(self, states: list[dict[str, Any]]) -> None:
        """Raise unless these are states of such callbacks."""
        names = [type(callback).__name__ for callback in self._all]
        if (saved := [state["class_name"] for state in states]) != names:
            raise ValueError(f"callbacks: expected {saved} because the training to resume had these, got {names}")
        for callback, state in zip(self._all, states, strict=True):
            callback.require_same(state["state"])

    def set_state(self, states: list[dict[str, Any]]) -> None:
        """Give each its state back."""
        for callback, state in zip(self._all, states, strict=True):
            callback.set_state(state["state"])


class _Watching(Callback):
    """Watches one entry of the logs for the better."""

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        self.monitor = monitor
        self._automatic = checks.choice("mode", mode, ("auto", "min", "max")) == "auto"
        if self._automatic:  # as the name has it, until there is a model whose metric says so itself
            mode = "max" if monitor.endswith(("accuracy", "acc", "f1_score", "f1", "auc")) else "min"
        self.mode = mode
        self.min_delta = checks.number("min_delta", min_delta, least=0)
        self._forget_best()

    def _forget_best(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        modes = {metric.name: metric.mode for metric in model.metrics}
        mode = modes.get(self.monitor.removeprefix("val_"), self.mode)
        if self._automatic and mode != self.mode:
            self.mode = mode
            self._forget_best()

    def require_possible(self, logs: list[str], *, complete: bool) -> None:
        if self.monitor in logs or not complete:
            return
        if self.monitor.startswith("val_") and not any(name.startswith("val_") for name in logs):
            raise ValueError(
                f"monitor: expected an entry of training because there is no validation_data, got {self.monitor!r} in "
                f"{type(self).__name__}"
            )
        self._refuse(logs)

    def _refuse(self, logs: Iterable[str]) -> NoReturn:
        raise ValueError(f"monitor: expected one of {', '.join(map(repr, logs))}, got {self.monitor!r}")

    def watched(self, logs: Logs | None) -> float:
        """The entry that is watched."""
        if not logs or self.monitor not in logs:
            self._refuse(logs or ())
        return float(logs[self.monitor])

    def improved(self, value: float) -> bool:
        """Whether `value` is better than the best so far, by more than min_delta."""
        if self.mode == "min":
            return value < self.best - self.min_delta
        return value > self.best + self.min_delta


def _require_numbers(state: dict[str, Any], *, counts: Iterable[str] = (), reals: Iterable[str] = ()) -> None:
    """Raise unless these entries of a state are integers from 0, and numbers."""
    for name in counts:
        checks.integer(name, state[name], least=0)
    for name in reals:
        checks.real(name, state[name])


def _verbose(value: Any) -> bool:
    """Whether to print a line where something is done."""
    if value not in (0, 1):
        raise ValueError(f"verbose: expected 0 or 1, got {value!r}")
    return bool(value)


class EarlyStopping(_Watching):
    """Stop when a monitored value no longer improves.

    Parameters
    ----------
    monitor : str
        An entry of the logs.
    min_delta : float
        Improvements up to this do not count.
    patience : int
        How many epochs without improvement to allow.
    verbose : {0, 1}
        Whether to print when it stops the training.
    mode : {"auto", "min", "max"}
        Which way is better; "auto" takes what the metric says, and by other names "max" for accuracies and F1.
    baseline : float, optional
        What has to be improved on to begin with.
    restore_best_weights : bool
        Whether to leave the model with the weights of its best epoch, also where `epochs` ended before patience did.
    start_from_epoch : int
        Epochs before this one are not looked at.

    Attributes
    ----------
    stopped_epoch : int
        The epoch after which training was stopped; 0 if it was not.
    best_epoch : int
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = checks.integer("patience", patience, least=0)
        self.verbose = _verbose(verbose)
        self.baseline = None if baseline is None else checks.number("baseline", baseline)
        self.restore_best_weights = checks.flag("restore_best_weights", restore_best_weights)
        self.start_from_epoch = checks.integer("start_from_epoch", start_from_epoch, least=0)
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self.wait = 0
        self.stopped_epoch = 0
        self.best_epoch = 0
        self._forget_best()
        self.best_weights: list[Array] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        value = self.watched(logs)
        if epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.improved(value):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._beats_baseline(value):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True
            if self.verbose:
                print(f"Epoch {epoch + 1}: EarlyStopping ends the training, the best was epoch {self.best_epoch + 1}")

    def _beats_baseline(self, value: float) -> bool:
        assert self.baseline is not None
        return value < self.baseline if self.mode == "min" else value > self.baseline

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: D102
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        state: dict[str, Any] = {name: getattr(self, name) for name in ("wait", "stopped_epoch", "best_epoch", "best")}
        return state | {f"weights/{i}": array for i, array in enumerate(self.best_weights or ())}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        _require_numbers(state, counts=("wait", "stopped_epoch", "best_epoch"), reals=("best",))
        best = [name for name in state if name.startswith("weights/")]
        forms = [(array.shape, array.dtype) for array in weights]
        if best and [(state[f"weights/{i}"].shape, state[f"weights/{i}"].dtype) for i in range(len(best))] != forms:
            raise ValueError(f"best_weights: expected arrays of shapes {forms}, got others")

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        for name in ("wait", "stopped_epoch", "best_epoch", "best"):
            setattr(self, name, state[name])
        weights = [state[f"weights/{i}"] for i in range(sum(name.startswith("weights/") for name in state))]
        self.best_weights = weights or None


class ModelCheckpoint(_Watching):
    """Write the training to a file as it goes, whole: `Sequential.fit` can go on from it, and `load_model` reads it.

    The file is written when all callbacks have been told of the epoch or batch, and holds what each made of it. An
    epoch that `TerminateOnNaN` ends early is not written.

    Parameters
    ----------
    filepath : path
        May hold ``{epoch}``, counted from 1, and entries of the logs: ``"{epoch:02d}-{val_loss:.3f}.safetensors"``. The
        file is replaced atomically.
    monitor : str
        An entry of the logs, for `save_best_only`.
    verbose : {0, 1}
        Whether to print when a file is written.
    save_best_only : bool
        Whether to write after the best epochs only.
    save_weights_only : bool
        False: weights alone are not enough to go on from. `Sequential.get_weights` has them.
    mode : {"auto", "min", "max"}
        Which way is better.
    save_freq : "epoch" or int
        Write after each epoch, or after every so many batches, which also makes a resumed training continue within an
        epoch.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
    ) -> None:
        super().__init__(monitor, mode, 0.0)
        check_path(filepath, "filepath")
        self.filepath = os.fspath(filepath)
        self.verbose = _verbose(verbose)
        self.save_best_only = checks.flag("save_best_only", save_best_only)
        if checks.flag("save_weights_only", save_weights_only):
            raise ValueError("save_weights_only: expected False because a training cannot go on from weights, got True")
        if save_freq != "epoch":
            save_freq = checks.integer("save_freq", save_freq, least=1)
            if self.save_best_only:
                raise ValueError("save_freq: expected 'epoch' because save_best_only is True, got a number of batches")
        self.save_freq = save_freq
        self._batches = 0
        self._epoch = 0

    def watches_batches(self) -> bool:  # noqa: D102
        return self.save_freq != "epoch"

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._epoch = epoch

    def require_possible(self, logs: list[str], *, complete: bool) -> None:  # noqa: D102
        if self.save_best_only:
            super().require_possible(logs, complete=complete)
        if self.save_freq != "epoch":
            logs = [name for name in logs if not name.startswith("val_")]
        if complete:
            self._path(dict.fromkeys(logs, 0.0))
        _require_target("filepath", self.filepath)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._batches += 1
        if self._batches % int(self.save_freq) == 0:
            self._save(logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        if self.save_freq != "epoch":
            return
        if self.save_best_only:
            value = self.watched(logs)
            if not self.improved(value):
                return
            self.best = value
        self._save(logs)

    def _save(self, logs: Logs | None) -> None:
        path = self._path(logs)
        self.model.save_training(path)
        if self.verbose:
            print(f"Epoch {self._epoch + 1}: ModelCheckpoint has written {path}")

    def _path(self, logs: Logs | None) -> str:
        try:
            return self.filepath.format(epoch=self._epoch + 1, **(logs or {}))
        except (LookupError, ValueError) as error:
            names = ", ".join(["epoch", *(logs or ())])
            raise ValueError(f"filepath: expected fields of {names}, got {self.filepath!r} ({error!r})") from None

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"best": self.best, "batches": self._batches, "epoch": self._epoch}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        _require_numbers(state, counts=("batches", "epoch"), reals=("best",))

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.best, self._batches, self._epoch = state["best"], state["batches"], state["epoch"]


class ReduceLROnPlateau(_Watching):
    """Lower the learning rate when a monitored value no longer improves; adds ``learning_rate`` to the logs.

    Parameters
    ----------
    monitor : str
        An entry of the logs.
    factor : float
        What the rate is multiplied by; below 1.
    patience : int
        How many epochs without improvement to allow.
    verbose : {0, 1}
        Whether to print when it lowers the rate.
    mode : {"auto", "min", "max"}
        Which way is better.
    min_delta : float
        Improvements up to this do not count.
    cooldown : int
        Epochs to wait after a reduction before counting again.
    min_lr : float
        The rate does not go below.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = checks.number("factor", factor, above=0, below=1)
        self.patience = checks.integer("patience", patience, least=0)
        self.verbose = _verbose(verbose)
        self.cooldown = checks.integer("cooldown", cooldown, least=0)
        self.min_lr = checks.number("min_lr", min_lr, least=0)
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self.wait = 0
        self.cooling = 0
        self._forget_best()
        if self.model is not None:
            _require_number(self)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        value = self.watched(logs)
        optimizer = self.model.optimizer
        if logs is not None:
            logs["learning_rate"] = optimizer.learning_rate
        if self.cooling:
            self.cooling -= 1
            self.wait = 0
        if self.improved(value):
            self.best, self.wait = value, 0
        elif not self.cooling:
            self.wait += 1
            if self.wait >= self.patience and optimizer.learning_rate > self.min_lr:
                optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
                self.cooling, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: ReduceLROnPlateau lowers the rate to {optimizer.learning_rate:g}")

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"wait": self.wait, "cooling": self.cooling, "best": self.best}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        _require_numbers(state, counts=("wait", "cooling"), reals=("best",))

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.wait, self.cooling, self.best = state["wait"], state["cooling"], state["best"]


class LearningRateScheduler(Callback):
    """Set the learning rate as each epoch begins; adds ``learning_rate`` to the logs.

    A resumed training finds the rate of its epoch in the file. `fastgru.schedules` change the rate from batch to batch.

    Parameters
    ----------
    schedule : callable (epoch, learning_rate) or (epoch)
        Returns the epoch's rate, given its number, counted from 0, and the rate so far.
    verbose : {0, 1}
        Whether to print each epoch's rate.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(f"schedule: expected a function of epoch and learning rate, got {schedule!r}")
        self.schedule = schedule
        self.verbose = _verbose(verbose)
        try:
            inspect.signature(schedule).bind(0, 0.0)
            self._takes_rate = True
        except TypeError:
            self._takes_rate = False

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        _require_number(self)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        optimizer = self.model.optimizer
        rate = self.schedule(epoch, optimizer.learning_rate) if self._takes_rate else self.schedule(epoch)
        optimizer.learning_rate = checks.number(f"schedule({epoch})", rate, above=0)
        if self.verbose:
            print(f"Epoch {epoch + 1}: LearningRateScheduler sets the rate to {optimizer.learning_rate:g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate


def _require_number(callback: Callback) -> None:
    """Raise if the learning rate that the callback is to change is a schedule."""
    rate = callback.model.optimizer.learning_rate
    if not isinstance(rate, float):
        raise TypeError(
            f"learning_rate: expected a number because {type(callback).__name__} changes it, got the schedule {rate!r}"
        )


class CSVLogger(Callback):
    """Write a line of the logs after each epoch.

    Parameters
    ----------
    filename : path
    separator : str
    append : bool
        Whether to keep what the file holds. A resumed training keeps the lines of the epochs that it resumes after.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        check_path(filename, "filename")
        self.filename = os.fspath(filename)
        if not isinstance(separator, str) or len(separator) != 1:
            raise ValueError(f"separator: expected a single character, got {separator!r}")
        self.separator = separator
        self.append = checks.flag("append", append)
        self._columns: list[str] = []
        self._size = 0  # of what this training has written, and of what it keeps before that

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self._columns, self._size = [], 0
        if self.append and os.path.exists(self.filename):
            with io.TextIOWrapper(open_regular(self.filename), newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file, delimiter=self.separator), [])
            self._size = os.path.getsize(self.filename)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        values = {"epoch": epoch, **(logs or {})}
        new = not self._columns
        if new:
            self._columns = list(values)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, delimiter=self.separator, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(values)
        replaceable(self.filename)
        with naming(self.filename), open(self.filename, "r+b" if self._size else "wb") as file:
            file.seek(self._size)
            file.truncate()  # lines of epochs after a checkpoint, which are done again
            file.write(text.getvalue().encode())
        self._size = os.path.getsize(self.filename)

    def require_possible(self, logs: list[str], *, complete: bool) -> None:  # noqa: D102
        _require_target("filename", self.filename)

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"columns": self._columns, "size": self._size}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        _require_numbers(state, counts=("size",))
        if not isinstance(state["columns"], list) or not all(isinstance(name, str) for name in state["columns"]):
            raise TypeError(f"columns: expected a list of names, got {state['columns']!r:.100}")

    def require_same(self, state: dict[str, Any]) -> None:  # noqa: D102
        size = os.path.getsize(self.filename) if os.path.exists(self.filename) else 0
        if size < state["size"]:
            raise ValueError(
                f"filename: expected {self.filename} with at least {state['size']} bytes because the training to "
                f"resume had written them, got {size}"
            )

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self._columns, self._size = list(state["columns"]), state["size"]


class TerminateOnNaN(Callback):
    """End the training without an error where a loss, its gradient or the update is NaN or infinite.

    The weights are those before that batch.

    As in Keras the epoch ends there, with validation and the logs of the batches before. No file is written for it:
    those that `ModelCheckpoint` wrote before stay.
    """


class LambdaCallback(Callback):
    """Call functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable (epoch, logs), optional
    on_train_batch_begin, on_train_batch_end : callable (batch, logs), optional
    on_train_begin, on_train_end : callable (logs), optional
    """

    OCCASIONS = (
        "on_epoch_begin",
        "on_epoch_end",
        "on_train_batch_begin",
        "on_train_batch_end",
        "on_train_begin",
        "on_train_end",
    )

    def __init__(self, **functions: Callable[..., Any] | None) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        for occasion, function in functions.items():
            checks.choice("occasion", occasion, self.OCCASIONS)
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"{occasion}: expected a function, got {function!r}")
            self._functions[occasion] = function

    def watches_batches(self) -> bool:  # noqa: D102
        return any("batch" in occasion for occasion in self._functions)

    def may_add_logs(self) -> bool:  # noqa: D102
        return "on_epoch_end" in self._functions

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._call("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._call("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._call("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self._call("on_train_batch_end", batch, logs)

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self._call("on_train_begin", logs)

    def on_train_end(self, logs: Logs | None = None) -> None:  # noqa: D102
        self._call("on_train_end", logs)

    def _call(self, occasion: str, *arguments: Any) -> None:
        if occasion in self._functions:
            self._functions[occasion](*arguments)


def _require_target(argument: str, path: str) -> None:
    """Raise unless a file can be written there, as far as that is known of a name with fields."""
    folder = os.path.dirname(path)
    if folder and "{" not in folder and not os.path.isdir(folder):
        raise FileNotFoundError(f"{argument}: expected a file in an existing folder, got {path}")
    if "{" not in path:
        replaceable(path)


def check(callbacks: Any) -> list[Callback]:
    """A list of callbacks from what `fit` was given."""
    if callbacks is None:
        return []
    if isinstance(callbacks, Callback):
        return [callbacks]
    found = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for callback in found:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: expected objects of fastgru.callbacks.Callback, got {callback!r}")
    return found
