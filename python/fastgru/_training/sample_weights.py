"""Weights of samples, steps and classes, by which losses are multiplied."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import losses
from fastgru._support import checks, sequences

Array = NDArray[Any]


def check_weights(name: str, weights: Any, elements: tuple[int, ...], lengths: Array | None) -> Array:
    """Return weights (N,), or (N, T) for outputs at each step; outside padding they must be finite and at least 0."""
    array = checks.array(name, weights)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}")
    if array.shape not in (elements[:1], elements):
        shapes = " or ".join(str(shape) for shape in dict.fromkeys((elements[:1], elements)))
        raise ValueError(f"{name}: expected shape {shapes}, got {array.shape}")
    wrong = ~(np.isfinite(array) & (array >= 0))
    if lengths is not None and array.ndim > 1:
        wrong &= sequences.valid_in(lengths, array.shape)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        at = index[0] if len(index) == 1 else index
        raise ValueError(f"{name}: expected finite numbers of at least 0, got {array[index]} at index {at}")
    return array.astype(np.float64)


def check_class_weight(class_weight: Any, loss: losses.Loss) -> dict[int, float] | None:
    """Return the checked argument `class_weight` of `fit`."""
    if class_weight is None:
        return None
    if not isinstance(class_weight, dict):
        raise TypeError(f"class_weight: expected a dict from classes to numbers, got {type(class_weight).__name__}")
    if not (loss.classifies or loss.asks):
        raise ValueError(f"class_weight: expected None because {loss.name} has no classes, got a dict")
    return {
        checks.integer("class_weight", label, least=0): checks.number(f"class_weight[{label}]", weight, least=0)
        for label, weight in class_weight.items()
    }


def classes_in(
    loss: losses.Loss, y: Array, lengths: Array | None, shape: tuple[int | None, ...]
) -> NDArray[np.bool_] | None:
    """Return which classes (C,) occur in targets for outputs of this shape; None if the targets are not classes."""
    if not (loss.classifies or (loss.asks and shape[-1] == 1)):
        return None
    labels = _labels(y, shape)
    if lengths is not None and labels.ndim > 1:
        labels = labels[np.broadcast_to(sequences.valid_in(lengths, labels.shape), labels.shape)]
    bins = max(shape[-1] or 0, 2)
    labels = labels[(labels >= 0) & (labels < bins)]  # other values are in padding that a layer detects
    return np.bincount(labels, minlength=bins) > 0


def _labels(y: Array, shape: tuple[int | None, ...]) -> Array:
    """Convert targets to class indices; a binary target becomes 0 or 1."""
    if y.ndim < len(shape):
        return y
    return (y[..., 0] > 0.5).astype(np.int64) if shape[-1] == 1 else y.argmax(axis=-1)


def weigh_classes(
    class_weight: dict[int, float], y: Array, shape: tuple[int, ...], weights: Array | None, lengths: Array | None
) -> Array:
    """Return the weights of all elements: the weights of their classes, multiplied by `weights`."""
    classes = shape[-1]
    labels = _labels(y, shape)
    if lengths is not None:
        labels = np.where(sequences.valid_in(lengths, labels.shape), labels, 0)
    bins = max(classes, 2)
    outside = [label for label in class_weight if label >= bins]
    if outside:
        raise ValueError(f"class_weight: expected classes from 0 to {bins - 1}, got {outside[0]}")
    factors: Array = np.array([class_weight.get(label, 1.0) for label in range(bins)])[labels]
    if weights is None:
        return factors
    return np.asarray(factors * weights.reshape(*weights.shape, *(1 for _ in factors.shape[weights.ndim :])))
