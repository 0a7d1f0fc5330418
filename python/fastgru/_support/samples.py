"""The samples a model is given: checked once, then gathered and converted batch by batch into reused buffers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks, sequences
from fastgru._support.warn import warn_user

Array = NDArray[Any]


class Samples:
    """Samples that `as_samples` has returned, the first axis being the batch.

    The array itself is neither copied, converted nor changed, so it may be memory-mapped.

    Parameters
    ----------
    name : str
        The argument's name, for messages.
    x : ndarray
    expected : tuple
        The model's input shape, None where any size is allowed.
    dtype : dtype or None
        The dtype that batches are converted to. None: batches keep the dtype of `x`.
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
        """Some of the samples, as a view."""
        part = copy.copy(self)
        part._x, part._given, part._batch = self._x[rows], None, None
        return part

    def take(self, indices: NDArray[np.intp] | slice) -> Array:
        """The samples at `indices` in their own dtype; the next call uses the memory again."""
        if isinstance(indices, slice):
            return self._x[indices]  # a view: the kernels take any strides
        size = len(indices)
        self._given = _at_least(self._given, size, self._x.shape[1:], self._x.dtype)
        return np.take(self._x, indices, axis=0, out=self._given[:size], mode="clip")

    def convert(self, rows: Array, lengths: Array | None = None) -> Array:
        """What `take` returned in the dtype of batches; the next call uses the memory again."""
        if rows.dtype == self._dtype:
            return rows
        self._batch = _at_least(self._batch, len(rows), rows.shape[1:], self._dtype)
        return convert(self._name, rows, self._batch[: len(rows)], lengths)

    def batch(self, indices: NDArray[np.intp] | slice, lengths: Array | None = None) -> Array:
        """The samples at `indices` in the dtype of batches; the next call uses the memory again."""
        return self.convert(self.take(indices), lengths)


def fits(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether an array has the expected shape, in which None stands for any size."""
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))


def _at_least(buffer: Array | None, rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if buffer is None or len(buffer) < rows:
        return np.empty((rows, *shape), dtype)
    return buffer


def convert(name: str, x: Array, to: Array, lengths: Array | None = None) -> Array:
    """Copy real numbers `x` into `to`, which is of another dtype, and return `to`.

    Warns
    -----
    RuntimeWarning
        A finite number outside of padding exceeds the range of the dtype and became infinite.
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
    """`x` as an array (N, ...) of real numbers in any dtype, or of integers if `tokens`; arrays are not copied."""
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
    """The dtype that batches of `x` are converted to for a model of `dtype`; None if they keep their own.

    Parameters
    ----------
    x : ndarray
    dtype : dtype
    tokens, converts : bool
        The attributes `takes_tokens` and `converts_input` of the model's first layer.
    """
    return None if tokens or (converts and np.can_cast(x.dtype, dtype, "safe")) else dtype


def lengths_of(name: str, lengths: Any, x: Array, *, tokens: bool = False) -> Array | None:
    """`sequences.check_lengths` of the sequences in samples `x`, which must have steps then; None stays None."""
    if lengths is None:
        return None
    if x.ndim < (2 if tokens else 3):
        raise ValueError(f"{name}: expected none because x of shape {x.shape} has no steps, got some")
    return sequences.check_lengths(name, lengths, len(x), x.shape[1])
