"""`repr` of the package's objects, and the class of the package that an object belongs to."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any

#: (object, thread) pairs whose `repr` is being computed, because an object may contain itself.
_at_work: set[tuple[int, int]] = set()


def package_class(cls: type) -> type:
    """Return `cls`, or its first base class that belongs to this package."""
    return next(each for each in cls.__mro__ if each.__module__.partition(".")[0] == "fastgru" or each is object)


def as_call(thing: Any, values: Callable[[], Mapping[str, Any]] = dict) -> str:
    """Return ``Class(10, option=True)``, with the arguments that differ from the constructor's defaults.

    The value of an argument comes from `values()`, or else from the attribute of the same name. Evaluating the text
    with fastgru's names makes an equal object, unless a value is a function, an array or an object of another package.
    The result is ``<Class ...>`` if the arguments are unknown: a constructor outside the package has arguments that are
    not attributes, an attribute is missing, or the object contains itself. Never raises.
    """
    unknown = f"<{type(thing).__name__} ...>"
    key = (id(thing), threading.get_ident())
    if key in _at_work:
        return unknown
    _at_work.add(key)
    try:
        arguments = _arguments(thing, dict(values()))
        return f"{type(thing).__name__}({', '.join(arguments)})"
    except Exception:  # any kind, because attributes and their reprs may be user code
        return unknown
    finally:
        _at_work.discard(key)


def _arguments(thing: Any, values: dict[str, Any]) -> list[str]:
    shown, more = [], False
    for name, parameter in inspect.signature(type(thing)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            more = True
            continue
        value = values.pop(name) if name in values else getattr(thing, name)
        if parameter.default is parameter.empty:
            shown.append(repr(value))
        elif not _same(value, parameter.default):
            shown.append(f"{name}={value!r}")
    own = package_class(type(thing)).__init__ is type(thing).__init__  # type: ignore[misc]
    values = {name: value for name, value in values.items() if value is not None}
    if not own and (more or values):
        raise TypeError("the constructor belongs to another package and has unknown arguments")
    return shown + [f"{name}={value!r}" for name, value in values.items()]


def _same(value: Any, default: Any) -> bool:
    if type(value) is bool and type(default) is int:  # flags are stored as bool
        return value == default
    # Compared as text, because comparing arrays gives no single bool; long arrays are abbreviated there.
    return type(value) is type(default) and repr(value) == repr(default) and "..." not in repr(value)
