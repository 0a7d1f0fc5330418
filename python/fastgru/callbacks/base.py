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

    #: Whether it writes the training to files; it is then told last, so that the files hold what the others did.
    writes_training: ClassVar[bool] = False
    #: Whether a loss that is not finite ends the training without an error.
    stops_at_nan: ClassVar[bool] = False
    #: Entries that it adds to each epoch's logs, of those known before.
    adds_logs: ClassVar[tuple[str, ...]] = ()
    model: Any = None
    params: dict[str, Any]

    def __repr__(self) -> str:
        return as_call(self)

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
        return not type(self).on_epoch_end.__module__.startswith(f"{__package__}.")

    def require_possible(self, logs: list[str], *, complete: bool) -> None:
        """Raise before the first epoch, not after it, what cannot go well.

        Parameters
        ----------
        logs : list of str
            The entries that an epoch's logs will have.
        complete : bool
            Whether these are all; if not, other callbacks may add some.
        """


class Monitor(Callback):
    """Watches one entry of the logs for the better."""

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        self.monitor = monitor
        self._automatic = checks.choice("mode", mode, ("auto", "min", "max")) == "auto"
        if self._automatic:  # as the name has it, until there is a model whose metric says so itself
            mode = "max" if monitor.endswith(("accuracy", "acc", "f1_score", "f1", "auc")) else "min"
        self.mode = mode
        self.min_delta = checks.number("min_delta", min_delta, least=0)
        self.forget_best()

    def __repr__(self) -> str:
        return as_call(self, lambda: {"mode": "auto" if self._automatic else self.mode})

    def forget_best(self) -> None:
        """Begin anew."""
        self.best = math.inf if self.mode == "min" else -math.inf

    def set_model(self, model: Any) -> None:  # noqa: D102
        super().set_model(model)
        modes = {metric.name: metric.mode for metric in model.metrics}
        mode = modes.get(self.monitor.removeprefix("val_"), self.mode)
        if self._automatic and mode != self.mode:
            self.mode = mode
            self.forget_best()

    def require_possible(self, logs: list[str], *, complete: bool) -> None:  # noqa: D102
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


def require_numbers(state: dict[str, Any], *, counts: Iterable[str] = (), reals: Iterable[str] = ()) -> None:
    """Raise unless these entries of a state are integers from 0, and numbers."""
    for name in counts:
        checks.integer(name, state[name], least=0)
    for name in reals:
        checks.real(name, state[name])


def check_verbose(value: Any) -> bool:
    """Whether to print a line where something is done."""
    if value not in (0, 1):
        raise ValueError(f"verbose: expected 0 or 1, got {value!r}")
    return bool(value)


def require_target(argument: str, path: str) -> None:
    """Raise unless a file can be written there, as far as that is known of a name with fields."""
    folder = os.path.dirname(path)
    if folder and "{" not in folder and not os.path.isdir(folder):
        raise FileNotFoundError(f"{argument}: expected a file in an existing folder, got {path}")
    if "{" not in path:
        replaceable(path)
