"""Activations: what `Dense` ends in, and a layer of its own."""

from __future__ import annotations

import sys
from abc import abstractmethod
from typing import ClassVar

import numpy as np

from fastgru import functional
from fastgru._support import checks, sequences
from fastgru.formats.description import ACTIVATIONS
from fastgru.layers.base import Array, Layer, Shape


def activate(name: str, rows: Array) -> Array:
    """An activation of rows (M, C); softmax is over the last axis."""
    match name:
        case "linear":
            return rows
        case "softmax":
            return functional.softmax(rows)
        case "relu":
            return np.asarray(np.maximum(rows, rows.dtype.type(0)))
        case _:
            return functional.activate(rows, name)


def gradient(name: str, y: Array, d_y: Array) -> Array:
    """The gradient of what an activation takes, given what it returned and the gradient of that, all (M, C)."""
    match name:
        case "softmax":
            return np.asarray(y * (d_y - (d_y * y).sum(axis=-1, keepdims=True)))
        case "sigmoid":
            return np.asarray(d_y * (y * (1 - y)))
        case "tanh":
            return np.asarray(d_y * (1 - y * y))
        case "relu":
            return np.asarray(d_y * (y > 0))
        case "linear":
            return d_y
        case _:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")


def rows_with_gradient(d_y: Array, lengths: Array | None, axes: tuple[int, ...]) -> Array | None:
    """The rows of d_y (M, C) that are no padding, and of padding those that a later layer has used; None if all are.

    The gradient of the others is 0, but 0 times a NaN in the padding would be NaN.
    """
    kept = None if lengths is None else sequences.valid_elements(lengths, axes)
    if kept is None:
        return None
    chosen: Array = np.asarray(d_y.any(axis=1))
    chosen[kept] = True
    return np.flatnonzero(chosen)


class Head(Layer):
    """A layer that ends in an activation, which a loss may compute together with its own as the model's last layer.

    Attributes
    ----------
    activation : str
        The name of an activation.
    """

    activation: str
    works_on_each_step: ClassVar[bool] = True

    @property
    def head(self) -> Head:  # noqa: D102
        return self

    @abstractmethod
    def logits(self, x: Array, *, training: bool, rows: Array | None = None) -> Array:
        """The output before the activation, which a loss from logits takes, as rows (M, C).

        Parameters
        ----------
        x : ndarray (N, ..., F)
        training : bool
            Whether `backward_from_logits` may follow. Without, nothing is written into the layer.
        rows : ndarray (M,) of integers, optional
            Which of x's rows, all axes but the last taken as one, in ascending order.
        """

    def activate(self, logits: Array) -> Array:
        """The output (M, C), given that of `logits`."""
        return activate(self.activation, logits)

    @abstractmethod
    def backward_from_logits(self, d_logits: Array, *, input_gradient: bool) -> Array | None:
        """`backward` for the gradient of what `logits` returned; 0 for rows of x that it left out."""


class Activation(Head):
    """An activation as a layer of its own, as Keras' ``Activation``; any shape, softmax over the last axis.

    It works on each step of a sequence by itself, and lengths hold for the next layer too. Padding is activated as
    well; it changes no gradient unless a later layer uses it.

    Parameters
    ----------
    activation : {"linear", "softmax", "sigmoid", "tanh", "relu"} or None
        None means linear.
    input_shape : tuple, optional
    name : str, optional
    dtype : {"float32", "float64"}, optional
        Of the layer when it is called on its own, float32 if not given. In a model it must be the model's.
    trainable : bool
        See `Layer`.
    """

    def __init__(
        self,
        activation: str | None,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        self.activation = checks.choice("activation", "linear" if activation is None else activation, ACTIVATIONS)
        self._shape: tuple[int, ...] = ()
        self._rows: Array | None = None
        self._lengths: Array | None = None
        self._y: Array | None = None

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) < 2:
            raise ValueError(f"{self.name}: expected input of shape (N, ..., F), got {checks.dims(input_shape)}")
        return input_shape

    def logits(self, x: Array, *, training: bool, rows: Array | None = None) -> Array:  # noqa: D102
        if training:  # only then: other calls may come between a pass in training and its backward
            self._rows, self._shape = rows, x.shape
        values = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
        return values if rows is None else values[rows]

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        y = self.activate(self.logits(x, training=training))
        if training:
            self._y, self._lengths = y, lengths
        return y.reshape(x.shape)

    def backward_from_logits(self, d_logits: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if not input_gradient:
            return None
        if self._rows is None:
            return d_logits.reshape(self._shape)
        d_x = np.zeros((int(np.prod(self._shape[:-1])), self._shape[-1]), d_logits.dtype)
        d_x[self._rows] = d_logits
        return d_x.reshape(self._shape)

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        y = self._y
        if not input_gradient:
            return None
        if y is None:
            raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
        d_y = d_y.reshape(y.shape)
        self._rows = rows_with_gradient(d_y, self._lengths, self._shape[:-1])
        if self._rows is not None:
            d_y, y = d_y[self._rows], y[self._rows]
        return self.backward_from_logits(gradient(self.activation, y, d_y), input_gradient=True)


def Softmax(  # noqa: N802 - a class with this name in Keras
    axis: int = -1,
    *,
    input_shape: tuple[int | None, ...] | None = None,
    name: str | None = None,
    dtype: str | None = None,
    trainable: bool = True,
) -> Activation:
    """``Activation("softmax")``, over the last axis.

    Parameters
    ----------
    axis : int
        Only -1, the last axis, is supported.
    input_shape : tuple, optional
    name, dtype, trainable
        As in `Activation`.

    Returns
    -------
    Activation
    """
    if checks.integer("axis", axis, least=-sys.maxsize) != -1:
        raise ValueError(
            f"axis: expected -1 because softmax is over the last axis here, got {axis}; put a Permute before"
        )
    return Activation("softmax", input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)


def ReLU(  # noqa: N802 - a class with this name in Keras
    max_value: float | None = None,
    negative_slope: float = 0.0,
    threshold: float = 0.0,
    *,
    input_shape: tuple[int | None, ...] | None = None,
    name: str | None = None,
    dtype: str | None = None,
    trainable: bool = True,
) -> Activation:
    """``Activation("relu")``.

    Parameters
    ----------
    max_value, negative_slope, threshold
        Only None, 0 and 0 are supported.
    input_shape : tuple, optional
    name, dtype, trainable
        As in `Activation`.

    Returns
    -------
    Activation
    """
    for option, value, usual in (
        ("max_value", max_value, None),
        ("negative_slope", negative_slope, 0),
        ("threshold", threshold, 0),
    ):
        if value != usual:
            raise ValueError(f"{option}: expected {usual} because max(x, 0) is the only ReLU here, got {value!r}")
    return Activation("relu", input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
