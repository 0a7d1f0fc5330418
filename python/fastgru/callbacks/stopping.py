"""Callbacks that end training early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from fastgru._support import checks
from fastgru.callbacks.base import Callback, Logs, Monitor, check_verbose, require_numbers

Array = NDArray[Any]


class EarlyStopping(Monitor):
    """Stop training when a monitored value stops improving.

    Parameters
    ----------
    monitor : str, default "val_loss"
        The entry of the logs to monitor.
    min_delta : float, default 0.0
        Improvements of at most `min_delta` are ignored.
    patience : int, default 0
        The number of epochs without improvement after which training stops.
    verbose : {0, 1}
        Whether to print a line when training is stopped.
    mode : {"auto", "min", "max"}
        Whether smaller or larger values are better. "auto" uses the mode of the metric. For entries that are not
        metrics of the model, it is "max" for names of accuracies and F1, otherwise "min".
    baseline : float, optional
        Epochs with a value that is not better than `baseline` count as epochs without improvement.
    restore_best_weights : bool, default False
        Whether to restore the weights of the best epoch at the end, also if training was not stopped early.
    start_from_epoch : int, default 0
        Earlier epochs, counted from 0, are ignored.

    Attributes
    ----------
    stopped_epoch : int
        The epoch, counted from 0, after which training was stopped; 0 if it was not stopped.
    best_epoch : int
        The epoch with the best value, counted from 0.

    Examples
    --------
    >>> stop = callbacks.EarlyStopping(patience=3, restore_best_weights=True)
    >>> history = model.fit(x, y, epochs=100, validation_split=0.1, callbacks=[stop])
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
        self.verbose = check_verbose(verbose)
        self.baseline = None if baseline is None else checks.number("baseline", baseline)
        self.restore_best_weights = checks.flag("restore_best_weights", restore_best_weights)
        self.start_from_epoch = checks.integer("start_from_epoch", start_from_epoch, least=0)
        self.on_train_begin()

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self.wait = 0
        self.stopped_epoch = 0
        self.best_epoch = 0
        self.forget_best()
        self.best_weights: list[Array] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        value = self.watched(logs)
        if value is None or epoch < self.start_from_epoch:
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
                print(f"Epoch {epoch + 1}: early stopping, the best epoch was {self.best_epoch + 1}")

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
        require_numbers(state, counts=("wait", "stopped_epoch", "best_epoch"), reals=("best",))
        best = [name for name in state if name.startswith("weights/")]
        forms = [(array.shape, array.dtype) for array in weights]
        if best and [(state[f"weights/{i}"].shape, state[f"weights/{i}"].dtype) for i in range(len(best))] != forms:
            raise ValueError(f"best_weights: expected arrays of shapes {forms}, got different ones")

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        for name in ("wait", "stopped_epoch", "best_epoch", "best"):
            setattr(self, name, state[name])
        weights = [state[f"weights/{i}"] for i in range(sum(name.startswith("weights/") for name in state))]
        self.best_weights = weights or None


class TerminateOnNaN(Callback):
    """End training without an error if a loss, a gradient or an update of the weights is NaN or infinite.

    The model keeps the weights before that batch. As in Keras, the epoch ends there: the validation is run, and the
    logs contain the previous batches. Files that `ModelCheckpoint` wrote for earlier epochs are not changed.

    Parameters
    ----------
    raise_error : bool, default False
        Whether to raise FloatingPointError instead, as `Sequential.fit` does without this callback.
    """

    def __init__(self, raise_error: bool = False) -> None:
        self.raise_error = checks.flag("raise_error", raise_error)
        self.stops_at_nan = not self.raise_error
