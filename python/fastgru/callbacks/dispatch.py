"""Calls all callbacks of a training run, an evaluation or a prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from fastgru.callbacks.base import Callback
from fastgru.callbacks.history import History
from fastgru.formats import native

Array = NDArray[Any]

#: The methods that are called for each batch.
_OF_BATCHES = tuple(f"on_{what}_batch_{edge}" for what in ("train", "test", "predict") for edge in ("begin", "end"))


class Callbacks:
    """Several callbacks as one.

    Callbacks that write files are called last, so that files contain the results of all others. A `History` is called
    before them, after all callbacks that may add entries to the logs. The states of callbacks do not include the
    `History`, because the training run saves it separately.
    """

    def __init__(self, callbacks: Iterable[Callback], model: Any, params: dict[str, Any]) -> None:
        self._all = sorted(callbacks, key=lambda callback: (callback.writes_training, isinstance(callback, History)))
        self._stateful = [callback for callback in self._all if not isinstance(callback, History)]
        self._model = model
        self._of_batches = {
            occasion: [callback for callback in self._all if callback.watches(occasion)] for occasion in _OF_BATCHES
        }
        for callback in self._all:
            callback.set_model(model)
            callback.set_params(params)

    @property
    def stop_training(self) -> bool:
        """Whether a callback has requested the end of training, by setting ``model.stop_training``."""
        return bool(self._model.stop_training)

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        self._model.stop_training = value

    def watch(self, occasion: str) -> bool:
        """Return whether any callback implements this method, which is called for each batch."""
        return bool(self._of_batches[occasion])

    def tell(self, occasion: str, *arguments: Any, write: bool = True) -> None:
        """Call a method of all callbacks, in order; with ``write=False``, skip callbacks that write files."""
        for callback in self._of_batches.get(occasion, self._all):
            if write or not callback.writes_training:
                getattr(callback, occasion)(*arguments)

    def require_possible(self, logs: list[str], sometimes: Iterable[str] = ()) -> None:
        """Raise errors before the first epoch that would otherwise occur after it; see `Callback`."""
        logs = list(dict.fromkeys([*logs, *(name for callback in self._all for name in callback.adds_logs)]))
        for callback in self._all:
            others = (other for other in self._all if other is not callback)
            complete = not any(other.may_add_logs() for other in others)
            callback.require_possible(logs, complete=complete, sometimes=sometimes)

    def resumable(self) -> bool:
        """Return whether a callback writes the whole training run to files."""
        return any(callback.resumable for callback in self._all)

    def require_saveable(self) -> None:
        """Raise before the first epoch if the model or the state of a callback cannot be saved."""
        for callback in self._all:
            callback.require_saveable()
        if self.resumable():
            for callback in self._stateful:
                native.split_arrays(f"{type(callback).__name__}.get_state()", callback.get_state())

    def find_backup(self) -> str | None:
        """Return the file from which training resumes, if a callback has one, else None."""
        return next((path for callback in self._all if (path := callback.find_backup()) is not None), None)

    def stops_at_nan(self) -> bool:
        """Whether a loss of NaN or infinity ends training without an error."""
        return any(callback.stops_at_nan for callback in self._all)

    def get_state(self) -> list[dict[str, Any]]:
        """Return the states of all callbacks, in order."""
        return [{"class_name": type(c).__name__, "state": c.get_state()} for c in self._stateful]

    def require_sound(self, states: list[dict[str, Any]], weights: Sequence[Array]) -> None:
        """Raise if a state is invalid. States of classes that are not among these callbacks are not checked."""
        for state in states:
            if not isinstance(state["class_name"], str) or not isinstance(state["state"], dict):
                raise TypeError(f"callbacks: expected the name of a class and its state, got {state!r:.100}")
        for callback, state in zip(self._stateful, states, strict=False):
            if type(callback).__name__ == state["class_name"]:
                callback.require_sound(state["state"], weights)

    def require_same(self, states: list[dict[str, Any]]) -> None:
        """Raise if these are not the states of callbacks of the same classes."""
        names = [type(callback).__name__ for callback in self._stateful]
        if (saved := [state["class_name"] for state in states]) != names:
            raise ValueError(
                f"callbacks: expected {saved} because the run to resume had these, got {names}; pass the same ones"
            )
        for callback, state in zip(self._stateful, states, strict=True):
            callback.require_same(state["state"])

    def set_state(self, states: list[dict[str, Any]]) -> None:
        """Restore the state of each callback."""
        for callback, state in zip(self._stateful, states, strict=True):
            callback.set_state(state["state"])


def check(callbacks: Any) -> list[Callback]:
    """Check the argument `callbacks`, and return it as a list."""
    if callbacks is None:
        return []
    if isinstance(callbacks, Callback):
        return [callbacks]
    found = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for callback in found:
        if not isinstance(callback, Callback):
            raise TypeError(f"callbacks: expected objects of fastgru.callbacks.Callback, got {callback!r}")
    return found
