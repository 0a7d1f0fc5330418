"""Scaling of the input, such as image bytes to numbers from 0 to 1."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastgru._support import checks
from fastgru.layers.base import Array, Layer, Shape


class Rescaling(Layer):
    """Multiply the input by `scale` and add `offset`, in training and in inference, as Keras' ``Rescaling``.

    The input may have any shape and any real dtype. The output has the dtype of the model. As the first layer of a
    model, it accepts uint8 arrays, and converts and scales each batch in one pass. Padding is scaled as well.

    Parameters
    ----------
    scale, offset : float
        ``1 / 255`` and 0 scale bytes to the range from 0 to 1. ``1 / 127.5`` and -1 scale them to the range from -1
        to 1.
    uint8_only : bool
        Scale uint8 input only; input of other dtypes is not scaled. Early versions of fastgru had no such layer and
        divided all uint8 input by 255. `load_model` adds this layer with ``uint8_only=True`` to models from their
        files.
    input_shape, name, dtype, trainable
        As in `Layer`.

    Examples
    --------
    >>> model = Sequential([layers.Rescaling(1 / 255, input_shape=(28, 28)), layers.GRU(64), layers.Dense(10)])
    """

    converts_input: ClassVar[bool] = True
    works_on_each_step: ClassVar[bool] = True

    def __init__(
        self,
        scale: float,
        offset: float = 0.0,
        *,
        uint8_only: bool = False,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        self.scale = checks.number("scale", scale)
        self.offset = checks.number("offset", offset)
        self.uint8_only = checks.flag("uint8_only", uint8_only)
        self._passed_on = False  # whether the last training pass left the input unscaled

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        return input_shape

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        del lengths
        pass_on = self.uint8_only and x.dtype != np.uint8
        if training:
            self._passed_on = pass_on
        if pass_on:
            return x.astype(self.dtype, copy=False)
        y: Array = np.multiply(x, self.dtype.type(self.scale), dtype=self.dtype, casting="unsafe")
        if self.offset:
            y += self.dtype.type(self.offset)
        return y

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if not input_gradient:
            return None
        return d_y if self._passed_on else np.asarray(d_y * d_y.dtype.type(self.scale))
