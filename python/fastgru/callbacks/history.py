"""The callback that records the loss and metrics of each epoch."""

from __future__ import annotations

from typing import Any

from fastgru._support import checks
from fastgru.callbacks.base import Callback, Logs


class History(Callback):
    """Record the logs of each epoch. `Sequential.fit` returns a History.

    If `callbacks` of `fit` contains a History, `fit` fills and returns this object. Its `repr` is a summary that cannot
    be evaluated.

    Attributes
    ----------
    history : dict of str to list of float
        The loss and the metrics by name, and those of the validation with the prefix ``val_``. Each list has one number
        per epoch, or per epoch with validation.
    epoch : list of int
        The epochs, counted from 0.
    params : dict
        See `Callback`.
    seconds : list of float
        The training time of each epoch in seconds, without validation. A resumed run contains the times of its own
        epochs only.
    """

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.seconds: list[float] = []

    def __repr__(self) -> str:
        last = {name: round(values[-1], 4) for name, values in self.history.items()}
        return f"History({len(self.epoch)} epochs, last: {last})"

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self.history, self.epoch, self.seconds = {}, [], []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)

    def get_epochs(self) -> dict[str, Any]:
        """Return the record of all epochs, for a checkpoint."""
        return {"history": [[name, values] for name, values in self.history.items()], "epochs_done": self.epoch}

    def set_epochs(self, record: dict[str, Any]) -> None:
        """Restore the record that `get_epochs` returned."""
        self.history = {name: list(values) for name, values in record["history"]}
        self.epoch = list(record["epochs_done"])

    def require_sound_epochs(self, record: dict[str, Any]) -> None:
        """Raise TypeError or ValueError if `record` is invalid."""
        for epoch in record["epochs_done"]:
            checks.integer("epochs_done", epoch, least=0)
        for name, values in record["history"]:
            if not isinstance(name, str) or not isinstance(values, list):
                raise TypeError(f"history: expected lists of numbers by name, got {name!r:.100}: {values!r:.100}")
            for value in values:
                checks.real(f"history of {name}", value)
