"""Finds the cause of a loss or gradient that is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import sequences
from fastgru._training.data import Batch

Array = NDArray[Any]


def find_cause(
    batch: Batch, dtype: np.dtype[Any], weights: Mapping[str, Array], states: Mapping[str, Array]
) -> tuple[str, str] | None:
    """Return the first input of a training step that is not finite, and the remedy; None if all inputs are finite.

    Parameters
    ----------
    batch : Batch
    dtype : dtype
        The dtype of the model. A number beyond its range becomes infinite.
    weights, states : mapping of str to ndarray
        The weights of the model and the states of stateful layers before the batch.
    """
    given = {
        "x": batch.x if batch.given is None else batch.given,
        "y": batch.y,
        "sample_weight": batch.weights,
    }
    for name, array in given.items():
        found = None if array is None else _first_not_finite(array, batch.lengths, dtype)
        if array is None or found is None:
            continue
        index, samples = found
        where = f"index {_text(index)} of the batch"
        if batch.samples is not None:
            place = (int(batch.samples[index[0]]), *index[1:])
            where = f"index {_text(place)}, in sample {index[0]} of the batch"
        others = f", and more in {samples - 1} other samples" if samples > 1 else ""
        what = f"{name} has {array[index]} at {where}{others}"
        if np.isfinite(array[index]):
            return (
                f"{what}, which overflows in the conversion to {dtype}",
                f"scale {name}, or make the model with dtype='float64'",
            )
        return what, f"leave out such samples, or replace what is not finite in {name}"
    for name, array in weights.items():
        if not np.isfinite(array).all():
            return f"the weights {name} were not finite before the batch", "load or set finite weights"
    for name, array in states.items():
        if not np.isfinite(array).all():
            return f"the carried states {name} were not finite before the batch", "call reset_states()"
    return None


def _text(index: tuple[int, ...]) -> str:
    return str(index[0] if len(index) == 1 else index)


def _first_not_finite(array: Array, lengths: Array | None, dtype: np.dtype[Any]) -> tuple[tuple[int, ...], int] | None:
    """Return the index of the first value outside padding that is not finite in `dtype`, and the number of samples."""
    if array.dtype.kind != "f":  # the largest integers are in the range of float32
        return None
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(array.astype(dtype, copy=False))
    if lengths is not None and array.ndim > 1:
        wrong &= sequences.valid_in(lengths, array.shape)
    if not wrong.any():
        return None
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    return first, int(np.count_nonzero(wrong.reshape(len(wrong), -1).any(axis=1)))
