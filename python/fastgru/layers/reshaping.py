"""Layers that move or repeat elements without changing values: Reshape, RepeatVector, Permute."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastgru._support import checks
from fastgru.layers.base import Array, Layer, Shape
from fastgru.layers.shaping import warn_of_padding


class _Moving(Layer):
    """Base class. The output has no lengths, because its steps do not correspond to those of the input."""

    def output_lengths(self, x: Array, lengths: Array | None) -> None:
        del x, lengths


class Reshape(_Moving):
    """Change the shape of each sample, as Keras' ``Reshape``: (N, ...) becomes ``(N, *target_shape)``.

    The order of the elements does not change. As in Keras, lengths are dropped with a warning: later layers process all
    steps.

    Parameters
    ----------
    target_shape : tuple of int
        The shape without the batch axis. One size may be -1; it is computed from the others.
    input_shape, name, dtype, trainable
        As in `Layer`.

    Examples
    --------
    >>> layers.Reshape((-1, 4), input_shape=(8, 3))  # (N, 8, 3) becomes (N, 6, 4)
    """

    def __init__(
        self,
        target_shape: Any,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        if not isinstance(target_shape, (tuple, list)):
            raise TypeError(f"target_shape: expected a tuple without the batch axis, got {target_shape!r}")
        self.target_shape = tuple(
            -1 if isinstance(size, (int, np.integer)) and size == -1 else checks.integer("target_shape", size, least=1)
            for size in target_shape
        )
        if self.target_shape.count(-1) > 1:
            raise ValueError(f"target_shape: expected at most one -1, got {self.target_shape}")
        self._shape: tuple[int, ...] = ()

    @property
    def joins_steps(self) -> bool:  # type: ignore[override]
        """Whether the number of steps must be known. It need not be if it only affects the output's number of steps."""
        return self.target_shape[:1] != (-1,)

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        batch, *sizes = input_shape
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return (batch, *(None if size == -1 else size for size in self.target_shape))
        elements = math.prod(known)
        fixed = math.prod(size for size in self.target_shape if size != -1)
        if elements % fixed if -1 in self.target_shape else elements != fixed:
            raise ValueError(
                f"{self.name}: expected input with as many elements as target_shape {self.target_shape}, got "
                f"{checks.dims(input_shape)}"
            )
        return (batch, *(elements // fixed if size == -1 else size for size in self.target_shape))

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        warn_of_padding(self, x, lengths)
        # NumPy cannot compute a size of -1 if there are no elements.
        _, *sizes = self.build(x.shape)
        if training:
            self._shape = x.shape
        return x.reshape(len(x), *(size or 0 for size in sizes))

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        return d_y.reshape(self._shape) if input_gradient else None


class RepeatVector(_Moving):
    """Repeat a vector as the steps of a sequence, as Keras' ``RepeatVector``: (N, F) becomes (N, n, F).

    Use it between the encoder and the decoder of a sequence-to-sequence model.

    Parameters
    ----------
    n : int
        The number of steps.
    input_shape, name, dtype, trainable
        As in `Layer`.

    Examples
    --------
    >>> stack = [layers.GRU(32), layers.RepeatVector(10), layers.GRU(32, return_sequences=True), layers.Dense(1)]
    """

    def __init__(
        self,
        n: int,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        self.n = checks.integer("n", n, least=1)

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) != 2:
            advice = "; a GRU before it needs return_sequences=False" if len(input_shape) == 3 else ""
            raise ValueError(f"{self.name}: expected input of shape (N, F), got {checks.dims(input_shape)}{advice}")
        return (input_shape[0], self.n, input_shape[1])

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        del lengths, training
        return np.repeat(x[:, None, :], self.n, axis=1)

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        return d_y.sum(axis=1) if input_gradient else None


class Permute(_Moving):
    """Permute the axes of each sample, as Keras' ``Permute``: with (2, 1), (N, T, F) becomes (N, F, T).

    As in Keras, lengths are dropped with a warning: later layers process all steps.

    Parameters
    ----------
    dims : tuple of int
        The axes of the input in their new order, without the batch axis. The first axis after the batch axis is 1.
    input_shape, name, dtype, trainable
        As in `Layer`.
    """

    def __init__(
        self,
        dims: Any,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        if not isinstance(dims, (tuple, list)):
            raise TypeError(f"dims: expected a tuple of axes, got {dims!r}")
        self.dims = tuple(checks.integer("dims", axis, least=1) for axis in dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(f"dims: expected each axis from 1 to {len(self.dims)} once, got {self.dims}")

    @property
    def joins_steps(self) -> bool:  # type: ignore[override]
        """Whether the number of steps must be known. It need not be if the axis of the steps stays in place."""
        return self.dims[:1] != (1,)

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) != len(self.dims) + 1:
            raise ValueError(
                f"{self.name}: expected input of {len(self.dims)} axes after the batch axis because dims is "
                f"{self.dims}, got {checks.dims(input_shape)}"
            )
        return (input_shape[0], *(input_shape[axis] for axis in self.dims))

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        del training
        warn_of_padding(self, x, lengths)
        return np.ascontiguousarray(x.transpose(0, *self.dims))

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        return np.ascontiguousarray(d_y.transpose(0, *(np.argsort(self.dims) + 1))) if input_gradient else None
