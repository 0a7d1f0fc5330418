"""Checks of arguments. Each raises an error that names the argument, the expected value and the given value."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Collection
from typing import Any

import numpy as np


def last_name(name: str) -> str:
    """Return the name of the value itself, for a remedy: ``x`` of ``x, batch 2, x``."""
    return name.rpartition(", ")[2]


def integer(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    """Return `value` as an int from `least` to `most`; bool and float raise."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r}") from None
    if result < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {result}")
    if most is not None and result > most:
        raise ValueError(f"{name}: expected an integer of at most {most}, got {result}")
    return result


def number(
    name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> float:
    """Return `value` as a finite float with ``above < value``, ``least <= value`` and ``value < below``."""
    if type(value) is float and above < value < below and value >= least:
        return value  # fast path: optimizers check five numbers per step
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    result = float(value)
    if not (math.isfinite(result) and above < result and least <= result < below):
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"at least {least:g}"] if least > -math.inf else []
        bounds += [f"below {below:g}"] if below < math.inf else []
        raise ValueError(f"{name}: expected a finite number {' and '.join(bounds)}".rstrip() + f", got {value!r}")
    return result


def real(name: str, value: Any) -> float:
    """Return `value` as a float, which may be infinite or NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {value!r:.100}")
    return float(value)


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def flag(name: str, value: Any) -> bool:
    """Return `value` if it is a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def floating_dtype(name: str, value: Any) -> np.dtype[Any]:
    """Return `value` as the dtype float32 or float64."""
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        if value in (dtype, dtype.name, dtype.type):
            return dtype
    raise ValueError(f"{name}: expected 'float32' or 'float64', got {value!r}")


def shape(name: str, value: Any) -> tuple[int | None, ...]:
    """Return `value` as a shape without its batch axis; None is an unknown size."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple without the batch axis, got {value!r}")
    return tuple(None if size is None else integer(name, size, least=1) for size in value)


def unmasked(name: str, value: Any) -> Any:
    """Return `value` unless it is a masked array."""
    if type(value) is np.ndarray:
        return value
    # Without an import of numpy.ma no masked arrays exist. Accessing np.ma would import it, which fails while the
    # interpreter shuts down.
    ma = sys.modules.get("numpy.ma")
    if ma is not None and isinstance(value, ma.MaskedArray):
        raise TypeError(
            f"{name}: expected an array without a mask because the mask would be ignored, got a masked array; fill it "
            f"with {name}.filled(...)"
        )
    return value


def array(name: str, value: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """Return `value` as an array without a mask."""
    try:
        return np.asarray(unmasked(name, value))
    except ValueError:
        raise ValueError(f"{name}: expected an array, got lists of different lengths") from None


def rows(name: str, value: Any) -> int:
    """Return the number of samples in an array or a list."""
    try:
        return len(value)
    except TypeError:
        raise TypeError(f"{name}: expected an array of samples, got {type(value).__name__}") from None


def dims(shape: Collection[int | None], axes: str = "NT") -> str:
    """Return a shape for a message, ``(N, T, 28)`` for ``(None, None, 28)``; `axes` are the names of the first axes."""
    text = ", ".join(
        str(size) if size is not None else axes[axis] if axis < len(axes) else "any" for axis, size in enumerate(shape)
    )
    return f"({text},)" if len(shape) == 1 else f"({text})"
