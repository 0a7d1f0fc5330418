"""The base classes of callbacks, and checks that several share."""

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
    """Base class of callbacks; override the methods that you need.

    A callback may use the model and set its weights, but not train, compile or extend it; see `fastgru.Sequential`.

    Attributes
    ----------
    model : Sequential
        The model that is trained or evaluated, or that predicts. ``model.stop_training = True`` ends the training after
        the batch or epoch.
    params : dict
        ``epochs``, ``steps`` (batches per epoch, None if unknown), ``verbose``, ``batch_size`` and ``samples``.
    """

    #: Whether the callback writes files. It is then called last, and not for an epoch that NaN has ended.
    writes_training: ClassVar[bool] = False
    #: Whether a loss that is not finite ends the training without an error.
    stops_at_nan: bool = False
    #: Names of the entries that the callback adds to each epoch's logs, where they are known before.
    adds_logs: ClassVar[tuple[str, ...]] = ()
    model: Any = None
    params: dict[str, Any]

    def __repr__(self) -> str:
        return as_call(self)

    def set_model(self, model: Any) -> None:
        """Receive the model."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Receive the parameters of the call."""
        self.params = params

    # --- Training ------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called when a training begins; `set_state` may follow."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called when a training has ended without an error, with the last epoch's logs."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called when an epoch begins, counted from 0.

        A training that is resumed within an epoch does not call it for that epoch: return what you need from
        `get_state`.
        """

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Called after each epoch with its loss and metrics, to which entries may be added."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each batch of a training, counted from 0 in each epoch; calls `on_batch_begin`."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Called after each batch of a training with the epoch's logs so far; calls `on_batch_end`."""
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

    # --- What fit, evaluate and predict ask ----------------------------------------------------------------------

    def watches(self, occasion: str) -> bool:
        """Whether a method that is called for each batch does anything; calls that do nothing would cost time."""
        names = (occasion, occasion.replace("_train", "")) if occasion.startswith("on_train") else (occasion,)
        return any(getattr(getattr(self, name), "__func__", None) is not getattr(Callback, name) for name in names)

    def get_state(self) -> dict[str, Any]:
        """What a resumed training needs: numbers, strings, lists, arrays, and dicts of them with strings as keys.

        `set_state` receives tuples as lists, and NumPy's numbers as Python's.
        """
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what `get_state` returned."""

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:
        """Raise unless `get_state` could have returned `state`, which comes from a file, for a model of `weights`."""

    def require_same(self, state: dict[str, Any]) -> None:
        """Raise unless this callback can continue from `state`, that is, unless the files that belong to it exist."""

    def may_add_logs(self) -> bool:
        """Whether the callback may add entries to an epoch's logs: whether it overrides `on_epoch_end`."""
        return not (type(self).on_epoch_end.__module__ or "").startswith(f"{__package__}.")

    def require_possible(self, logs: list[str], *, complete: bool, sometimes: Iterable[str] = ()) -> None:
        """Raise before the first epoch what would fail after it.

        Parameters
        ----------
        logs : list of str
            The names of the entries that an epoch's logs will have.
        complete : bool
            Whether these are all; if not, other callbacks may add some.
        sometimes : iterable of str
            Those that epochs without validation lack, where `validation_freq` leaves out epochs.
        """

    def require_saveable(self) -> None:
        """Raise before the first epoch if the model, which has its weights now, cannot be written as configured."""

    @property
    def resumable(self) -> bool:
        """Whether the files hold the whole training, so that all callbacks' states must be storable."""
        return self.writes_training

    def find_backup(self) -> str | None:
        """The file that this training shall be resumed from, if an earlier one left it."""
        return None


class Monitor(Callback):
    """Base class of callbacks that watch whether one entry of the logs improves."""

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        self.monitor = monitor
        self._automatic = checks.choice("mode", mode, ("auto", "min", "max")) == "auto"
        if self._automatic:  # from the name, until the model is known and its metric's own mode
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
                f"monitor: expected an entry of training because there is no validation_data, got {self.monitor!r} in "
                f"{type(self).__name__}"
            )
        self._refuse(logs)

    def _refuse(self, logs: Iterable[str]) -> NoReturn:
        raise ValueError(f"monitor: expected one of {', '.join(map(repr, logs))}, got {self.monitor!r}")

    def watched(self, logs: Logs | None) -> float | None:
        """The entry that is watched; None in an epoch that `validation_freq` leaves without validation."""
        if not logs or self.monitor not in logs:
            if self._announced:
                return None
            self._refuse(logs or ())
        return float(logs[self.monitor])

    def improved(self, value: float) -> bool:
        """Whether `value` is better than the best so far, by more than min_delta."""
        if self.mode == "min":
            return value < self.best - self.min_delta
        return value > self.best + self.min_delta


def require_numbers(state: dict[str, Any], *, counts: Iterable[str] = (), reals: Iterable[str] = ()) -> None:
    """Raise unless these entries of a state are integers of at least 0, and numbers."""
    for name in counts:
        checks.integer(name, state[name], least=0)
    for name in reals:
        checks.real(name, state[name])


def check_verbose(value: Any) -> bool:
    """Whether the callback prints what it does."""
    if value not in (0, 1):
        raise ValueError(f"verbose: expected 0 or 1, got {value!r}")
    return bool(value)


def check_save_freq(value: Any) -> str | int:
    """The value of `save_freq`: "epoch", or a number of batches."""
    return "epoch" if isinstance(value, str) and value == "epoch" else checks.integer("save_freq", value, least=1)


def require_target(argument: str, path: str) -> None:
    """Raise unless a file can be written at `path`, as far as the folder's name has no fields to fill in."""
    folder = os.path.dirname(path)
    if folder and "{" not in folder and not os.path.isdir(folder):
        raise FileNotFoundError(f"{argument}: expected a file in an existing folder, got {path}; create the folder")
    if "{" not in path:
        replaceable(path)
