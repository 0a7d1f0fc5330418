"""The callback that records what `fit` returns."""

from __future__ import annotations

from typing import Any

from fastgru._support import checks
from fastgru.callbacks.base import Callback, Logs


class History(Callback):
    """Record the logs of each epoch. `Sequential.fit` returns one; it fills and returns yours if you pass one to it.

    Its `repr` is a summary that cannot be evaluated.

    Attributes
    ----------
    history : dict of str to list of float
        ``loss``, the metrics, and those of the validation with the prefix ``val_``: one number per epoch, or per epoch
        that was validated.
    epoch : list of int
        The epochs, counted from 0.
    params : dict
        See `Callback`.
    seconds : list of float
        How long the training of each epoch took, without validation. A resumed training has those of its own epochs
        only.
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
        """The record, for a file of the training."""
        return {"history": [[name, values] for name, values in self.history.items()], "epochs_done": self.epoch}

    def set_epochs(self, record: dict[str, Any]) -> None:
        """Continue from what `get_epochs` returned."""
        self.history = {name: list(values) for name, values in record["history"]}
        self.epoch = list(record["epochs_done"])

    def require_sound_epochs(self, record: dict[str, Any]) -> None:
        """Raise unless `get_epochs` could have returned that."""
        for epoch in record["epochs_done"]:
            checks.integer("epochs_done", epoch, least=0)
        for name, values in record["history"]:
            if not isinstance(name, str) or not isinstance(values, list):
                raise TypeError(f"history: expected lists of numbers by name, got {name!r:.100}: {values!r:.100}")
            for value in values:
                checks.real(f"history of {name}", value)
