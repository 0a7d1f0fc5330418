"""The base classes of callbacks, and common checks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NoReturn

from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.files import replaceable
from fastgru._support.representation import as_call

Array = NDArray[Any]
Logs = dict[str, Any]


class Callback:
    """Base class of all callbacks. Derive from it and override the methods that you need.

    A callback may call ``predict``, ``evaluate``, ``save`` and ``set_weights`` of the model, but not train or compile
    it, or add layers; see `fastgru.Sequential`. In training and evaluation, ``logs`` are dicts of str to float.

    Attributes
    ----------
    model : Sequential
        The model that is trained or evaluated, or that predicts. Set ``model.stop_training = True`` to end training
        after the current batch or epoch.
    params : dict
        ``epochs``, ``steps`` (batches per epoch, None if unknown), ``verbose``, ``batch_size`` and ``samples``.
    """

    #: Whether the callback writes files. It is then called last, and is not called for an epoch that a NaN ended early.
    writes_training: ClassVar[bool] = False
    #: Whether a loss of NaN or infinity ends training without an error.
    stops_at_nan: bool = False
    #: Names of the entries that the callback adds to each epoch's logs, if known in advance.
    adds_logs: ClassVar[tuple[str, ...]] = ()
    model: Any = None
    params: dict[str, Any]

    def __repr__(self) -> str:
        return as_call(self)

    def set_model(self, model: Any) -> None:
        """Set `model`. Called before all other methods."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Set `params`, the parameters of the call."""
        self.params = params

    # --- Training ------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called when `fit` begins. If a training run is resumed, `set_state` is called afterwards."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called when `fit` has ended without an error, with the logs of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called when an epoch begins, counted from 0.

        It is not called for an epoch that a training run resumes in the middle. Save the values that you need with
        `get_state`.
        """

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called after each epoch with its loss and metrics in `logs`. The callback may add entries to `logs`."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each training batch, counted from 0 in each epoch. Calls `on_batch_begin`."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each training batch, with the loss and metrics of the epoch so far. Calls `on_batch_end`."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Older name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Older name of `on_train_batch_end`."""

    # --- Evaluation and prediction -------------------------------------------------------------------------------

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Called when `evaluate` or a validation within `fit` begins."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Called when `evaluate` or a validation has ended, with its loss and metrics."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each batch of an evaluation, counted from 0."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each batch of an evaluation with the loss and the metrics so far."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Called when `predict` begins."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Called when `predict` has ended."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each batch of a prediction, counted from 0."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each batch of a prediction, with its outputs in ``logs["outputs"]``."""

    # --- Methods that fit, evaluate and predict call -------------------------------------------------------------

    def watches(self, occasion: str) -> bool:
        """Return whether the callback implements a method called for each batch. Other calls are skipped."""
        names = (occasion, occasion.replace("_train", "")) if occasion.startswith("on_train") else (occasion,)
        return any(getattr(getattr(self, name), "__func__", None) is not getattr(Callback, name) for name in names)

    def get_state(self) -> dict[str, Any]:
        """Return the state that a resumed training run needs.

        Returns
        -------
        dict of str to object
            Numbers, strings, lists, arrays, and dicts of these with string keys. `set_state` receives tuples as lists,
            and NumPy scalars as Python numbers.
        """
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that `get_state` returned."""

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:
        """Raise if `state`, read from a file, is not a valid state of this callback for a model with `weights`."""

    def require_same(self, state: dict[str, Any]) -> None:
        """Raise if this callback cannot resume from `state`, for example because its files do not exist."""

    def may_add_logs(self) -> bool:
        """Whether the callback may add entries to an epoch's logs, because it overrides `on_epoch_end`."""
        return not (type(self).on_epoch_end.__module__ or "").startswith(f"{__package__}.")

    def require_possible(self, logs: list[str], *, complete: bool, sometimes: Iterable[str] = ()) -> None:
        """Raise errors before the first epoch that would otherwise occur after it.

        Parameters
        ----------
        logs : list of str
            The names of the entries in an epoch's logs.
        complete : bool
            Whether `logs` is complete. If False, other callbacks may add entries.
        sometimes : iterable of str
            The names of entries that are missing in epochs without validation, because of `validation_freq`.
        """

    def require_saveable(self) -> None:
        """Raise before the first epoch if the model, which is now built, cannot be saved as configured."""

    @property
    def resumable(self) -> bool:
        """Whether the callback writes the whole training run, which includes the states of all callbacks."""
        return self.writes_training

    def find_backup(self) -> str | None:
        """Return the file that an interrupted training run left, or None. Training resumes from it."""
        return None


class Monitor(Callback):
    """Base class of callbacks that monitor whether an entry of the logs improves."""

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        self.monitor = monitor
        self._automatic = checks.choice("mode", mode, ("auto", "min", "max")) == "auto"
        if self._automatic:  # from the name, until the mode of the model's metric is known
            mode = "max" if monitor.endswith(("accuracy", "acc", "f1_score", "f1", "auc")) else "min"
        self.mode = mode
        self.min_delta = checks.number("min_delta", min_delta, least=0)
        self._announced = False
        self.forget_best()

    def __repr__(self) -> str:
        return as_call(self, lambda: {"mode": "auto" if self._automatic else self.mode})

    def forget_best(self) -> None:
        """Reset the best value."""
        self.best = math.inf if self.mode == "min" else -math.inf

    def set_model(self, model: Any) -> None:  # noqa: D102
        super().set_model(model)
        modes = {metric.name: metric.mode for metric in model.metrics}
        mode = modes.get(self.monitor.removeprefix("val_"), self.mode)
        if self._automatic and mode != self.mode:
            self.mode = mode
            self.forget_best()

    def require_possible(self, logs: list[str], *, complete: bool, sometimes: Iterable[str] = ()) -> None:  # noqa: D102
        self._announced = self.monitor in sometimes
        if self.monitor in logs or not complete:
            return
        if self.monitor.startswith("val_") and not any(name.startswith("val_") for name in logs):
            raise ValueError(
                f"monitor: expected a training metric because there is no validation_data, got {self.monitor!r} in "
                f"{type(self).__name__}"
            )
        self._refuse(logs)

    def _refuse(self, logs: Iterable[str]) -> NoReturn:
        raise ValueError(f"monitor: expected one of {', '.join(map(repr, logs))}, got {self.monitor!r}")

    def watched(self, logs: Logs | None) -> float | None:
        """Return the monitored value; None in an epoch without validation, because of `validation_freq`."""
        if not logs or self.monitor not in logs:
            if self._announced:
                return None
            self._refuse(logs or ())
        return float(logs[self.monitor])

    def improved(self, value: float) -> bool:
        """Return whether `value` is better than the best value so far by more than `min_delta`."""
        if self.mode == "min":
            return value < self.best - self.min_delta
        return value > self.best + self.min_delta


def require_numbers(state: dict[str, Any], *, counts: Iterable[str] = (), reals: Iterable[str] = ()) -> None:
    """Raise if entries of a state are not integers of at least 0 (`counts`), or not numbers (`reals`)."""
    for name in counts:
        checks.integer(name, state[name], least=0)
    for name in reals:
        checks.real(name, state[name])


def check_verbose(value: Any) -> bool:
    """Check `verbose`, and return whether the callback prints messages."""
    if value not in (0, 1):
        raise ValueError(f"verbose: expected 0 or 1, got {value!r}")
    return bool(value)


def check_save_freq(value: Any) -> str | int:
    """Check and return `save_freq`: "epoch", or a number of batches."""
    return "epoch" if isinstance(value, str) and value == "epoch" else checks.integer("save_freq", value, least=1)


def require_target(argument: str, path: str) -> None:
    """Raise if the folder of `path` does not exist, unless its name contains fields."""
    folder = os.path.dirname(path)
    if folder and "{" not in folder and not os.path.isdir(folder):
        raise FileNotFoundError(f"{argument}: expected a file in an existing folder, got {path}; create the folder")
    if "{" not in path:
        replaceable(path)
