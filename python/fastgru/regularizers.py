"""Regularizers with Keras' names, arguments and defaults. A regularizer adds a penalty of a weight to the loss."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.elsewhere import missing
from fastgru._support.representation import as_call

Array = NDArray[Any]


class Regularizer(ABC):
    """Base class of all regularizers. For a custom one, derive from it, and implement `penalty` and `add_gradient`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgru import layers, regularizers
    >>> class Smooth(regularizers.Regularizer):  # Keras' classes return the penalty from __call__
    ...     def penalty(self, weight):
    ...         return 0.01 * float(np.log1p(weight**2).sum())
    ...
    ...     def add_gradient(self, weight, gradient):
    ...         gradient += 0.02 * weight / (1 + weight**2)
    >>> layer = layers.Dense(4, kernel_regularizer=Smooth())
    """

    #: Names of the arguments that `get_config` returns.
    arguments: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        return as_call(self)

    def __call__(self, x: Any) -> float:
        """Return the penalty of the weight `x`, as in Keras."""
        return self.penalty(np.asarray(x))

    @abstractmethod
    def penalty(self, weight: Array) -> float:
        """Return the penalty of `weight`, which is added to the loss."""

    @abstractmethod
    def add_gradient(self, weight: Array, gradient: Array) -> None:
        """Add the gradient of the penalty to `gradient`, in place."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, from which `from_config` creates the same regularizer."""
        return {name: getattr(self, name) for name in self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create a regularizer of this class from a configuration that `get_config` returned."""
        return cls(**config)


class L1L2(Regularizer):
    """The penalty ``l1 * sum(|w|) + l2 * sum(w**2)``.

    Parameters
    ----------
    l1, l2 : float, default 0.0
        The factors, at least 0.
    """

    arguments: ClassVar[tuple[str, ...]] = ("l1", "l2")

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1 = checks.number("l1", l1, least=0)
        self.l2 = checks.number("l2", l2, least=0)

    def penalty(self, weight: Array) -> float:  # noqa: D102
        total = 0.0
        if self.l1:
            total += self.l1 * float(np.abs(weight).sum(dtype=np.float64))
        if self.l2:
            total += self.l2 * float(np.square(weight).sum(dtype=np.float64))
        return total

    def add_gradient(self, weight: Array, gradient: Array) -> None:  # noqa: D102
        kind = weight.dtype.type
        if self.l1:
            gradient += kind(self.l1) * np.sign(weight)
        if self.l2:
            gradient += kind(2 * self.l2) * weight


class L1(L1L2):
    """The penalty ``l1 * sum(|w|)``.

    Parameters
    ----------
    l1 : float, default 0.01
        The factor, at least 0.
    """

    arguments = ("l1",)

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)


class L2(L1L2):
    """The penalty ``l2 * sum(w**2)``.

    Parameters
    ----------
    l2 : float, default 0.01
        The factor, at least 0.
    """

    arguments = ("l2",)

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)


# Keras' lower-case names, which are classes in Keras too.
l1, l2, l1_l2 = L1, L2, L1L2

#: Name -> class.
REGULARIZERS: dict[str, type[Regularizer]] = {"l1": L1, "l2": L2, "l1_l2": L1L2}
CLASSES: dict[str, type[Regularizer]] = {"L1": L1, "L2": L2, "L1L2": L1L2}


def get(identifier: Any) -> Regularizer | None:
    """Return the regularizer for an identifier.

    Parameters
    ----------
    identifier : str, dict, Regularizer or None
        A name ("l2", "L2") of a regularizer with default options; a dict with ``class_name`` and ``config``; or a
        Regularizer or None, which are returned.

    Returns
    -------
    Regularizer or None

    Raises
    ------
    ValueError
        No regularizer has that name.
    TypeError
        The identifier is a function. Functions are not supported because training needs a gradient.
    """
    return of_argument("regularizer", identifier)


def of_argument(name: str, value: Any) -> Regularizer | None:
    """Return the regularizer in the argument `name` of a layer."""
    if inspect.isclass(value) and issubclass(value, Regularizer):
        value = value()
    if value is None or isinstance(value, Regularizer):
        return value
    known = {**REGULARIZERS, **CLASSES}
    if isinstance(value, Mapping):
        return known[checks.choice(name, value.get("class_name"), known)].from_config(value.get("config") or {})
    if callable(value):
        raise TypeError(
            f"{name}: expected a regularizer because training needs its gradient, got a function; derive a class from "
            f"regularizers.Regularizer with penalty and add_gradient"
        )
    return known[checks.choice(name, value, known)]()


_DERIVE = "derive a class from regularizers.Regularizer"
#: Names in Keras that this module does not have -> what to use instead.
_ELSEWHERE = {
    **dict.fromkeys(("OrthogonalRegularizer", "orthogonal_regularizer"), _DERIVE),
    "serialize": "use regularizer.get_config()",
    "deserialize": "use regularizers.get({'class_name': ..., 'config': ...})",
}


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, _ELSEWHERE)
