"""Layers without weights: dropout, flattening, pooling over time, the last step, and masking."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastgru._support import checks, sequences
from fastgru._support.warn import warn_user
from fastgru.layers import keras_options
from fastgru.layers.base import Array, Layer, Shape, keep_mask


def warn_of_padding(layer: Layer, x: Array, lengths: Array | None) -> None:
    """Warn if the lengths of padded sequences end at that layer: its output contains the padding as data."""
    if lengths is not None and x.ndim > 2 and (lengths < x.shape[1]).any():
        warn_user(
            f"{layer.name}: lengths and masks end here because {type(layer).__name__} moves the time steps, so padding "
            f"counts as data in this layer and after it, and outputs depend on the amount of padding; use "
            f"GlobalAveragePooling1D, GlobalMaxPooling1D or a GRU before it"
        )


class Dropout(Layer):
    """In training, set a fraction `rate` of the input to 0 and scale the rest by 1 / (1 - rate), as Keras does.

    Padding, where `lengths` say so, passes as it is.

    Parameters
    ----------
    rate : float
        From 0 to below 1.
    noise_shape : None
        Not supported; see `SpatialDropout1D`.
    seed : int, optional
        Ignored: random numbers come from the model, and their seed from `fastgru.utils.set_random_seed`.
    input_shape : tuple, optional
    name : str, optional
    dtype : {"float32", "float64"}, optional
        Of the layer when it is called on its own, float32 if not given. In a model it must be the model's.
    trainable : bool
        See `Layer`.
    """

    works_on_each_step: ClassVar[bool] = True

    def __init__(
        self,
        rate: float,
        noise_shape: None = None,
        seed: int | None = None,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        keras_options.require_neutral(noise_shape=noise_shape, seed=seed)
        self.rate = checks.number("rate", rate, least=0, below=1)
        self._mask: Array | None = None

    @property
    def draws(self) -> bool:  # noqa: D102
        return self.rate > 0

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        return input_shape

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        if not training:
            return x
        self._mask = None
        if self.rate == 0:
            return x
        assert self.generator is not None
        kept = None if lengths is None else sequences.valid_elements(lengths, x.shape)
        if kept is None:
            self._mask = keep_mask(self.generator, self.rate, x.shape, x.dtype)
        else:  # nothing is drawn for padding, whose width must not decide what comes after
            self._mask = np.ones(x.shape, x.dtype)
            self._mask.reshape(-1)[kept] = keep_mask(self.generator, self.rate, kept.shape, x.dtype)
        return x * self._mask

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if not input_gradient:
            return None
        return d_y if self._mask is None else d_y * self._mask


class SpatialDropout1D(Layer):
    """In training, drop whole features of each sequence, as Keras' ``SpatialDropout1D``.

    A fraction `rate` of the features is 0 in all steps of a sequence; the rest is scaled by 1 / (1 - rate). Each
    sequence of a batch has features of its own dropped.

    Parameters
    ----------
    rate : float
        From 0 to below 1.
    seed : int, optional
        Ignored, as by `Dropout`.
    input_shape : tuple, optional
        (T, F), which the first layer of a model may give.
    name : str, optional
    dtype : {"float32", "float64"}, optional
        Of the layer when it is called on its own, float32 if not given. In a model it must be the model's.
    trainable : bool
        See `Layer`.
    """

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        keras_options.require_neutral(seed=seed)
        self.rate = checks.number("rate", rate, least=0, below=1)
        self._mask: Array | None = None

    @property
    def draws(self) -> bool:  # noqa: D102
        return self.rate > 0

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) != 3:
            raise ValueError(f"{self.name}: expected input of shape (N, T, F), got {checks.dims(input_shape)}")
        return input_shape

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        del lengths
        if not training:
            return x
        self._mask = None
        if self.rate == 0:
            return x
        assert self.generator is not None
        self._mask = keep_mask(self.generator, self.rate, (len(x), 1, x.shape[2]), x.dtype)
        return x * self._mask

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if not input_gradient:
            return None
        return d_y if self._mask is None else d_y * self._mask


class Flatten(Layer):
    """All axes but the first in one: (N, T, F) becomes (N, T F). Padding is flattened with the rest, with a warning.

    Parameters
    ----------
    data_format : {"channels_last"}, optional
        Other formats are not supported.
    input_shape : tuple, optional
    name : str, optional
    """

    joins_steps: ClassVar[bool] = True

    def __init__(
        self,
        data_format: str | None = None,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        keras_options.require_neutral(data_format=data_format)
        self._shape: tuple[int, ...] = ()

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        batch, *sizes = input_shape
        known = [size for size in sizes if size is not None]
        return (batch, int(np.prod(known, dtype=object)) if len(known) == len(sizes) else None)

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        warn_of_padding(self, x, lengths)
        if training:
            self._shape = x.shape
        return x.reshape(len(x), -1) if len(x) else np.empty((0, int(np.prod(x.shape[1:]))), x.dtype)

    def output_lengths(self, x: Array, lengths: Array | None) -> None:  # noqa: D102
        del x, lengths

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        return d_y.reshape(self._shape) if input_gradient else None


class _Pooling1D(Layer):
    """Over the steps of each sequence: (N, T, F) becomes (N, F)."""

    def build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ValueError(f"{self.name}: expected input of shape (N, T, F), got {checks.dims(input_shape)}")
        return (input_shape[0], input_shape[2])

    def output_lengths(self, x: Array, lengths: Array | None) -> None:
        del x, lengths


class GlobalAveragePooling1D(_Pooling1D):
    """The mean over the steps of each sequence: (N, T, F) becomes (N, F).

    Where `lengths` say so, padding does not count. The mean of no steps is 0.

    Parameters
    ----------
    data_format : {"channels_last"}, optional
        Other formats are not supported.
    keepdims : False
        Not supported: add a `RepeatVector` of 1.
    input_shape : tuple, optional
    name : str, optional
    """

    def __init__(
        self,
        data_format: str | None = None,
        keepdims: bool = False,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        keras_options.require_neutral(data_format=data_format, keepdims=keepdims)
        self._shape: tuple[int, ...] = ()
        self._lengths: Array | None = None

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        if training:
            self._shape, self._lengths = x.shape, lengths
        rows, steps, _ = x.shape
        if steps == 0:
            return np.zeros((rows, x.shape[2]), x.dtype)
        # Sums one after the other, each of which knows nothing of later steps: padding cannot change a bit.
        sums = np.add.accumulate(x, axis=1)
        if lengths is None:
            return np.asarray(sums[:, -1] / x.dtype.type(steps))
        means: Array = sums[np.arange(rows), np.maximum(lengths, 1) - 1] / np.maximum(lengths, 1)[:, None].astype(
            x.dtype
        )
        means[lengths == 0] = 0
        return means

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if not input_gradient:
            return None
        _, steps, _ = self._shape
        if self._lengths is None:
            share: Array = d_y[:, None, :] / d_y.dtype.type(max(steps, 1))
            return np.ascontiguousarray(np.broadcast_to(share, self._shape))
        share = d_y[:, None, :] / np.maximum(self._lengths, 1)[:, None, None].astype(d_y.dtype)
        return np.where(sequences.valid_steps(self._lengths, steps)[:, :, None], share, d_y.dtype.type(0))


class GlobalMaxPooling1D(_Pooling1D):
    """The largest value over the steps of each sequence: (N, T, F) becomes (N, F).

    Where `lengths` say so, padding does not count. The largest of no steps is 0. Where several steps have the largest
    value, its gradient is divided among them.

    Parameters
    ----------
    data_format : {"channels_last"}, optional
        Other formats are not supported.
    keepdims : False
        Not supported: add a `RepeatVector` of 1.
    input_shape : tuple, optional
    name : str, optional
    """

    def __init__(
        self,
        data_format: str | None = None,
        keepdims: bool = False,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        keras_options.require_neutral(data_format=data_format, keepdims=keepdims)
        self._chosen: Array | None = None

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        rows, steps, features = x.shape
        if steps == 0:
            if training:
                self._chosen = np.zeros(x.shape, bool)
            return np.zeros((rows, features), x.dtype)
        if lengths is None:
            largest: Array = x.max(axis=1)
            valid = None
        else:
            valid = sequences.valid_steps(lengths, steps)[:, :, None]
            largest = np.where(valid, x, x.dtype.type(-np.inf)).max(axis=1)
            largest[lengths == 0] = 0
        if training:
            self._chosen = x == largest[:, None, :]
            if valid is not None:
                self._chosen &= valid
        return largest

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if not input_gradient:
            return None
        if self._chosen is None:
            raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
        share = d_y / np.maximum(self._chosen.sum(axis=1), 1).astype(d_y.dtype)
        return np.asarray(self._chosen * share[:, None, :])


class LastStep(_Pooling1D):
    """The last step of each sequence: (N, T, F) becomes (N, F), as PyTorch's ``output[:, -1]``.

    Where `lengths` say so, it is the last step that counts. The last of no steps is 0.

    After a GRU that reads forwards, this is its last state. After a `Bidirectional` it is not: there the backward
    direction has read one step only. `Bidirectional` without ``return_sequences`` returns the states that have read all
    steps. Keras has no such layer.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        self._shape: tuple[int, ...] = ()
        self._places: tuple[Array, Array] | None = None  # rows and steps

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        rows, steps, features = x.shape
        counted = np.full(rows, steps, np.int64) if lengths is None else lengths
        present = np.flatnonzero(counted)
        places = present, counted[present] - 1
        if training:
            self._shape, self._places = x.shape, places
        last = np.zeros((rows, features), x.dtype)
        last[present] = x[places]
        return last

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if not input_gradient:
            return None
        if self._places is None:
            raise RuntimeError(f"{self.name}: backward needs a forward with training=True before it")
        d_x = np.zeros(self._shape, d_y.dtype)
        d_x[self._places] = d_y[self._places[0]]
        return d_x


class Masking(Layer):
    """Finds each sequence's length: steps whose features all equal `mask_value`, at the end, are padding.

    The layers after it then neither compute nor count padding; the steps themselves pass unchanged, where Keras sets
    padding to 0. A step like that *before* another one is refused: the kernels know sequences that end, not sequences
    with holes.

    Parameters
    ----------
    mask_value : float
    input_shape : tuple, optional
        (T, F), which the first layer of a model may give.
    name : str, optional
    dtype : {"float32", "float64"}, optional
        Of the layer when it is called on its own, float32 if not given. In a model it must be the model's.
    trainable : bool
        See `Layer`.
    """

    finds_padding = True

    def __init__(
        self,
        mask_value: float = 0.0,
        *,
        input_shape: tuple[int | None, ...] | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(input_shape=input_shape, name=name, dtype=dtype, trainable=trainable)
        self.mask_value = checks.number("mask_value", mask_value)

    def build(self, input_shape: Shape) -> Shape:  # noqa: D102
        if len(input_shape) != 3:
            raise ValueError(f"{self.name}: expected input of shape (N, T, F), got {checks.dims(input_shape)}")
        return input_shape

    def forward(self, x: Array, *, lengths: Array | None = None, training: bool = False) -> Array:  # noqa: D102
        del lengths, training
        return x

    def check_input(self, name: str, x: Array, lengths: Array | None, first: int) -> Array:  # noqa: D102
        return sequences.prefix_lengths(f"{name}, masked by {self.name}", self._counting(x), lengths, first=first)

    def output_lengths(self, x: Array, lengths: Array | None) -> Array:  # noqa: D102
        return sequences.prefix_lengths(f"{self.name}, within a batch", self._counting(x), lengths)

    def _counting(self, x: Array) -> Array:
        value = x.dtype.type(self.mask_value)
        if x.shape[2] == 0:
            return np.zeros(x.shape[:2], bool)
        counts = np.asarray(x[:, :, 0] != value)
        # Few are left, because a step's first feature mostly tells: looking at all of them costs more.
        doubtful = np.nonzero(~counts)
        counts[doubtful] = (x[doubtful] != value).any(axis=1)
        return counts

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        return d_y if input_gradient else None
