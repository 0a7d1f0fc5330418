"""Which calls are using a model now, so that a call that would disturb another one is refused."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
Method = Callable[Concatenate[S, P], T]


def alone(reason: str, *, outermost: bool = False) -> Callable[[Method[S, P, T]], Method[S, P, T]]:
    """A decorator of methods that no other thread may run beside; the object's `Usage` is its ``_usage``.

    Parameters
    ----------
    reason, outermost
        See `Usage.call`.
    """

    def decorate(method: Method[S, P, T]) -> Method[S, P, T]:
        name = method.__name__

        @functools.wraps(method)
        def call(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
            usage: Usage = self._usage  # type: ignore[attr-defined]
            with usage.call(name, alone=reason, outermost=outermost):
                return method(self, *args, **kwargs)

        return call  # type: ignore[return-value]  # mypy takes self for an argument that has a name

    return decorate


class Usage:
    """The calls that are using one model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    def call(self, name: str, *, alone: str | None = None, outermost: bool = False) -> Call:
        """A context manager that registers a call while its block runs.

        Parameters
        ----------
        name : str
            The method's name, for messages.
        alone : str, optional
            Why no other thread may use the model meanwhile. Calls without a reason may run at the same time.
        outermost : bool
            Whether the call is refused inside another call of the same thread, that is, in a callback, a data stream,
            a loss or a metric.
        """
        return Call(self, name, alone, outermost)

    def _enter(self, call: Call) -> None:
        with self._lock:
            inside = None
            for other in self._calls:
                if other.thread == call.thread:
                    inside = other
                elif (call.alone or other.alone) and other.process == os.getpid():  # else a fork left it behind
                    raise RuntimeError(
                        f"{call.name}: expected a model that no other thread is using because "
                        f"{call.alone or other.alone}, got one in use by {other.name} in thread {other.thread_name!r}; "
                        f"give each thread a copy (copy.deepcopy), or let them take turns with a lock"
                    )
            if inside is not None and call.outermost:
                raise RuntimeError(
                    f"{call.name}: expected a model that is not in use because {call.alone}, got one in use by "
                    f"{inside.name}, from which {call.name} is called; call it after {inside.name} has returned, or on "
                    f"a copy (copy.deepcopy)"
                )
            call.nested = inside is not None
            self._calls.append(call)

    def _leave(self, call: Call) -> None:
        with self._lock:
            self._calls.remove(call)


class Call:
    """One call of a method; see `Usage.call`.

    Attributes
    ----------
    nested : bool
        Whether another call of the same thread is using the model.
    """

    __slots__ = ("_usage", "alone", "name", "nested", "outermost", "process", "thread", "thread_name")

    def __init__(self, usage: Usage, name: str, alone: str | None, outermost: bool) -> None:
        self._usage = usage
        self.name, self.alone, self.outermost, self.nested = name, alone, outermost, False
        self.thread, self.process = threading.get_ident(), os.getpid()
        self.thread_name = threading.current_thread().name

    def __enter__(self) -> Call:
        self._usage._enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._usage._leave(self)
