"""The weights of layers as objects with a name, a shape and a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks

Array = NDArray[Any]


class Owner(Protocol):
    """The part of a layer's interface that a variable uses."""

    name: str
    parameters: dict[str, Array]

    def trainable_parameters(self) -> list[str]:
        """Return the names of the weights that training changes."""


class Variable:
    """One weight of a layer, as an entry of ``layer.weights`` and ``model.weights``.

    A variable stores no values. It reads and writes the layer's array, also after the model has moved its weights to
    new memory.

    Attributes
    ----------
    name : str
        The name within the layer: "kernel".
    path : str
        The name within the model: "gru/kernel". Files of `fastgru.Sequential.save_weights` use it.
    shape : tuple of int
    dtype : str
        "float32" or "float64", as in Keras.
    trainable : bool
        Whether training changes the weight. Set ``trainable`` of the layer to change it.
    """

    def __init__(self, layer: Owner, key: str) -> None:
        self._layer = layer
        self._key = key

    def __repr__(self) -> str:
        return f"<Variable path={self.path}, shape={self.shape}, dtype={self.dtype}, trainable={self.trainable}>"

    @property
    def _array(self) -> Array:
        return self._layer.parameters[self._key]

    @property
    def name(self) -> str:
        """The name within the layer."""
        return self._key.rpartition("/")[2]

    @property
    def path(self) -> str:
        """The name of the layer and of the weight."""
        return f"{self._layer.name}/{self._key}"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self._array.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """The number of values."""
        return self._array.size

    @property
    def dtype(self) -> str:
        """The name of the dtype."""
        return self._array.dtype.name

    @property
    def trainable(self) -> bool:
        """Whether training changes the weight."""
        return self._key in self._layer.trainable_parameters()

    def numpy(self) -> Array:
        """Return a copy of the values."""
        return self._array.copy()

    def assign(self, value: Any) -> Variable:
        """Copy `value` into the weight.

        Parameters
        ----------
        value : array_like
            Real numbers with the shape of the weight. They are converted to its dtype.

        Returns
        -------
        Variable
            The variable itself.

        Raises
        ------
        ValueError
            `value` has another shape. The weight does not change.
        """
        copy_weights([(self.path, self._array)], [value], "value")
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("copy: expected None or True because training changes the array of a variable, got False")
        return self._array.astype(self._array.dtype if dtype is None else dtype)

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: Any) -> Any:
        return self.numpy()[index]


def copy_weights(targets: Sequence[tuple[str, Array]], weights: Sequence[Any], argument: str = "weights") -> None:
    """Copy `weights` into the arrays of `targets` if all shapes match; `argument` names them in messages."""
    if len(weights) != len(targets):
        raise ValueError(f"{argument}: expected {len(targets)} arrays, got {len(weights)}")
    arrays = [checks.array(argument, given) for given in weights]
    for (name, target), array in zip(targets, arrays, strict=True):
        if array.shape != target.shape:
            raise ValueError(f"{argument}: expected shape {target.shape} for {name}, got {array.shape}")
        if not np.can_cast(array.dtype, target.dtype, "same_kind"):
            raise TypeError(f"{argument}: expected {target.dtype} for {name}, got {array.dtype}")
    for (_, target), array in zip(targets, arrays, strict=True):
        target[...] = array
