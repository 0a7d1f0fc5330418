"""The base class of losses, and functions as losses.

A loss takes rows: one for each sample, or with a sequence of outputs one for each step that counts. It returns the loss
of each row and the gradient of their mean. The training loop applies weights, lengths and masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import functional
from fastgru._support import checks
from fastgru._support.representation import as_call

Array = NDArray[Any]


#: What a loss' targets can be; see `Loss.kind`.
KINDS = ("classes", "questions", "numbers")
#: `Loss.head` of losses that take the scores before a softmax or a sigmoid, whichever the last layer has.
ANY_HEAD = "any"
#: Activations whose outputs are probabilities, and which losses may take in themselves.
PROBABILITIES = {"softmax": "classes", "sigmoid": "questions"}
#: Keras' epsilon, to which it clips what it takes a logarithm of or divides by.
EPSILON = 1e-7
REDUCTION = "sum_over_batch_size"


def snake_case(name: str) -> str:
    """The name of a class in lower case with underscores."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


class LossResult(NamedTuple):
    """The losses of M rows."""

    values: NDArray[np.float64]  # (M,)
    d_scores: Array | None  # (M, C), gradient of the values' mean
    correct: NDArray[np.bool_] | None  # (M,), where a classifier's loss knows it without further work


class Loss:
    """Base class of the losses. Derive from it, and implement `call`, for a loss of your own.

    Parameters
    ----------
    name : str, optional
        The name in messages; by default that of the class, in lower case.
    reduction : {"sum_over_batch_size"}
        The loss of a batch is always the mean over its samples, or over the steps that count.
    dtype : None
        The dtype is that of the model.

    Attributes
    ----------
    head : str or None
        The activation of the last layer that this loss computes itself: the loss then gets the scores before that
        activation. None: it gets the model's outputs. "any": it gets the scores before a softmax or a sigmoid.
    from_logits : bool
        Whether the model's outputs are logits.
    classifies : bool
        Whether targets may be integer classes.
    asks : bool
        Whether each output is the probability of an independent label.

    Notes
    -----
    `call` takes NumPy arrays of float64, y_true (M, ...) and y_pred (M, C): a row for each sample, or for each step of
    a sequence that counts. y_pred are the model's outputs. It returns

    - the loss of each row, (M,) or (M, C), whose mean over the last axis is taken. The gradient is then computed by
      central differences, with a relative error of about 1e-9: `call` runs 2 C + 1 times for a batch. The
      differences are taken before a softmax or sigmoid of the last layer, so probabilities stay between 0 and 1;
    - or the pair ``(losses, gradient)`` with the loss of each row (M,) and its derivative by y_pred (M, C), which is
      exact and runs `call` once.

    The loss of a row must not depend on other rows. Functions of y_true and y_pred as losses follow the same rules:
    ``model.compile(loss=function)``.

    Models with a loss of a class of your own, or with a function, cannot be saved with their training:
    ``model.save(path, include_optimizer=False)`` saves them without, for `load_model` and `compile`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgru import Sequential, layers, losses
    >>> class Underestimates(losses.Loss):  # squared error, in which values that are too low count `factor` times
    ...     def __init__(self, factor=3.0, name="underestimates"):
    ...         super().__init__(name=name)
    ...         self.factor = factor
    ...
    ...     def call(self, y_true, y_pred):
    ...         error = y_pred - y_true
    ...         weight = np.where(error < 0, self.factor, 1.0)
    ...         losses = np.mean(weight * error**2, axis=-1)
    ...         gradient = 2 * weight * error / error.shape[-1]
    ...         return losses, gradient  # or the losses alone
    >>> model = Sequential([layers.GRU(4, input_shape=(5, 2)), layers.Dense(1)])
    >>> model.compile("adam", loss=Underestimates(factor=2.0))
    """

    name: str = "loss"
    reduction: str = REDUCTION
    dtype: None = None
    head: str | None = ANY_HEAD
    from_logits: bool = False
    classifies: ClassVar[bool] = False
    asks: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls) and not any("name" in vars(base) for base in cls.__mro__[1:-1] if base is not Loss):
            cls.name = snake_case(cls.__name__)
        if "__call__" in vars(cls):
            raise TypeError(
                f"{cls.__name__}: expected a method call(y_true, y_pred) because training does not use __call__, got "
                f"__call__; rename it to call"
            )
        if "call" in vars(cls) and "compute" not in vars(cls):  # else a built-in loss' own would be used
            cls.compute = Loss.compute  # type: ignore[method-assign]

    def __init__(self, name: str | None = None, reduction: str = REDUCTION, dtype: None = None) -> None:
        if name is not None:
            if not isinstance(name, str):
                raise TypeError(f"name: expected a string, got {name!r}; pass the other arguments by keyword")
            if name != self.name:
                self.name = name
        if reduction != REDUCTION:
            raise ValueError(
                f"reduction: expected {REDUCTION!r} because training averages over the samples, got {reduction!r}; "
                f"scale the loss by sample_weight, or the learning rate"
            )
        if dtype is not None:
            raise ValueError(f"dtype: expected None, got {dtype!r}; pass it to the model, whose dtype losses have")

    @property
    def kind(self) -> str:
        """What targets are.

        "classes", one for each row; "questions", a yes or no for each output, as of binary cross-entropy; or
        "numbers".
        """
        return "classes" if self.classifies else "questions" if self.asks else "numbers"

    def __repr__(self) -> str:
        return as_call(self)

    def call(self, y_true: Array, y_pred: Array) -> Any:
        """Return the loss of each row, or the losses and the gradient; see the class."""
        if type(self).compute is Loss.compute:
            raise NotImplementedError(
                f"{type(self).__name__}: expected a method call(y_true, y_pred), got none; define it"
            )
        return self._values(y_true, y_pred)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        """The mean loss of a batch, as in Keras.

        Parameters
        ----------
        y_true : array_like (N,), (N, C), (N, T) or (N, T, C)
        y_pred : array_like (N, C) or (N, T, C)
            Outputs of a model.
        sample_weight : array_like (N,), optional
        """
        values = self._values(y_true, y_pred)
        if sample_weight is not None:
            weights = checks.array("sample_weight", sample_weight).astype(np.float64)
            if weights.shape != values.shape[: weights.ndim]:
                raise ValueError(f"sample_weight: expected shape {values.shape[:1]}, got {weights.shape}")
            values = values * weights.reshape(*weights.shape, *(1 for _ in values.shape[weights.ndim :]))
        return float(values.mean())

    def _values(self, y_true: Any, y_pred: Any) -> Array:
        """Return the losses of outputs `y_pred` (N, C) or (N, T, C): (N,) or (N, T)."""
        outputs = checks.array("y_pred", y_pred)
        if outputs.dtype.kind not in "iufb":
            raise TypeError(f"y_pred: expected numbers, got {outputs.dtype}")
        outputs = outputs.astype(np.float64)
        if outputs.ndim < 2:
            outputs = outputs.reshape(-1, 1)
        targets = self.check_targets("y_true", y_true, outputs.shape, None)
        axes = outputs.ndim - 1
        activation = self.head if self.head in PROBABILITIES else None
        scores = _scores(outputs.reshape(-1, outputs.shape[-1]), activation)
        found = self.compute(scores, targets.reshape(-1, *targets.shape[axes:]), activation=activation, gradient=False)
        return found.values.reshape(outputs.shape[:-1])

    def compute(
        self, scores: Array, targets: Array, *, activation: str | None = None, gradient: bool = True
    ) -> LossResult:
        """Losses of `scores` (M, C) for `targets` as `check_targets` returned them.

        Parameters
        ----------
        scores : ndarray (M, C)
        targets : ndarray (M, ...)
        activation : {"softmax", "sigmoid"}, optional
            What makes outputs of the scores. None: they are the outputs.
        gradient : bool
            Whether the gradient is needed.
        """
        wide = scores.astype(np.float64)
        y_true = targets.astype(np.float64)
        y_pred = activated(wide, activation)
        found = self.call(y_true, y_pred)
        given = isinstance(found, tuple) and len(found) == 2
        values = _check_values(self.name, found[0] if given else found, y_pred, differences=gradient and not given)
        if not gradient:
            return LossResult(values, None, None)
        if given:
            slopes = _before(_check_slopes(self.name, found[1], y_pred), y_pred, activation)
        else:
            self._require_rows(y_true, y_pred, values)
            slopes = self._differences(wide, y_true, activation)
        return LossResult(values, (slopes / max(len(wide), 1)).astype(scores.dtype), None)

    def _require_rows(self, y_true: Array, y_pred: Array, values: Array) -> None:
        """Raise if the losses of some rows change when the other rows are left out: differences would be wrong."""
        half = len(y_pred) // 2
        if half == 0:
            return
        alone = _check_values(self.name, self.call(y_true[:half], y_pred[:half]), y_pred[:half], differences=False)
        if not np.allclose(alone, values[:half], rtol=1e-7, atol=1e-12, equal_nan=True):
            raise ValueError(
                f"{self.name}: expected a loss of each row that depends on that row alone, got other losses of the "
                f"first {half} rows without the rows after them; reduce over the last axis only, or return "
                f"(losses, gradient)"
            )

    def _differences(self, scores: Array, y_true: Array, activation: str | None) -> Array:
        """The derivative of each row's loss by its scores: central differences, one output at a time."""
        slopes = np.empty_like(scores)
        for output in range(scores.shape[1]):
            step = np.cbrt(np.finfo(np.float64).eps) * np.maximum(np.abs(scores[:, output]), 1)
            ends, places = [], []
            for sign in (1, -1):
                moved = scores.copy()
                moved[:, output] += sign * step
                y_pred = activated(moved, activation)
                ends.append(_check_values(self.name, self.call(y_true, y_pred), y_pred, differences=True))
                places.append(moved[:, output])
            slopes[:, output] = (ends[0] - ends[1]) / (places[0] - places[1])
        return slopes

    def check_targets(self, name: str, y: Any, output_shape: tuple[int, ...], lengths: Array | None) -> Array:
        """Targets in the form that `compute` takes, for outputs of that shape, N first; C last.

        Values after the end of a sequence, given by `lengths`, are not checked.
        """
        del lengths
        array = checks.array(name, y)
        if array.dtype.kind not in "iufb":
            raise TypeError(f"{name}: expected numbers, got {array.dtype}")
        rows = output_shape[:-1]
        if array.ndim == len(rows) and output_shape[-1] == 1:
            array = array[..., None]
        if array.shape[: len(rows)] != rows:
            raise ValueError(
                f"{name}: expected a shape that begins with {rows} because the model's outputs have the shape "
                f"{output_shape}, got {array.shape}"
            )
        return array

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same loss again."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The loss of this class with the configuration that `get_config` returned."""
        return cls(**config)


class LossFunctionWrapper(Loss):
    """A function as a loss; ``compile(loss=function)`` makes one.

    Parameters
    ----------
    fn : callable
        Takes y_true and y_pred, and returns what `Loss.call` returns.
    name : str, optional
        The function's, if not given.
    """

    def __init__(self, fn: Callable[[Array, Array], Any], name: str | None = None) -> None:
        if not callable(fn):
            raise TypeError(f"fn: expected a function of y_true and y_pred, got {fn!r}")
        super().__init__(name=function_name(fn) if name is None else name)
        self.fn = fn

    def call(self, y_true: Array, y_pred: Array) -> Any:  # noqa: D102
        return self.fn(y_true, y_pred)


def function_name(fn: Any) -> str:
    """The name of a function, or of what a functools.partial calls, or of a callable object's class."""
    fn = getattr(fn, "func", fn)
    return str(getattr(fn, "__name__", type(fn).__name__))


def row_values(name: str, values: Any, rows: int, what: str) -> Array:
    """What a function returned for each row, (M,): of several numbers a row the mean."""
    array = np.asarray(values)
    if array.dtype.kind not in "iufb":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}; return an array of NumPy")
    if array.ndim == 0:
        raise ValueError(
            f"{name}: expected a {what} of each row, shape ({rows},), got a single number; leave the mean over "
            f"the rows to fastgru: use np.mean(..., axis=-1)"
        )
    if len(array) != rows or (array.size == 0 and rows):
        raise ValueError(
            f"{name}: expected a {what} of each row, shape ({rows},), got shape {array.shape}; reduce over the last "
            f"axis only: axis=-1"
        )
    return array if array.ndim == 1 else array.mean(axis=tuple(range(1, array.ndim)))


def _check_values(name: str, values: Any, y_pred: Array, *, differences: bool) -> Array:
    """Losses (M,) of float64, which differences need: they are some 1e-6 apart."""
    array = row_values(name, values, len(y_pred), "loss")
    if differences and array.dtype != np.float64:
        raise TypeError(
            f"{name}: expected float64 because the gradient is computed from differences of losses, got {array.dtype}; "
            f"compute with NumPy in float64, as y_true and y_pred are, or return (losses, gradient)"
        )
    return array.astype(np.float64, copy=False)


def _check_slopes(name: str, slopes: Any, y_pred: Array) -> Array:
    array = np.asarray(slopes)
    if array.shape != y_pred.shape or array.dtype.kind not in "iuf":
        raise ValueError(
            f"{name}: expected the gradient in the shape of y_pred, {y_pred.shape}, got {array.dtype} of shape "
            f"{array.shape}; return (losses, gradient) with the derivative of each row's loss"
        )
    return array.astype(np.float64, copy=False)


def activated(scores: Array, activation: str | None) -> Array:
    """Outputs of scores; a copy, which a function may write to."""
    if activation == "sigmoid":
        return functional.activate(scores, "sigmoid")
    if activation == "softmax":
        raised = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
    return scores.copy()


def _scores(outputs: Array, activation: str | None) -> Array:
    """What a softmax or sigmoid makes these outputs of, clipped as in Keras."""
    if activation is None:
        return outputs
    if activation == "softmax":
        outputs = outputs / outputs.sum(axis=-1, keepdims=True)
    clipped = np.clip(outputs, EPSILON, 1 - EPSILON)
    return np.asarray(np.log(clipped) if activation == "softmax" else np.log(clipped) - np.log1p(-clipped))


def _before(slopes: Array, y_pred: Array, activation: str | None) -> Array:
    """Derivatives by the scores, given those by the outputs."""
    if activation == "sigmoid":
        return np.asarray(slopes * y_pred * (1 - y_pred))
    if activation == "softmax":
        return np.asarray(y_pred * (slopes - (slopes * y_pred).sum(axis=-1, keepdims=True)))
    return slopes


def check_axis(axis: int) -> int:
    """Keras' argument `axis`, which must be the last one."""
    if axis != -1:
        raise ValueError(f"axis: expected -1 because classes are the last axis, got {axis!r}; move them there")
    return -1


def focal_slope(rest: Array, gamma: float) -> Array:
    """The derivative of ``rest ** gamma``; 0 where rest is 0."""
    return np.asarray(gamma * np.where(rest > 0, rest, 1) ** (gamma - 1) * (rest > 0))
