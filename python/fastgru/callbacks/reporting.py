"""Callbacks that write logs to a file or call functions."""

from __future__ import annotations

import csv
import inspect
import io
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.files import check_path, naming, open_regular, replaceable
from fastgru._support.representation import as_call
from fastgru.callbacks.base import Callback, Logs, require_numbers, require_target

Array = NDArray[Any]


class CSVLogger(Callback):
    """Append a line with the epoch and its logs to a CSV file after each epoch.

    Parameters
    ----------
    filename : path
        The file to write. Its folder must exist.
    separator : str, default ","
        A single character.
    append : bool, default False
        Whether to keep the existing lines of the file. A resumed run always keeps the lines of earlier epochs.
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        check_path(filename, "filename")
        self.filename = os.fspath(filename)
        if not isinstance(separator, str) or len(separator) != 1:
            raise ValueError(f"separator: expected a single character, got {separator!r}")
        self.separator = separator
        self.append = checks.flag("append", append)
        self._columns: list[str] = []
        self._announced: list[str] = []  # entries that may be missing in the first epoch
        self._size = 0  # the size of the file in bytes after the last line

    def on_train_begin(self, logs: Logs | None = None) -> None:  # noqa: D102
        self._columns, self._size = [], 0
        if self.append and os.path.exists(self.filename):
            with io.TextIOWrapper(open_regular(self.filename), newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file, delimiter=self.separator), [])
            self._size = os.path.getsize(self.filename)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: D102
        values = {"epoch": epoch, **(logs or {})}
        new = not self._columns
        if new:
            self._columns = list(dict.fromkeys([*values, *self._announced]))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, delimiter=self.separator, extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(values)
        replaceable(self.filename)
        with naming(self.filename), open(self.filename, "r+b" if self._size else "wb") as file:
            file.seek(self._size)
            file.truncate()  # removes lines of epochs after the checkpoint, which are trained again
            file.write(text.getvalue().encode())
        self._size = os.path.getsize(self.filename)

    def require_possible(self, logs: list[str], *, complete: bool, sometimes: Iterable[str] = ()) -> None:  # noqa: D102
        require_target("filename", self.filename)
        self._announced = list(sometimes)

    def get_state(self) -> dict[str, Any]:  # noqa: D102
        return {"columns": self._columns, "size": self._size}

    def require_sound(self, state: dict[str, Any], weights: Sequence[Array]) -> None:  # noqa: D102
        require_numbers(state, counts=("size",))
        if not isinstance(state["columns"], list) or not all(isinstance(name, str) for name in state["columns"]):
            raise TypeError(f"columns: expected a list of names, got {state['columns']!r:.100}")

    def require_same(self, state: dict[str, Any]) -> None:  # noqa: D102
        size = os.path.getsize(self.filename) if os.path.exists(self.filename) else 0
        if size < state["size"]:
            raise ValueError(
                f"filename: expected {self.filename} with at least {state['size']} bytes because the saved training "
                f"run has written them, got {size}"
            )

    def set_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        self._columns, self._size = list(state["columns"]), state["size"]


class LambdaCallback(Callback):
    """Call functions at the events of training, evaluation and prediction.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable (epoch, logs), optional
    on_train_begin, on_train_end : callable (logs), optional
    on_train_batch_begin, on_train_batch_end : callable (batch, logs), optional
    **functions
        Functions for the other methods of `Callback`, such as ``on_test_end=callable (logs)``.
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **functions: Callable[..., Any] | None,
    ) -> None:
        named = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        self._functions: dict[str, Callable[..., Any]] = {}
        occasions = [name for name in dir(Callback) if name.startswith("on_")]
        for occasion, function in {**named, **functions}.items():
            checks.choice("occasion", occasion, occasions)
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"{occasion}: expected a function, got {function!r}")
            self._functions[occasion] = function
            setattr(self, occasion, function)

    def __repr__(self) -> str:
        return as_call(self, lambda: {**dict.fromkeys(_NAMED), **self._functions})

    def may_add_logs(self) -> bool:  # noqa: D102
        return "on_epoch_end" in self._functions


#: The named parameters of `LambdaCallback`.
_NAMED = tuple(inspect.signature(LambdaCallback).parameters)[:-1]
