"""Callbacks that change the learning rate between epochs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from fastgru._support import checks
from fastgru.callbacks.base import Callback, Logs, Monitor, check_verbose, require_numbers

Array = NDArray[Any]


class ReduceLROnPlateau(Monitor):
    """Reduce the learning rate when a monitored value stops improving. Adds ``learning_rate`` to the logs.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The entry of the logs to monitor.
    factor : float, default 0.1
        The factor of a reduction, above 0 and below 1.
    patience : int, default 10
        The number of epochs without improvement after which the learning rate is reduced.
    verbose : {0, 1}
        Whether to print a line when the learning rate is reduced.
    mode : {"auto", "min", "max"}
        Whether smaller or larger values are better. "auto" uses the mode of the metric.
    min_delta : float, default 1e-4
        Improvements of at most `min_delta` are ignored.
    cooldown : int, default 0
        The number of epochs after a reduction that do not count towards `patience`.
    min_lr : float, default 0.0
        The lower bound of the learning rate.
    """

    adds_logs: ClassVar[tuple[str, ...]] = ("learning_rate",)

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
        self.verbose = check_verbose(verbose)
        self.cooldown = checks.integer("cooldown", cooldown, least=0)
        self.min_lr = checks.number("min_lr", min_lr, least=0)
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self.wait = 0
        self.cooling = 0
        self.forget_best()
        if self.model is not None:
            _require_number(self)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        value = self.watched(logs)
        optimizer = self.model.optimizer
        if logs is not None:
            logs["learning_rate"] = optimizer.learning_rate
        if value is None:
            return
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
                    print(f"Epoch {epoch + 1}: reducing the learning rate to {optimizer.learning_rate:g}")

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"wait": self.wait, "cooling": self.cooling, "best": self.best}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        require_numbers(state, counts=("wait", "cooling"), reals=("best",))

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self.wait, self.cooling, self.best = state["wait"], state["cooling"], state["best"]


class LearningRateScheduler(Callback):
    """Set the learning rate at the beginning of each epoch. Adds ``learning_rate`` to the logs.

    A run that is resumed in the middle of an epoch takes the learning rate of this epoch from the file. Use
    `fastgru.schedules` to change the learning rate after each batch.

    Parameters
    ----------
    schedule : callable (epoch, learning_rate) or (epoch)
        Returns the learning rate of an epoch, given its number, counted from 0, and the current learning rate.
    verbose : {0, 1}
        Whether to print the learning rate of each epoch.
    """

    adds_logs: ClassVar[tuple[str, ...]] = ("learning_rate",)

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(f"schedule: expected a function of epoch and learning rate, got {schedule!r}")
        self.schedule = schedule
        self.verbose = check_verbose(verbose)
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
            print(f"Epoch {epoch + 1}: setting the learning rate to {optimizer.learning_rate:g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate


def _require_number(callback: Callback) -> None:
    """Raise if the learning rate is a schedule, because a callback cannot change a schedule."""
    rate = callback.model.optimizer.learning_rate
    if not isinstance(rate, float):
        raise TypeError(
            f"learning_rate: expected a number because {type(callback).__name__} changes it, got the schedule {rate!r}"
        )
