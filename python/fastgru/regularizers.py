"""Regularizers: what a weight's size adds to the loss, in Keras' words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.representation import as_call

Array = NDArray[Any]


class L1L2:
    """``l1 sum |w| + l2 sum w^2``, added to the loss.

    Parameters
    ----------
    l1, l2 : float
        At least 0.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = checks.number("l1", l1, least=0)
        self.l2 = checks.number("l2", l2, least=0)

    def __repr__(self) -> str:
        return as_call(self)

    def penalty(self, weight: Array) -> float:
        """What `weight` adds to the loss."""
        total = 0.0
        if self.l1:
            total += self.l1 * float(np.abs(weight).sum(dtype=np.float64))
        if self.l2:
            total += self.l2 * float(np.square(weight).sum(dtype=np.float64))
        return total

    def add_gradient(self, weight: Array, gradient: Array) -> None:
        """Add the penalty's gradient to `gradient`; 0 where a weight is 0."""
        kind = weight.dtype.type
        if self.l1:
            gradient += kind(self.l1) * np.sign(weight)
        if self.l2:
            gradient += kind(2 * self.l2) * weight

    def get_config(self) -> dict[str, Any]:
        """What `get` makes the same regularizer from."""
        return {"class_name": "L1L2", "config": {"l1": self.l1, "l2": self.l2}}


def L1(l1: float = 0.01) -> L1L2:  # noqa: N802
    """``l1 sum |w|``."""
    return L1L2(l1=l1)


def L2(l2: float = 0.01) -> L1L2:  # noqa: N802
    """``l2 sum w^2``."""
    return L1L2(l2=l2)


Regularizer = L1L2

REGULARIZERS: dict[str, Callable[..., L1L2]] = {
    "l1": L1,
    "l2": L2,
    "l1_l2": lambda l1=0.01, l2=0.01: L1L2(l1, l2),
}
CLASSES: dict[str, Callable[..., L1L2]] = {"L1": L1, "L2": L2, "L1L2": L1L2}


def get(name: str, value: Any) -> L1L2 | None:
    """The regularizer that an argument called `name` says: None, a name, a configuration, or one itself."""
    if value is None or isinstance(value, L1L2):
        return value
    if isinstance(value, Mapping):
        return CLASSES[checks.choice(name, value.get("class_name"), CLASSES)](**value.get("config", {}))
    return REGULARIZERS[checks.choice(name, value, REGULARIZERS)]()
