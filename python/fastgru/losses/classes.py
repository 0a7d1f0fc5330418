"""Categorical cross-entropies, and the check of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import functional
from fastgru._native import kernels
from fastgru._support import checks, sequences
from fastgru.losses.base import REDUCTION, Loss, LossResult, check_axis, focal_slope

Array = NDArray[Any]


class CategoricalCrossentropy(Loss):
    """Cross-entropy of a softmax over C classes.

    Parameters
    ----------
    from_logits : bool
        Whether the model's outputs are logits. If True, the last layer must have no activation. If False, its
        activation must be softmax. The loss is computed from the logits in both cases.
    label_smoothing : float
        A fraction from 0 to below 1 of each target that is distributed evenly over the classes.
    axis : {-1}
        The axis of the classes. Other axes are not supported.
    reduction, name, dtype
        As in `Loss`.

    Notes
    -----
    Targets are integer classes (N,), or (N, T) for outputs at each step. One-hot targets and other probabilities
    (N, C) or (N, T, C) are also supported.

    Examples
    --------
    >>> loss = losses.CategoricalCrossentropy(label_smoothing=0.1)
    >>> model.compile("adam", loss=loss)
    """

    name = "categorical_crossentropy"
    classifies = True

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = REDUCTION,
        name: str = "categorical_crossentropy",
        dtype: None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = check_axis(axis)
        self.from_logits = checks.flag("from_logits", from_logits)
        self.label_smoothing = checks.number("label_smoothing", label_smoothing, least=0, below=1)
        self.head = None if self.from_logits else "softmax"

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}

    def check_targets(self, name: str, y: Any, output_shape: tuple[int, ...], lengths: Array | None) -> Array:  # noqa: D102
        return check_labels(name, y, output_shape, lengths)

    def compute(  # noqa: D102
        self, scores: Array, targets: Array, *, activation: str | None = None, gradient: bool = True
    ) -> LossResult:
        del activation
        classes = scores.shape[-1]
        if targets.ndim == 2:
            targets = targets.astype(scores.dtype, copy=False)
        if self.label_smoothing:
            if targets.ndim == 1:
                targets = np.eye(classes, dtype=scores.dtype)[targets]
            smoothing = scores.dtype.type(self.label_smoothing)
            targets = targets * (1 - smoothing) + smoothing / scores.dtype.type(classes)
        result = functional.softmax_cross_entropy(scores, targets, gradient=gradient)
        return LossResult(result.losses, result.d_logits, result.correct)


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """The same as `CategoricalCrossentropy`, under Keras' name for integer labels.

    Both classes support integer labels and one-hot targets.

    Parameters
    ----------
    from_logits : bool
        As in `CategoricalCrossentropy`.
    ignore_class : None
        Not supported.
    reduction, axis, name, dtype
        As in `CategoricalCrossentropy`.
    label_smoothing : float
        As in `CategoricalCrossentropy`. Keras has no such parameter.
    """

    name = "sparse_categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: None = None,
        reduction: str = REDUCTION,
        axis: int = -1,
        name: str = "sparse_categorical_crossentropy",
        dtype: None = None,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        if ignore_class is not None:
            raise ValueError(
                f"ignore_class: expected None because it is not supported, got {ignore_class!r}; pass a sample_weight "
                f"of 0 for such steps, or pass lengths"
            )
        self.ignore_class = ignore_class


class CategoricalFocalCrossentropy(CategoricalCrossentropy):
    """Focal loss of a softmax (Lin et al. 2017, arXiv:1708.02002): ``-alpha (1 - p)^gamma log(p)`` at the label.

    Parameters
    ----------
    alpha : float
        A factor of the loss.
    gamma : float
        The focusing parameter, at least 0. Larger values reduce the loss of nearly correct outputs more.
    from_logits, label_smoothing, axis, reduction, name, dtype
        As in `CategoricalCrossentropy`.
    """

    name = "categorical_focal_crossentropy"

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = REDUCTION,
        name: str = "categorical_focal_crossentropy",
        dtype: None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.alpha = checks.number("alpha", alpha, least=0)
        self.gamma = checks.number("gamma", gamma, least=0)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"alpha": self.alpha, "gamma": self.gamma, **super().get_config()}

    def compute(  # noqa: D102
        self, scores: Array, targets: Array, *, activation: str | None = None, gradient: bool = True
    ) -> LossResult:
        del activation
        wide = scores.astype(np.float64)
        targets = np.eye(wide.shape[-1])[targets] if targets.ndim == 1 else targets.astype(np.float64)
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / wide.shape[-1]
        shifted = wide - wide.max(axis=-1, keepdims=True, initial=-np.inf)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        p = np.exp(log_p)
        rest = -np.expm1(log_p)  # 1 - p
        focal = rest**self.gamma
        values = -self.alpha * (targets * focal * log_p).sum(axis=-1)
        if not gradient:
            return LossResult(values, None, None)
        by_log_p = self.alpha * targets * (focal_slope(rest, self.gamma) * p * log_p - focal)
        slopes = by_log_p - p * by_log_p.sum(axis=-1, keepdims=True)
        return LossResult(values, (slopes / max(len(wide), 1)).astype(scores.dtype), None)


def check_labels(name: str, labels: Any, output_shape: tuple[int, ...], lengths: Array | None = None) -> Array:
    """Check labels for a cross-entropy, and return int64 classes (N,) or (N, T), or a target for each class.

    Parameters
    ----------
    name : str
        The name of the argument, for messages.
    labels : array_like
        Integer classes (N,) or (N, 1), for outputs at each step (N, T) or (N, T, 1). Or targets (N, C) or (N, T, C),
        integer or float.
    output_shape : tuple
        (N, C) or (N, T, C).
    lengths : ndarray (N,), optional
        Labels after the end of a sequence are not checked.

    Raises
    ------
    TypeError
        The dtype is not numeric.
    ValueError
        The shape is wrong, a label is not a class (the message contains its index), or a target is negative or not
        finite.
    """
    array = checks.array(name, labels)
    *elements, classes = output_shape
    rank = len(output_shape)
    integers = array.dtype.kind in "iu"
    if array.ndim == rank and array.shape[-1] == 1 and classes != 1 and integers:
        array = array[..., 0]
    if array.ndim == rank - 1:
        if not integers:
            axes = _with_names(elements)
            raise TypeError(
                f"{name}: expected integer classes, or targets of shape {checks.dims((*axes, classes))}, got "
                f"{array.dtype} of shape {array.shape}; convert classes with .astype('int64')"
            )
        _require_elements(name, array, elements, array.shape)
        result = array.astype(np.int64, order="C")
        if not kernels.all_are_classes(result, classes):
            _require_classes(name, array, classes, lengths if rank > 2 else None)
        return result
    if array.ndim != rank or array.shape[-1] != classes:
        axes = _with_names(elements)
        raise ValueError(
            f"{name}: expected shape {checks.dims(axes)} or {checks.dims((*axes, classes))} because the model has "
            f"{classes} outputs, got {array.shape}"
        )
    if not integers and array.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected integers, float32 or float64, got {array.dtype}")
    _require_elements(name, array, elements, array.shape[:-1])
    wrong = ~(np.isfinite(array) & (array >= 0))
    if lengths is not None and rank > 2:
        wrong &= sequences.valid_in(lengths, wrong.shape)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"{name}: expected targets of at least 0, got {array[index]} at index {index}")
    return array


def _require_classes(name: str, array: Array, classes: int, lengths: Array | None) -> None:
    """Raise for the first label outside of padding that is not a class."""
    outside = (array < 0) | (array >= classes)
    if lengths is not None:
        outside &= sequences.valid_in(lengths, outside.shape)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        raise ValueError(
            f"{name}: expected classes from 0 to {classes - 1} because the model has {classes} outputs, got "
            f"{array[index]} at index {index[0] if len(index) == 1 else index}"
        )


def _with_names(elements: list[int]) -> tuple[int | None, ...]:
    """Return sizes for `checks.dims`, which replaces None by N and T."""
    return (*(None for _ in elements[:2]), *elements[2:])


def _require_elements(name: str, array: Array, elements: list[int], found: tuple[int, ...]) -> None:
    if len(array) != elements[0]:
        raise ValueError(
            f"{name}: expected {elements[0]} labels because there are {elements[0]} samples, got {len(array)}"
        )
    if list(found) != elements:
        raise ValueError(
            f"{name}: expected shape {tuple(elements)} because of the shape of the model's outputs, got {found}"
        )
