"""The fully connected layer."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastgru import functional
from fastgru._support import checks
from fastgru.formats.description import ACTIVATIONS
from fastgru.layers import keras_options
from fastgru.layers.activation import Head, gradient, rows_with_gradient
from fastgru.layers.base import Array, Shape


class Dense(Head):
    """A fully connected layer, ``activation(x @ kernel + bias)``, with Keras 3's arguments and defaults.

    The layer maps (N, ..., F) to (N, ..., units). It works on the last axis, so each step of a sequence is computed
    separately. With `lengths`, outputs in padding are computed from the padding. They affect gradients only if a later
    layer, such as `Flatten`, uses them.

    Parameters
    ----------
    units : int
        Size of the output.
    activation : {"linear", "softmax", "sigmoid", "tanh", "relu"}, optional
        The activation function; None means linear.
    use_bias : bool
        Whether the layer has a bias.
    kernel_initializer, bias_initializer : str or initializer
        See `fastgru.initializers`. Defaults: "glorot_uniform" and "zeros".
    kernel_regularizer, bias_regularizer : str or regularizer, optional
        See `fastgru.regularizers`.
    activity_regularizer, kernel_constraint, bias_constraint, lora_rank, lora_alpha, quantization_config : None
        Not supported.
    input_shape : tuple, optional
        (F,) or (T, F), for the first layer of a model.
    name, dtype, trainable
        As in `Layer`.

    Notes
    -----
    The weights, in Keras' order, are kernel (F, units) and, with `use_bias`, bias (units,).

    Examples
    --------
    >>> layer = layers.Dense(10, activation="softmax")
    >>> layer(np.zeros((4, 16))).shape
    (4, 10)
    """

    initializers: ClassVar[dict[str, str]] = {"kernel": "kernel_initializer", "bias": "bias_initializer"}
    regularizers: ClassVar[dict[str, str]] = {"kernel": "kernel_regularizer", "bias": "bias_regularizer"}

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: None = None,
        kernel_constraint: None = None,
        bias_constraint: None = None,
        lora_rank: None = None,
        lora_alpha: None = None,
        quantization_config: None = None,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        keras_options.require_neutral(
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            quantization_config=quantization_config,
        )
        self.units = checks.integer("units", units, least=1)
        self.activation = checks.choice("activation", "linear" if activation is None else activation, ACTIVATIONS)
        self.use_bias = checks.flag("use_bias", use_bias)
        self._set_initializers(kernel_initializer=kernel_initializer, bias_initializer=bias_initializer)
        self._set_regularizers(kernel_regularizer=kernel_regularizer, bias_regularizer=bias_regularizer)
        self.features = 0
        self._x: Array | None = None
        self._rows: Array | None = None
        self._lengths: Array | None = None
        self._shape: tuple[int, ...] = ()
        self._y: Array | None = None

    def _shown(self) -> dict[str, Any]:
        return {**super()._shown(), "activation": None if self.activation == "linear" else self.activation}

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                f"{self.name}: expected input of shape (N, ..., F) with a known F, got {checks.dims(input_shape)}"
            )
        self.features = input_shape[-1]
        return (*input_shape[:-1], self.units)

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:  # noqa: D102
        shapes: dict[str, tuple[int, ...]] = {"kernel": (self.features, self.units)}
        if self.use_bias:
            shapes["bias"] = (self.units,)
        return shapes

    def logits(self, x: Array, *, training: bool, rows: Array | None = None) -> Array:  # noqa: D102
        if x.shape[-1] != self.features:
            raise ValueError(f"{self.name}: expected input of shape (N, ..., {self.features}), got {x.shape}")
        flat = x.reshape(-1, self.features) if x.size else x.reshape(int(np.prod(x.shape[:-1])), self.features)
        if training:  # predict may be called between a training pass and its backward
            self._x, self._rows, self._shape = flat, rows, x.shape
        return functional.dense_forward(flat, self.parameters["kernel"], self.parameters.get("bias"), rows=rows)

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        y = self.activate(self.logits(x, training=training))
        if training:
            self._y, self._lengths = y, lengths
        return y.reshape(*x.shape[:-1], self.units)

    def backward_from_logits(self, d_logits: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if self._x is None:
            raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
        d_x = functional.dense_backward(
            self._x,
            self.parameters["kernel"],
            d_logits,
            rows=self._rows,
            input_gradient=input_gradient,
            out=(self.gradients["kernel"], self.gradients.get("bias")),
        ).x
        return None if d_x is None else d_x.reshape(self._shape)

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        y = self._y
        if y is None or self._x is None:
            raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
        d_y = d_y.reshape(len(self._x), self.units)
        self._rows = rows_with_gradient(d_y, self._lengths, self._shape[:-1])
        if self._rows is not None:
            d_y, y = d_y[self._rows], y[self._rows]
        d_y = gradient(self.activation, y, d_y)
        return self.backward_from_logits(d_y, input_gradient=input_gradient)
