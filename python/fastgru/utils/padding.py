"""Padding of sequences of different lengths, as in Keras."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks

Array = NDArray[Any]

_SIDES = ("pre", "post")


def pad_sequences(
    sequences: Any,
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: Any = 0.0,
) -> Array:
    """Pad sequences of different lengths to one array, with Keras' arguments and defaults.

    By default, the result is int32, and padding is inserted *before* each sequence. A `Masking` layer,
    ``mask_zero=True`` and `lengths` need padding after it: pass ``padding="post"``, or use `pad_with_lengths`, which
    does not change the dtype.

    Parameters
    ----------
    sequences : sequence of array_like (T_i, ...)
        The sequences. All axes but the first must have the same size.
    maxlen : int, optional
        The length T of the result; by default that of the longest sequence. Longer sequences are truncated.
    dtype : dtype, default "int32"
        The dtype of the result. Pass "float32" for real numbers, because conversion to int32 truncates them.
    padding : {"pre", "post"}
        Whether to insert padding before or after each sequence.
    truncating : {"pre", "post"}
        Whether to remove the first or the last steps of sequences longer than `maxlen`.
    value : number, default 0.0
        The value of padding.

    Returns
    -------
    ndarray (N, T, ...)

    Examples
    --------
    >>> pad_sequences([[1, 2, 3], [4]])
    array([[1, 2, 3],
           [0, 0, 4]], dtype=int32)
    """
    checks.choice("padding", padding, _SIDES)
    checks.choice("truncating", truncating, _SIDES)
    if not hasattr(sequences, "__len__") or isinstance(sequences, (str, bytes)):
        raise TypeError(f"sequences: expected a list of sequences, got {type(sequences).__name__}")
    for number, sequence in enumerate(sequences):
        if not hasattr(sequence, "__len__") or isinstance(sequence, (str, bytes)):
            raise TypeError(f"sequences: expected a sequence at index {number}, got {sequence!r:.100}")
        checks.unmasked("sequences", sequence)
    if maxlen is None:
        if not len(sequences):
            raise ValueError("sequences: expected at least one because maxlen is None, got none; pass maxlen=")
        maxlen = max(len(sequence) for sequence in sequences)
    else:
        maxlen = checks.integer("maxlen", maxlen, least=0)
    shape = next((np.shape(sequence)[1:] for sequence in sequences if len(sequence)), ())
    padded = _full((len(sequences), maxlen, *shape), value, dtype)
    for row, (to, sequence) in enumerate(zip(padded, sequences, strict=True)):
        kept = sequence[max(len(sequence) - maxlen, 0) :] if truncating == "pre" else sequence[:maxlen]
        if not len(kept):
            continue
        steps = np.asarray(kept, dtype)
        if steps.shape[1:] != shape:
            raise ValueError(
                f"sequences: expected steps of shape {shape} as in the first sequence, got {steps.shape[1:]} at index "
                f"{row}"
            )
        to[slice(maxlen - len(steps), None) if padding == "pre" else slice(0, len(steps))] = steps
    return padded


def _full(shape: tuple[int, ...], value: Any, dtype: Any) -> Array:
    try:
        return np.full(shape, value, dtype)
    except (ValueError, OverflowError):
        if shape[1] > sys.maxsize // max(shape[0], 1):
            raise MemoryError(f"maxlen: expected an array that fits into memory, got {shape[1]:,} steps") from None
        raise
