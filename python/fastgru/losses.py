"""Losses, on logits where the head's activation and the loss belong together.

A loss sees elements: one for a sample, or with a sequence of outputs one for each step that counts. It returns each
element's loss and the gradient of their mean; weights and padding are the training loop's business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgru import functional
from fastgru._native import kernels
from fastgru._support import checks, sequences
from fastgru._support.representation import as_call

Array = NDArray[Any]
Shape = tuple[int | None, ...]


#: What a loss' targets can be; see `Loss.kind`.
KINDS = ("classes", "questions", "numbers")


class LossResult(NamedTuple):
    """What a loss finds on M elements."""

    values: NDArray[np.float64]  # (M,)
    d_scores: Array | None  # (M, C), gradient of the values' mean
    correct: NDArray[np.bool_] | None  # (M,), where the loss is a classifier's and knows it anyway


class Loss(ABC):
    """A loss of M elements of C numbers each.

    Attributes
    ----------
    name : str
        In Keras' words.
    head : str or None
        The activation of the last layer that this loss takes in itself: it is given what comes before that activation.
    from_logits : bool
        Whether outputs are what a softmax or sigmoid would make probabilities of.
    classifies : bool
        Whether targets may be integers, each a class.
    asks : bool
        Whether each output answers a yes-or-no question of its own.
    """

    name: ClassVar[str]
    head: str | None = None
    from_logits: bool = False
    classifies: ClassVar[bool] = False
    asks: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """What targets are.

        "classes", one for each element; "questions", a yes or no for each output, as of binary cross-entropy; or
        "numbers".
        """
        return "classes" if self.classifies else "questions" if self.asks else "numbers"

    def __repr__(self) -> str:
        return as_call(self)

    @abstractmethod
    def __call__(self, scores: Array, targets: Array, *, gradient: bool = True) -> LossResult:
        """Losses of `scores` (M, C) for `targets` as `check_targets` returned them."""

    @abstractmethod
    def check_targets(self, name: str, y: Any, output_shape: tuple[int, ...], lengths: Array | None) -> Array:
        """Targets in the form that the loss takes, for outputs of that shape, N first; C last.

        What stands in padding, where `lengths` say so, is not looked at.
        """

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same loss again."""
        return {}


# --- Classes --------------------------------------------------------------------------------------------------


class CategoricalCrossentropy(Loss):
    """Cross-entropy of softmax over C classes.

    Parameters
    ----------
    from_logits : bool
        Whether the last layer has no activation. If not, it must be a softmax, and the loss is computed from what comes
        before it all the same.
    label_smoothing : float
        From 0 to below 1: this much of each target is spread evenly over the classes.

    Notes
    -----
    Targets are integers (N,), or (N, T) for a class a step; or one-hot or other targets (N, C), (N, T, C).
    """

    name = "categorical_crossentropy"
    classifies = True

    def __init__(self, *, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = checks.flag("from_logits", from_logits)
        self.label_smoothing = checks.number("label_smoothing", label_smoothing, least=0, below=1)
        self.head = None if self.from_logits else "softmax"

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}

    def check_targets(self, name: str, y: Any, output_shape: tuple[int, ...], lengths: Array | None) -> Array:  # noqa: D102
        return check_labels(name, y, output_shape, lengths)

    def __call__(self, scores: Array, targets: Array, *, gradient: bool = True) -> LossResult:  # noqa: D102
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
    """`CategoricalCrossentropy` under the name that Keras has for integer labels; either takes both."""

    name = "sparse_categorical_crossentropy"


def check_labels(name: str, labels: Any, output_shape: tuple[int, ...], lengths: Array | None = None) -> Array:
    """Labels for cross-entropy: classes of int64 without the last axis of the output, or a target for each class.

    Parameters
    ----------
    name : str
        The argument's name, for messages.
    labels : array_like
        Integers (N,), (N, 1) or a class a step (N, T), (N, T, 1); or targets (N, C), (N, T, C), integer or float.
    output_shape : tuple
        (N, C) or (N, T, C).
    lengths : ndarray (N,), optional
        Beyond them anything may stand.

    Raises
    ------
    TypeError
        The dtype fits neither.
    ValueError
        The shape does not fit, or a label is no class (its index is given), or a target is negative or not finite.
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
    """Raise for the first that is none, unless that is padding."""
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
    """Sizes of elements for `checks.dims`, which has names for N and T."""
    return (*(None for _ in elements[:2]), *elements[2:])


def _require_elements(name: str, array: Array, elements: list[int], found: tuple[int, ...]) -> None:
    if len(array) != elements[0]:
        raise ValueError(
            f"{name}: expected {elements[0]} labels because there are {elements[0]} samples, got {len(array)}"
        )
    if list(found) != elements:
        raise ValueError(
            f"{name}: expected shape {tuple(elements)} because the model's outputs are so many, got {found}"
        )


# --- Numbers --------------------------------------------------------------------------------------------------


class _Pointwise(Loss):
    """A loss that is the mean over an element's C numbers."""

    def check_targets(self, name: str, y: Any, output_shape: tuple[int, ...], lengths: Array | None) -> Array:
        del lengths  # targets are not scanned: what is not finite in them stops the training, with the sample
        array = checks.array(name, y)
        if array.dtype.kind not in "iufb":
            raise TypeError(f"{name}: expected numbers, got {array.dtype}")
        if array.ndim == len(output_shape) - 1 and output_shape[-1] == 1:
            array = array[..., None]
        if array.shape != output_shape:
            if array.ndim == len(output_shape) and array.shape[1:] == output_shape[1:]:
                raise ValueError(
                    f"{name}: expected {output_shape[0]} targets because there are {output_shape[0]} samples, got "
                    f"{len(array)}"
                )
            raise ValueError(
                f"{name}: expected shape {checks.dims((None, *output_shape[1:]))} because that is the model's output, "
                f"got {array.shape}"
            )
        return array

    def __call__(self, scores: Array, targets: Array, *, gradient: bool = True) -> LossResult:
        values, slopes = self.terms(scores, targets.astype(scores.dtype, copy=False))
        d_scores = slopes * scores.dtype.type(1 / max(scores.size, 1)) if gradient else None
        return LossResult(values.mean(axis=-1, dtype=np.float64), d_scores, None)

    @abstractmethod
    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Each number's loss and its derivative by the score."""


class BinaryCrossentropy(_Pointwise):
    """Cross-entropy of sigmoids, one for each of C yes-or-no questions; targets from 0 to 1, as Keras' mean over C.

    Parameters
    ----------
    from_logits : bool
        Whether the last layer has no activation. If not, it must be a sigmoid, and the loss is computed from what comes
        before it all the same.
    label_smoothing : float
        From 0 to below 1: targets are moved this much towards one half.
    """

    name = "binary_crossentropy"
    asks = True

    def __init__(self, *, from_logits: bool = False, label_smoothing: float = 0.0) -> None:
        self.from_logits = checks.flag("from_logits", from_logits)
        self.label_smoothing = checks.number("label_smoothing", label_smoothing, least=0, below=1)
        self.head = None if self.from_logits else "sigmoid"

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}

    def check_targets(self, name: str, y: Any, output_shape: tuple[int, ...], lengths: Array | None) -> Array:  # noqa: D102
        array = super().check_targets(name, y, output_shape, lengths)
        wrong = ~((array >= 0) & (array <= 1))
        if lengths is not None and array.ndim > 2:
            wrong &= sequences.valid_in(lengths, wrong.shape)
        if wrong.any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(f"{name}: expected targets from 0 to 1, got {array[index]} at index {index}")
        return array

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        if self.label_smoothing:
            smoothing = scores.dtype.type(self.label_smoothing)
            targets = targets * (1 - smoothing) + smoothing / 2
        # log(1 + exp(s)) - t s, without overflow on either side.
        values = np.maximum(scores, 0) - scores * targets + np.log1p(np.exp(-np.abs(scores)))
        return values, functional.activate(scores, "sigmoid") - targets


class MeanSquaredError(_Pointwise):
    """Mean of squared differences."""

    name = "mean_squared_error"

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        difference = scores - targets
        return difference * difference, difference + difference


class MeanAbsoluteError(_Pointwise):
    """Mean of absolute differences."""

    name = "mean_absolute_error"

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        difference = scores - targets
        return np.abs(difference), np.sign(difference)


class Huber(_Pointwise):
    """Half the squared difference up to `delta`, and linear beyond: ``delta (|d| - delta / 2)``.

    Parameters
    ----------
    delta : float
        Above 0.
    """

    name = "huber"

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = checks.number("delta", delta, above=0)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"delta": self.delta}

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        difference = scores - targets
        delta = scores.dtype.type(self.delta)
        inside = np.clip(difference, -delta, delta)
        return inside * (difference - inside / 2), inside


# --- By name --------------------------------------------------------------------------------------------------

LOSSES: dict[str, Callable[..., Loss]] = {
    cls.name: cls
    for cls in (
        CategoricalCrossentropy,
        SparseCategoricalCrossentropy,
        BinaryCrossentropy,
        MeanSquaredError,
        MeanAbsoluteError,
        Huber,
    )
}
SHORT_NAMES = {"mse": "mean_squared_error", "mae": "mean_absolute_error", "huber_loss": "huber"}


def get(loss: str | Loss) -> Loss:
    """The loss of that name with its defaults, or the one given."""
    if isinstance(loss, Loss):
        return loss
    name = SHORT_NAMES.get(loss, loss) if isinstance(loss, str) else loss
    return LOSSES[checks.choice("loss", name, (*LOSSES, *SHORT_NAMES))]()
