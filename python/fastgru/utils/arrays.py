"""Labels, norms and splits of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.seeding import new_generator

Array = NDArray[Any]


def to_categorical(x: Any, num_classes: int | None = None) -> Array:
    """Convert integer labels to one-hot vectors.

    fastgru does not need one-hot vectors: the loss "categorical_crossentropy" also accepts integer labels.

    Parameters
    ----------
    x : array_like of integers
        Labels from 0 to ``num_classes - 1``, of any shape. A last axis of size 1 is removed.
    num_classes : int, optional
        The number of classes C; ``max(x) + 1`` if not given.

    Returns
    -------
    ndarray (..., C) of float64

    Raises
    ------
    TypeError
        The labels are not whole numbers.
    ValueError
        A label is negative, or not below `num_classes`; the message gives its index.

    Examples
    --------
    >>> to_categorical([0, 2], num_classes=3)
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """
    given = checks.array("x", x)
    if given.dtype.kind not in "biuf" or (given.dtype.kind == "f" and not (given == np.trunc(given)).all()):
        raise TypeError(f"x: expected whole numbers because they are labels, got {given.dtype}; round them first")
    labels = given.astype(np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if num_classes:
        classes = checks.integer("num_classes", num_classes, least=1)
    elif labels.size:
        classes = int(labels.max()) + 1
    else:
        raise ValueError("num_classes: expected a number because x has no labels, got none; pass num_classes=")
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        index = tuple(int(place) for place in np.argwhere(outside)[0])
        raise ValueError(f"x: expected labels from 0 to {classes - 1}, got {labels[index]} at index {index}")
    vectors = np.zeros((*labels.shape, classes))
    np.put_along_axis(vectors, labels[..., None], 1, axis=-1)
    return vectors


def normalize(x: Any, axis: int | None = -1, order: float = 2) -> Array:
    """Divide an array by its norm along an axis. Vectors of norm 0 do not change.

    Parameters
    ----------
    x : array_like
        Real numbers.
    axis : int or None, default -1
        The axis of the norm. None uses the norm of the whole array.
    order : number
        The order of the norm, as in `numpy.linalg.norm`. 2 is the Euclidean norm, and 1 the sum of absolute values.

    Returns
    -------
    ndarray
        A new array of the same shape.

    Examples
    --------
    >>> normalize([[3.0, 4.0]])
    array([[0.6, 0.8]])
    """
    numbers = checks.array("x", x)
    if axis is None:
        norm: Any = np.linalg.norm(numbers.reshape(-1), order)
        return np.asarray(numbers / (norm or 1))
    norm = np.linalg.norm(numbers, order, axis, keepdims=True)
    return np.asarray(numbers / np.where(norm == 0, 1, norm))


def split_dataset(
    dataset: Any,
    left_size: float | None = None,
    right_size: float | None = None,
    shuffle: bool = False,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Split arrays into two parts along their first axis.

    Parameters
    ----------
    dataset : ndarray, or tuple or list of ndarray
        Samples, or several arrays such as ``(x, y)`` with the same number of samples.
    left_size, right_size : float or int, optional
        The size of each part, as a fraction or as a number of samples. One of them is sufficient. If both are given and
        do not cover all samples, the remaining samples are dropped.
    shuffle : bool
        Whether to shuffle before splitting. The parts are then copies, otherwise views.
    seed : int, optional
        The seed for shuffling. If not given, the seed of `set_random_seed` is used.

    Returns
    -------
    left, right
        Each is an array if `dataset` is an array, otherwise a tuple of arrays.

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = split_dataset((x, y), left_size=0.8, shuffle=True)
    """
    several = isinstance(dataset, (tuple, list))
    arrays = [checks.array("dataset", each) for each in (dataset if several else [dataset])]
    if not arrays or any(array.ndim == 0 or len(array) != len(arrays[0]) for array in arrays):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(
            f"dataset: expected arrays with the same number of samples, got shapes {shapes or 'of no arrays'}"
        )
    count = len(arrays[0])
    left, right = _sizes(left_size, right_size, count)
    places: list[Any] = [slice(0, left), slice(left, left + right)]
    if checks.flag("shuffle", shuffle):
        generator = new_generator() if seed is None else np.random.default_rng(checks.integer("seed", seed, least=0))
        order = generator.permutation(count)
        places = [order[place] for place in places]
    parts = [tuple(array[place] for array in arrays) for place in places]
    return (parts[0], parts[1]) if several else (parts[0][0], parts[1][0])


def _sizes(left: float | None, right: float | None, count: int) -> tuple[int, int]:
    """Return the numbers of samples of both parts."""
    if left is None and right is None:
        raise ValueError("left_size: expected a size because right_size is None, got None; pass one of the two")
    sizes = [None if size is None else _size(name, size, count) for name, size in _named(left, right)]
    if sizes[0] is None or sizes[1] is None:
        sizes = [count - (other or 0) if size is None else size for size, other in zip(sizes, sizes[::-1], strict=True)]
    first, second = sizes[0] or 0, sizes[1] or 0
    if first + second > count:
        raise ValueError(
            f"left_size: expected at most {count} samples in both parts, the size of the dataset, got {first} and "
            f"{second}"
        )
    for (name, _), size in zip(_named(left, right), (first, second), strict=True):
        if size < 1:
            raise ValueError(f"{name}: expected at least one of {count} samples in each part, got {size}")
    return first, second


def _named(left: float | None, right: float | None) -> tuple[tuple[str, float | None], tuple[str, float | None]]:
    return ("left_size", left), ("right_size", right)


def _size(name: str, size: float, count: int) -> int:
    if isinstance(size, (float, np.floating)):
        return round(checks.number(name, size, above=0, below=1) * count)
    return checks.integer(name, size, least=1, most=count)
