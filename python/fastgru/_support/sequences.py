"""Sequences of different lengths in one array, padded at the end, with an array of their lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks

Array = NDArray[Any]


def pad_with_lengths(sequences: Sequence[Any], *, value: float = 0, steps: int | None = None) -> tuple[Array, Array]:
    """Pad sequences of different lengths to one array.

    Parameters
    ----------
    sequences : sequence of array_like
        Arrays (T_i, ...), which differ in their first axis only.
    value : number
        The value of padding. Layers that receive the lengths ignore it.
    steps : int, optional
        Size of the time axis of the result; the length of the longest sequence by default.

    Returns
    -------
    x : ndarray (N, T, ...)
    lengths : ndarray (N,) of int64

    Raises
    ------
    ValueError
        There are no sequences, their shapes differ beyond the first axis, or one is longer than `steps`.
    TypeError
        A sequence does not consist of numbers, or `steps` is not an integer.
    MemoryError
        The result needs more memory than is available.

    Examples
    --------
    >>> x, lengths = pad_with_lengths([[[1.0], [2.0]], [[3.0]]])
    >>> x.shape, lengths.tolist()
    ((2, 2, 1), [2, 1])
    """
    if not isinstance(sequences, Iterable):
        raise TypeError(f"sequences: expected a list of arrays, got {sequences!r}")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, (int, np.integer))):
        raise TypeError(f"steps: expected an integer, got {steps!r}")
    arrays = [_numbers(number, sequence) for number, sequence in enumerate(sequences)]
    if not arrays:
        raise ValueError("sequences: expected at least one, got none")
    for number, array in enumerate(arrays):
        if array.ndim == 0 or array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"sequences: expected shape (T, {', '.join(map(str, arrays[0].shape[1:]))}) as at index 0, got "
                f"{array.shape} at index {number}"
            )
    lengths = np.array([len(array) for array in arrays], np.int64)
    longest = int(lengths.max())
    if steps is not None and longest > steps:
        raise ValueError(
            f"sequences: expected at most {steps} steps because steps={steps}, got {longest} at index "
            f"{int(lengths.argmax())}"
        )
    shape = (len(arrays), longest if steps is None else steps, *arrays[0].shape[1:])
    try:
        x = np.full(shape, value, np.result_type(*arrays))
    except ValueError:  # NumPy's error if the number of bytes overflows
        raise MemoryError(f"steps: expected an array that fits into memory, got {shape[1]:,} steps") from None
    for row, array in zip(x, arrays, strict=True):
        row[: len(array)] = array
    return x, lengths


def _numbers(number: int, sequence: Any) -> Array:
    try:
        array = np.asarray(checks.unmasked("sequences", sequence))
    except ValueError:
        raise ValueError(f"sequences: expected arrays, got lists of different lengths at index {number}") from None
    if array.dtype.kind not in "biufc":
        raise TypeError(f"sequences: expected numbers, got {array.dtype} at index {number}")
    return array


def check_lengths(name: str, lengths: Any, rows: int, steps: int) -> Array:
    """Return `lengths` as (N,) of int64, each from 0 to `steps`; converts a bool mask (N, T) to lengths.

    Raises
    ------
    TypeError
        They are not integers.
    ValueError
        Their number is not `rows`, one is out of range, or a mask has a hole; the message gives the index.
    """
    array = checks.array(name, lengths)
    if array.dtype == bool and array.ndim > 1:
        if array.shape != (rows, steps):
            raise ValueError(f"{name}: expected a mask of shape ({rows}, {steps}), got {array.shape}")
        return prefix_lengths(name, array)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(f"{name}: expected shape ({rows},), one for each sample, got {array.shape}")
    outside = np.flatnonzero((array < 0) | (array > steps))
    if outside.size:
        raise ValueError(
            f"{name}: expected lengths from 0 to {steps} because x has {steps} steps, got {array[outside[0]]} at index "
            f"{outside[0]}"
        )
    return array.astype(np.int64)


def valid_steps(lengths: Array, steps: int) -> NDArray[np.bool_]:
    """Return the mask (N, T) of valid steps."""
    return np.asarray(np.arange(steps) < lengths[:, None])


def valid_in(lengths: Array, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return `valid_steps` with axes for broadcasting to an array of that shape, (N, T, ...)."""
    valid = valid_steps(lengths, shape[1])
    return valid.reshape(*valid.shape, *(1 for _ in shape[2:]))


def valid_elements(lengths: Array, shape: tuple[int, ...]) -> NDArray[np.intp] | None:
    """Return the flat indices of valid elements of an array of that shape, (N, T, ...); None if all are valid."""
    if (lengths >= shape[1]).all():
        return None
    return np.flatnonzero(np.broadcast_to(valid_in(lengths, shape), shape))


def prefix_lengths(name: str, mask: Array, lengths: Array | None = None, *, first: int = 0) -> Array:
    """Return lengths (N,) for a mask (N, T) of valid steps, which must be the first steps of each row.

    Parameters
    ----------
    name : str
        Name of the mask, for the message.
    mask : ndarray (N, T) of bool
    lengths : ndarray (N,), optional
        Known lengths; later steps count as masked.
    first : int
        Index of the first row's sample, for the message.

    Raises
    ------
    ValueError
        A masked step precedes a valid one; the message gives both.
    """
    steps = mask.shape[1]
    if lengths is not None:
        mask = mask & valid_steps(lengths, steps)
    counts: Array = mask.sum(axis=1, dtype=np.int64)
    holes = mask & ~valid_steps(counts, steps)
    if holes.any():
        row, step = np.argwhere(holes)[0]
        raise ValueError(
            f"{name}: expected masked steps at the end of a sequence only, got one at step {int(np.argmin(mask[row]))} "
            f"of sample {first + row}, before step {step} that is valid; masks with holes are not supported"
        )
    return counts
