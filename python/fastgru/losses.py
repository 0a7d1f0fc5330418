"""Losses on the logits of a classifier's head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import checks

Array = NDArray[Any]

#: Both names take integer labels (N,) and one-hot or other targets (N, C): the labels say which they are.
CROSS_ENTROPIES = ("categorical_crossentropy", "sparse_categorical_crossentropy")


def get(loss: str) -> str:
    """The name of a loss, checked."""
    return checks.choice("loss", loss, CROSS_ENTROPIES)


def check_labels(name: str, labels: Any, rows: int, classes: int) -> Array:
    """Labels for cross-entropy as the kernel takes them: classes (N,) of int64, or targets (N, C) of float.

    Parameters
    ----------
    name : str
        The argument's name, for messages.
    labels : array_like
        Integers (N,) or (N, 1), each a class; or (N, C), one-hot or any other targets, integer or float.
    rows, classes : int
        N and C.

    Raises
    ------
    TypeError
        The dtype fits neither.
    ValueError
        The shape does not fit, or a label is no class (its index is given), or a target is negative or not finite.
    """
    array = np.asarray(labels)
    integers = array.dtype.kind in "iu"
    if array.ndim == 2 and array.shape[1] == 1 and classes != 1 and integers:
        array = array[:, 0]
    if array.ndim == 1:
        if not integers:
            raise TypeError(
                f"{name}: expected integer classes, or targets of shape (N, {classes}), got {array.dtype} of shape "
                f"{array.shape}; convert classes with .astype('int64')"
            )
        _require_rows(name, array, rows)
        outside = np.flatnonzero((array < 0) | (array >= classes))
        if outside.size:
            raise ValueError(
                f"{name}: expected classes from 0 to {classes - 1} because the model has {classes} outputs, got "
                f"{array[outside[0]]} at index {outside[0]}"
            )
        return array.astype(np.int64)
    if array.ndim != 2 or array.shape[1] != classes:
        raise ValueError(
            f"{name}: expected shape (N,) or (N, {classes}) because the model has {classes} outputs, got {array.shape}"
        )
    if not integers and array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected integers, float32 or float64, got {array.dtype}")
    _require_rows(name, array, rows)
    wrong = np.argwhere(~(np.isfinite(array) & (array >= 0)))
    if wrong.size:
        row, column = wrong[0]
        raise ValueError(f"{name}: expected targets of at least 0, got {array[row, column]} at index ({row}, {column})")
    return array


def _require_rows(name: str, array: Array, rows: int) -> None:
    if len(array) != rows:
        raise ValueError(f"{name}: expected {rows} labels because there are {rows} samples, got {len(array)}")
