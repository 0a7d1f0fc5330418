"""Tracks which calls use a model, so that a conflicting call raises.

Signal handlers may run between any two instructions, call methods of the model, or raise. Therefore there is no lock: a
handler would wait for it for ever. An entry that an exception has left behind is ignored, because a call counts only
while its frame is on the stack of its thread.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
Method = Callable[Concatenate[S, P], T]


#: Distinguishes a process from its parent after a fork, without a system call.
_process = 0


def _count_fork() -> None:
    global _process
    _process += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def alone(reason: str, *, outermost: bool = False) -> Callable[[Method[S, P, T]], Method[S, P, T]]:
    """Decorate a method during which no other thread may use the object; the object's `Usage` is its ``_usage``.

    Parameters
    ----------
    reason, outermost
        See `Usage.call`.
    """

    def decorate(method: Method[S, P, T]) -> Method[S, P, T]:
        name = method.__name__

        @functools.wraps(method)
        def call(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
            with Call(self._usage, name, reason, outermost, sys._getframe()):  # type: ignore[attr-defined]
                return method(self, *args, **kwargs)

        return call  # type: ignore[return-value]  # mypy takes self for a named argument

    return decorate


class Usage:
    """The calls that use one model."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}  # in the order of their start

    def call(self, name: str, *, alone: str | None = None, outermost: bool = False) -> Call:
        """Return a context manager that registers a call of the function that enters it.

        Parameters
        ----------
        name : str
            Name of the method, for messages.
        alone : str, optional
            The reason why no other thread may use the model at the same time. Calls without a reason may overlap.
        outermost : bool
            Whether the call raises inside another call of the same thread: in a callback, a data stream, a loss or a
            metric.
        """
        return Call(self, name, alone, outermost, sys._getframe(1))

    def _compare(self, call: Call) -> None:
        """Find the calls around `call` and in other threads; raise if it conflicts with one of them."""
        inside = None
        for other in self._earlier(call):
            if other.is_around(call):
                inside = other
            elif (call.alone or other.alone) and other.process == call.process:  # else an entry of the parent process
                raise RuntimeError(
                    f"{call.name}: expected a model that no other thread is using because "
                    f"{call.alone or other.alone}, got one in use by {other.name} in thread {other.thread_name!r}; "
                    f"give each thread a copy (copy.deepcopy), or let them take turns with a lock"
                )
            call.first = call.first and other.name != call.name
        if inside is not None and call.outermost:
            raise RuntimeError(
                f"{call.name}: expected a model that is not in use because {call.alone}, got one in use by "
                f"{inside.name}, from which {call.name} is called; call it after {inside.name} has returned, or on "
                f"a copy (copy.deepcopy)"
            )
        call.nested = inside is not None

    def _earlier(self, call: Call) -> Iterator[Call]:
        """Yield the earlier calls that still run, and remove the entries of others."""
        for other in list(self._calls.values()):
            if other is call:
                return
            if other.is_running():
                yield other
            else:
                other.__exit__(None, None, None)


class Call:
    """One call of a method; see `Usage.call`.

    Attributes
    ----------
    nested : bool
        Whether another call of the same thread uses the model.
    first : bool
        Whether no other call of the same name used the model when this one started.
    """

    __slots__ = ("_usage", "alone", "first", "frame", "name", "nested", "outermost", "process", "thread")

    def __init__(self, usage: Usage, name: str, alone: str | None, outermost: bool, frame: FrameType) -> None:
        self._usage = usage
        self.frame: FrameType | None = frame
        self.name, self.alone, self.outermost = name, alone, outermost
        self.nested, self.first = False, True
        self.thread, self.process = threading.get_ident(), _process

    def __enter__(self) -> Call:
        # Register first, then compare with earlier calls: of two concurrent calls, at least one sees the other.
        calls = self._usage._calls
        calls[id(self)] = self
        if len(calls) > 1:
            try:
                self._usage._compare(self)
            except BaseException:
                self.__exit__(None, None, None)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._usage._calls.pop(id(self), None)
        self.frame = None  # breaks a reference cycle: the frame may hold the call

    @property
    def thread_name(self) -> str:
        """Name of the thread."""
        return next((t.name for t in threading.enumerate() if t.ident == self.thread), str(self.thread))

    def is_around(self, call: Call) -> bool:
        """Whether `call`, which is about to start, is made inside this call."""
        return _is_on_stack(self.frame, call.frame)

    def is_running(self) -> bool:
        """Whether the frame is on a stack: of its thread, or in a child process of the thread that forked."""
        if _is_on_stack(self.frame, sys._getframe()):
            return True
        return self.process == _process and _is_on_stack(self.frame, sys._current_frames().get(self.thread))


def _is_on_stack(wanted: FrameType | None, frame: FrameType | None) -> bool:
    while frame is not None:
        if frame is wanted:
            return True
        frame = frame.f_back
    return False
