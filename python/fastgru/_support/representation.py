"""The `repr` of objects: a constructor call that makes an equal object."""

from __future__ import annotations

import inspect
from typing import Any


def as_call(thing: Any, **values: Any) -> str:
    """``Class(10, option=True)``, with the arguments that differ from the constructor's defaults.

    The value of an argument is taken from `values`, or else from the attribute of the same name. An argument that is in
    neither is left out.
    """
    shown = []
    for name, parameter in inspect.signature(type(thing)).parameters.items():
        value = values.pop(name, getattr(thing, name, parameter.default))
        if parameter.default is not parameter.empty:
            # Compared as text, because arrays have no truth value; flags are stored as bool, whatever was given.
            if repr(value) != repr(parameter.default) and value is not bool(parameter.default):
                shown.append(f"{name}={value!r}")
        elif value is not parameter.empty:
            shown.append(f"{value!r}")
    shown += [f"{name}={value!r}" for name, value in values.items()]
    return f"{type(thing).__name__}({', '.join(shown)})"
