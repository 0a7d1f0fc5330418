"""Tells all callbacks of a training what happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from fastgru.callbacks.base import Callback
from fastgru.formats import native

Array = NDArray[Any]


class Callbacks:
    """Several callbacks as one; those that write files come last, so that they see what the others have done.

    Attributes
    ----------
    of_batches : list of Callback
        The callbacks that watch batches.
    """

    def __init__(self, callbacks: Iterable[Callback], model: Any, params: dict[str, Any]) -> None:
        self._all = sorted(callbacks, key=lambda callback: callback.writes_training)
        self._model = model
        self.of_batches = [callback for callback in self._all if callback.watches_batches()]
        for callback in self._all:
            callback.set_model(model)
            callback.set_params(params)

    @property
    def stop_training(self) -> bool:
        """Whether the training is to end after the epoch, which a callback says by setting it in the model."""
        return bool(self._model.stop_training)

    @stop_training.setter
    def stop_training(self, value: bool) -> None:
        self._model.stop_training = value

    def tell(self, occasion: str, *arguments: Any, write: bool = True) -> None:
        """Tell those that want to know, in order; without `write`, none of those that write the training to files."""
        for callback in self.of_batches if "batch" in occasion else self._all:
            if write or not callback.writes_training:
                getattr(callback, occasion)(*arguments)

    def require_possible(self, logs: list[str]) -> None:
        """Raise before the first epoch, not after it, what cannot go well, given the entries that logs will have."""
        logs = list(dict.fromkeys([*logs, *(name for callback in self._all for name in callback.adds_logs)]))
        for callback in self._all:
            others = (other for other in self._all if other is not callback)
            callback.require_possible(logs, complete=not any(other.may_add_logs() for other in others))

    def write_files(self) -> bool:
        """Whether the training is to be written to files."""
        return any(callback.writes_training for callback in self._all)

    def require_saveable(self) -> None:
        """Raise before the first epoch, not after it, if there will be files and one's state cannot be in them."""
        if self.write_files():
            for callback in self._all:
                native.split_arrays(f"{type(callback).__name__}.get_state()", callback.get_state())

    def stops_at_nan(self) -> bool:
        """Whether a loss that is not finite ends the training without an error."""
        return any(callback.stops_at_nan for callback in self._all)

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
