"""The samples a model is given: checked once, then gathered batch by batch into one reused buffer."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks, sequences

Array = NDArray[Any]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


class Samples:
    """Samples that have passed `require_samples`, the first axis being the batch.

    float32 and float64 stay as they are. uint8 is taken for an image's bytes: batches are divided by 255. Tokens are
    integers of any kind and stay as they are. The array itself is neither copied nor changed, so it may be
    memory-mapped.

    Parameters
    ----------
    name : str
        The argument's name, for messages.
    x : ndarray
    expected : tuple
        The model's input shape, None where any size will do.
    dtype : dtype
        The model's dtype. float32 samples in a float64 model are widened; the other way round is refused.
    tokens : bool
        Whether the model begins with an `Embedding`.
    """

    def __init__(
        self, name: str, x: Array, expected: tuple[int | None, ...], dtype: np.dtype[Any], *, tokens: bool = False
    ) -> None:
        if x.shape[1:] != expected[1:] and not fits(x.shape, expected):
            raise ValueError(
                f"{name}: expected shape {checks.dims(expected)} because that is the model's input, got {x.shape}"
            )
        if not tokens and x.dtype.type is np.float64 and dtype == np.float32:
            raise TypeError(
                f"{name}: expected float32 because the model's weights are float32, got float64; convert it with "
                f"{name}.astype('float32'), or make the model with dtype='float64'"
            )
        self._x = x
        self._dtype = x.dtype if tokens else dtype
        self._bytes: Array | None = None
        self._batch: Array | None = None

    def __len__(self) -> int:
        return len(self._x)

    def part(self, rows: slice) -> Samples:
        """Some of the samples, as a view."""
        part = copy.copy(self)
        part._x, part._bytes, part._batch = self._x[rows], None, None
        return part

    def batch(self, indices: NDArray[np.intp] | slice) -> Array:
        """The samples at `indices` in the model's dtype; the memory is used again by the next call."""
        x = self._x
        if isinstance(indices, slice):
            rows = x[indices]
            if x.dtype == self._dtype:
                return rows  # as they lie, the kernels take any strides
        else:
            size = len(indices)
            if x.dtype == self._dtype:
                self._batch = _at_least(self._batch, size, x.shape[1:], self._dtype)
                return np.take(x, indices, axis=0, out=self._batch[:size], mode="clip")
            self._bytes = _at_least(self._bytes, size, x.shape[1:], x.dtype)
            rows = np.take(x, indices, axis=0, out=self._bytes[:size], mode="clip")
        self._batch = _at_least(self._batch, len(rows), x.shape[1:], self._dtype)
        to = self._batch[: len(rows)]
        if x.dtype == np.uint8:  # an image's bytes; tokens have been returned as they are
            np.multiply(rows, self._dtype.type(1 / 255), out=to)
        else:
            np.copyto(to, rows)
        return to


def fits(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether an array has the expected shape, in which None stands for any size."""
    return len(shape) == len(expected) and all(e in (None, s) for s, e in zip(shape, expected, strict=True))


def _at_least(buffer: Array | None, rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if buffer is None or len(buffer) < rows:
        return np.empty((rows, *shape), dtype)
    return buffer


def require_samples(name: str, x: Any, *, tokens: bool = False) -> None:
    """Raise unless `x` is an array (N, ...) of float32, float64 or uint8, or of integers where it is tokens."""
    checks.unmasked(name, x)
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(x).__name__}; convert it with numpy.asarray")
    if x.ndim == 0:
        raise ValueError(f"{name}: expected an array of samples, got a single number")
    if tokens:
        if x.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected integers because the model begins with an Embedding, got {x.dtype}")
        return
    if x.dtype.type not in (np.float32, np.float64, np.uint8):  # in any order of bytes
        raise TypeError(
            f"{name}: expected float32, float64 or uint8 (bytes, which are divided by 255), got {x.dtype}; convert it "
            f"with {name}.astype('float32')"
        )


def lengths_of(name: str, lengths: Any, x: Array, *, tokens: bool = False) -> Array | None:
    """`sequences.check_lengths` of the sequences in samples `x`, which must have steps then; None stays None."""
    if lengths is None:
        return None
    if x.ndim < (2 if tokens else 3):
        raise ValueError(f"{name}: expected none because x of shape {x.shape} has no steps, got some")
    return sequences.check_lengths(name, lengths, len(x), x.shape[1])


def natural_dtype(x: Array) -> np.dtype[Any]:
    """The dtype a model takes that has none yet: float64 for float64, else float32."""
    return _FLOAT64 if x.dtype.type is np.float64 else _FLOAT32
