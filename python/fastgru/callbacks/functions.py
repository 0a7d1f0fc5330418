"""The callback that calls functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastgru._support import checks
from fastgru._support.representation import as_call
from fastgru.callbacks.base import Callback, Logs


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

    def __repr__(self) -> str:
        return as_call(self, **self._functions)

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
