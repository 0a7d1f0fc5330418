"""Layers without weights: dropout, flattening, pooling over time, the last step, and masking."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fastgru._support import checks, sequences
from fastgru._support.warn import warn_user
from fastgru.layers import keras_options
from fastgru.layers.base import Array, Layer, Shape, keep_mask


def warn_of_padding(layer: Layer, x: Array, lengths: Array | None) -> None:
    """Warn if the layer drops the lengths of padded sequences: its output then contains the padding as data."""
    if lengths is not None and x.ndim > 2 and (lengths < x.shape[1]).any():
        warn_user(
            f"{layer.name}: lengths and masks end here because {type(layer).__name__} moves the time steps, so padding "
            f"counts as data in this layer and after it, and outputs depend on the amount of padding; use "
            f"GlobalAveragePooling1D, GlobalMaxPooling1D or a GRU before it"
        )


class Dropout(Layer):
    """Set a fraction `rate` of the input to 0 and scale the rest by 1 / (1 - rate), in training only, as Keras does.

    With `lengths`, padding does not change.

    Parameters
    ----------
    rate : float
        The fraction to set to 0, from 0 to below 1.
    noise_shape : None
        Not supported; see `SpatialDropout1D`.
    seed : int, optional
        Ignored. All random numbers come from the model's generator. `fastgru.utils.set_random_seed` seeds it.
    input_shape, name, dtype, trainable
        As in `Layer`.
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
        else:  # Draw nothing for padding: the amount of padding must not change later random numbers.
            self._mask = np.ones(x.shape, x.dtype)
            self._mask.reshape(-1)[kept] = keep_mask(self.generator, self.rate, kept.shape, x.dtype)
        return x * self._mask

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        if not input_gradient:
            return None
        return d_y if self._mask is None else d_y * self._mask


class SpatialDropout1D(Layer):
    """Drop whole features of each sequence, in training only, as Keras' ``SpatialDropout1D``.

    A fraction `rate` of the features is set to 0 in all steps of a sequence. The rest is scaled by 1 / (1 - rate). The
    features are chosen separately for each sequence of a batch.

    Parameters
    ----------
    rate : float
        The fraction to set to 0, from 0 to below 1.
    seed : int, optional
        Ignored, as in `Dropout`.
    input_shape : tuple, optional
        (T, F), for the first layer of a model.
    name, dtype, trainable
        As in `Layer`.
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
    """Combine all axes but the first: (N, T, F) becomes (N, T * F). Padding is included, with a warning.

    Parameters
    ----------
    data_format : {"channels_last"}, optional
        Other formats are not supported.
    input_shape, name, dtype, trainable
        As in `Layer`.
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
    """Base class of poolings over the steps of each sequence: (N, T, F) becomes (N, F)."""

    def build(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ValueError(f"{self.name}: expected input of shape (N, T, F), got {checks.dims(input_shape)}")
        return (input_shape[0], input_shape[2])

    def output_lengths(self, x: Array, lengths: Array | None) -> None:
        del x, lengths


class GlobalAveragePooling1D(_Pooling1D):
    """Compute the mean over the steps of each sequence: (N, T, F) becomes (N, F).

    With `lengths`, padding is ignored. The mean of a sequence without steps is 0.

    Parameters
    ----------
    data_format : {"channels_last"}, optional
        Other formats are not supported.
    keepdims : False
        Not supported: add a `RepeatVector` of 1.
    input_shape, name, dtype, trainable
        As in `Layer`.
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
        # Cumulative sums do not depend on later steps, so results with and without padding are bit-identical.
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
    """Compute the maximum over the steps of each sequence: (N, T, F) becomes (N, F).

    With `lengths`, padding is ignored. The maximum of a sequence without steps is 0. If several steps have the maximum,
    its gradient is divided equally among them.

    Parameters
    ----------
    data_format : {"channels_last"}, optional
        Other formats are not supported.
    keepdims : False
        Not supported: add a `RepeatVector` of 1.
    input_shape, name, dtype, trainable
        As in `Layer`.
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
    """Return the last step of each sequence: (N, T, F) becomes (N, F), as ``output[:, -1]`` in PyTorch.

    With `lengths`, it is the last valid step. The result for a sequence without steps is 0. Keras has no such layer.

    After a GRU that reads forwards, the last step is the last state. After a `Bidirectional` it is not, because the
    backward GRU has read only one step there. Use `Bidirectional` without ``return_sequences`` for the last states of
    both directions.

    Parameters
    ----------
    input_shape : tuple, optional
        (T, F), for the first layer of a model.
    name, dtype, trainable
        As in `Layer`.
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
    """Compute lengths: steps at the end of a sequence whose features all equal `mask_value` are padding.

    The next layers receive the lengths and ignore padding. The input itself does not change, whereas Keras sets padding
    to 0. A masked step *before* a valid one raises ValueError, because the kernels support padding at the end only.

    Parameters
    ----------
    mask_value : float, default 0.0
        The value of all features of a padded step.
    input_shape : tuple, optional
        (T, F), for the first layer of a model.
    name, dtype, trainable
        As in `Layer`.
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
        # Usually the first feature of a step differs from the mask value. Few steps are left, so comparing all features
        # of these steps only is faster.
        doubtful = np.nonzero(~counts)
        counts[doubtful] = (x[doubtful] != value).any(axis=1)
        return counts

    def backward(self, d_y: Array, *, input_gradient: bool) -> Array | None:  # noqa: D102
        return d_y if input_gradient else None
