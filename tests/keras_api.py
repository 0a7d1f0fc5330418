"""Finds where the public callables of fastgru differ from those of Keras 3: parameters, defaults, and return types.

A difference has a place, what Keras has there and what fastgru has. A place is ``layers.GRU(unroll)`` for a parameter
and ``Sequential.predict()`` for the type that is returned. ``-`` says that a parameter is not accepted.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

import fastgru

#: The modules that both packages have; "" is the package itself.
MODULES = (
    "",
    "callbacks",
    "datasets.mnist",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "optimizers.schedules",
    "regularizers",
    "utils",
)
ABSENT = "-"


class Difference(NamedTuple):
    """One difference, as a row of the table in docs/keras-differences.md shows it."""

    place: str
    keras: str
    fastgru: str


class Pair(NamedTuple):
    """A public callable of fastgru and the one of Keras with the same name."""

    place: str
    ours: Any
    theirs: Any


def find(package: Any, path: str) -> Any:
    """The attribute with this dotted path, which may name modules that have not been imported yet."""
    for part in filter(None, path.split(".")):
        if not hasattr(package, part) and inspect.ismodule(package):
            package = import_module(f"{package.__name__}.{part}")
        else:
            package = getattr(package, part)
    return package


def pairs(keras: Any) -> Iterator[Pair]:
    """All pairs, each once: functions, classes, and the public methods of classes."""
    seen: set[int] = set()
    for path in MODULES:
        ours, theirs = find(fastgru, path), find(keras, path)
        for name in dir(ours):
            value = getattr(ours, name)
            if name.startswith("_") or not callable(value) or not hasattr(theirs, name) or id(value) in seen:
                continue
            if inspect.ismodule(value):
                continue
            seen.add(id(value))
            place = f"{path}.{name}" if path else name
            yield Pair(place, value, getattr(theirs, name))
            if inspect.isclass(value):
                yield from _methods(place, value, getattr(theirs, name), seen)


def _methods(place: str, ours: type, theirs: type, seen: set[int]) -> Iterator[Pair]:
    if not inspect.isclass(theirs):
        return
    for name in dir(ours):
        value = getattr(ours, name)
        if name.startswith("_") or not inspect.isroutine(value) or not hasattr(theirs, name):
            continue
        if inspect.signature(value).return_annotation == "NoReturn":  # it raises, and names the alternative
            continue
        inherited = inspect.unwrap(getattr(value, "__func__", value))
        if id(inherited) in seen:  # inherited methods are compared once, for the first class
            continue
        seen.add(id(inherited))
        yield Pair(f"{place}.{name}", value, getattr(theirs, name))


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    """The parameters by name, without ``self``; of a layer of Keras with ``**kwargs`` also those of ``Layer``."""
    initializers = [function]
    if inspect.isclass(function):
        initializers = [function.__init__]
        initializers += [base.__init__ for base in function.__mro__ if base.__module__ == "keras.src.layers.layer"][:1]
    found: dict[str, inspect.Parameter] = {}
    for each in initializers:
        found |= {name: p for name, p in inspect.signature(each).parameters.items() if name not in found}
        if not any(p.kind is p.VAR_KEYWORD for p in found.values()):
            break
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in found.items() if name not in ("self", "cls") and p.kind not in kinds}


def _shown(parameter: inspect.Parameter | None) -> str:
    if parameter is None:
        return ABSENT
    if parameter.default is parameter.empty:
        return "required"
    return repr(parameter.default)


def differences_of(pair: Pair) -> Iterator[Difference]:
    """The parameters that differ: missing, with another default, in another position, or positional additions."""
    ours, theirs = parameters(pair.ours), parameters(pair.theirs)
    for name, expected in theirs.items():
        own = ours.get(name)
        if own is None or (own.default is not expected.default and own.default != expected.default):
            yield Difference(f"{pair.place}({name})", _shown(expected), _shown(ours.get(name)))
    if not theirs and pair.place.endswith("Optimizer"):  # Keras' base class takes *args, **kwargs
        return
    for name, parameter in ours.items():
        if name not in theirs and parameter.kind is not parameter.KEYWORD_ONLY:
            yield Difference(f"{pair.place}({name})", ABSENT, "positional")
    in_order = [[name for name in one if name in other] for one, other in ((theirs, ours), (ours, theirs))]
    for each, names in zip((theirs, ours), in_order, strict=True):
        names[:] = [name for name in names if each[name].kind is not inspect.Parameter.KEYWORD_ONLY]
    if in_order[1] != in_order[0][: len(in_order[1])]:
        yield Difference(f"{pair.place}(*)", ", ".join(in_order[0]), ", ".join(in_order[1]))
