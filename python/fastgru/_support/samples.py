"""Samples of a model: checked once, then gathered and converted batch by batch into reused buffers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks, sequences
from fastgru._support.warn import warn_user

Array = NDArray[Any]


class Samples:
    """An array of samples that `as_samples` returned; the first axis is the batch.

    The array is not copied, converted or changed as a whole, so it may be memory-mapped.

    Parameters
    ----------
    name : str
        Name of the argument, for messages.
    x : ndarray
    expected : tuple
        Input shape of the model; None for axes of any size.
    dtype : dtype or None
        The dtype of batches; None keeps the dtype of `x`.
    """

    def __init__(self, name: str, x: Array, expected: tuple[int | None, ...], dtype: np.dtype[Any] | None) -> None:
        if x.shape[1:] != expected[1:] and not fits(x.shape, expected):
            raise ValueError(
                f"{name}: expected shape {checks.dims(expected)} because that is the model's input, got {x.shape}"
            )
        self._name = name
        self._x = x
        self._dtype = x.dtype if dtype is None else dtype
        self._given: Array | None = None
        self._batch: Array | None = None

    def __len__(self) -> int:
        return len(self._x)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the samples before the conversion."""
        return self._x.dtype

    @property
    def steps(self) -> int:
        """The number of steps of sequences."""
        return int(self._x.shape[1])

    def part(self, rows: slice) -> Samples:
        """Return some of the samples, as a view."""
        part = copy.copy(self)
        part._x, part._given, part._batch = self._x[rows], None, None
        return part

    def take(self, indices: NDArray[np.intp] | slice) -> Array:
        """Return the samples at `indices` without conversion; the next call may overwrite the result."""
        if isinstance(indices, slice):
            return self._x[indices]  # a view, because the kernels support any strides
        size = len(indices)
        self._given = _at_least(self._given, size, self._x.shape[1:], self._x.dtype)
        return np.take(self._x, indices, axis=0, out=self._given[:size], mode="clip")

    def convert(self, rows: Array, lengths: Array | None = None) -> Array:
        """Convert an array that `take` returned to the dtype of batches; the next call may overwrite the result."""
        if rows.dtype == self._dtype:
            return rows
        self._batch = _at_least(self._batch, len(rows), rows.shape[1:], self._dtype)
        return convert(self._name, rows, self._batch[: len(rows)], lengths)

    def batch(self, indices: NDArray[np.intp] | slice, lengths: Array | None = None) -> Array:
        """Return the samples at `indices` in the dtype of batches; the next call may overwrite the result."""
        return self.convert(self.take(indices), lengths)


def fits(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether a shape is the expected one, in which None matches any size."""
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))


def _at_least(buffer: Array | None, rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if buffer is None or len(buffer) < rows:
        return np.empty((rows, *shape), dtype)
    return buffer


def convert(name: str, x: Array, to: Array, lengths: Array | None = None) -> Array:
    """Convert real numbers `x` to the dtype of `to`, write them to `to`, and return `to`.

    Warns
    -----
    RuntimeWarning
        A finite number outside padding exceeds the range of the dtype and became infinite.
    """
    try:
        with np.errstate(over="raise"):
            np.copyto(to, x, casting="unsafe")
    except FloatingPointError:
        with np.errstate(over="ignore"):
            np.copyto(to, x, casting="unsafe")
        overflowed = np.isfinite(x) & ~np.isfinite(to)
        if lengths is not None:
            overflowed &= sequences.valid_in(lengths, x.shape)
        if overflowed.any():
            index = tuple(int(i) for i in np.argwhere(overflowed)[0])
            warn_user(
                f"{name}: expected numbers in the range of {to.dtype}, got {x[index]} at index {index} of a batch, "
                f"which became infinite; scale {checks.last_name(name)}, or make the model with dtype='float64'",
                RuntimeWarning,
            )
    return to


def as_samples(name: str, x: Any, *, tokens: bool = False) -> Array:
    """Return `x` as an array (N, ...) of real numbers, or of integers if `tokens`. Arrays are not copied."""
    array = checks.array(name, x)
    if array.dtype.kind not in "biuf":
        own = checks.last_name(name)
        remedy = f"pass {own}.real and {own}.imag as features" if array.dtype.kind == "c" else "convert it to numbers"
        what = f"{type(x).__name__} of {array.dtype}" if isinstance(x, np.ndarray) or array.ndim else type(x).__name__
        raise TypeError(f"{name}: expected an array of real numbers, got {what}; {remedy}")
    if array.ndim == 0:
        raise ValueError(f"{name}: expected an array of samples, got a single number")
    if tokens and array.dtype.kind not in "iu" and array.size:
        raise TypeError(
            f"{name}: expected integers because the model begins with an Embedding, got {array.dtype}; convert it with "
            f"{checks.last_name(name)}.astype('int64')"
        )
    return array


def dtype_of_batches(x: Array, dtype: np.dtype[Any], *, tokens: bool, converts: bool) -> np.dtype[Any] | None:
    """Return the dtype to which batches of `x` are converted for a model of `dtype`; None for no conversion.

    Parameters
    ----------
    x : ndarray
    dtype : dtype
    tokens, converts : bool
        The attributes `takes_tokens` and `converts_input` of the first layer of the model.
    """
    return None if tokens or (converts and np.can_cast(x.dtype, dtype, "safe")) else dtype


def lengths_of(name: str, lengths: Any, x: Array, *, tokens: bool = False) -> Array | None:
    """Return `lengths` as `sequences.check_lengths` does; raises if samples `x` have no time axis. None is returned."""
    if lengths is None:
        return None
    if x.ndim < (2 if tokens else 3):
        raise ValueError(f"{name}: expected None because x of shape {x.shape} has no time axis, got lengths")
    return sequences.check_lengths(name, lengths, len(x), x.shape[1])
