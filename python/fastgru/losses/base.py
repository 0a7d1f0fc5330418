"""The base class of losses, and functions as losses.

A loss is computed from rows: one row per sample, or for outputs at each step one row per valid step. It returns the
loss of each row and the gradient of the mean loss. The training loop applies sample weights, lengths and masks.
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


#: The kinds of targets; see `Loss.kind`.
KINDS = ("classes", "questions", "numbers")
#: `Loss.head` of losses that are computed from the logits before a softmax or a sigmoid of the last layer.
ANY_HEAD = "any"
#: Activations whose outputs are probabilities, and which losses may compute themselves.
PROBABILITIES = {"softmax": "classes", "sigmoid": "questions"}
#: Keras' epsilon. Arguments of logarithms and divisors are clipped to it.
EPSILON = 1e-7
REDUCTION = "sum_over_batch_size"


def snake_case(name: str) -> str:
    """Return the name of a class in lower case with underscores."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


class LossResult(NamedTuple):
    """The losses of M rows."""

    values: NDArray[np.float64]  # (M,)
    d_scores: Array | None  # (M, C), gradient of the values' mean
    correct: NDArray[np.bool_] | None  # (M,), whether the largest output is at the label, if the loss computes it


class Loss:
    """Base class of all losses. For a custom loss, derive from it and implement `call`.

    Parameters
    ----------
    name : str, optional
        The name in messages. By default the class name in lower case with underscores.
    reduction : {"sum_over_batch_size"}
        The loss of a batch is the mean over its samples or valid steps. Other reductions are not supported.
    dtype : None
        Not supported. Losses have the dtype of the model.

    Attributes
    ----------
    head : str or None
        The activation of the last layer that this loss computes itself. The loss then receives the logits before that
        activation. None: it receives the model's outputs. "any": it receives the logits before a softmax or a sigmoid.
    from_logits : bool
        Whether the model's outputs are logits.
    classifies : bool
        Whether targets may be integer classes.
    asks : bool
        Whether each output is the probability of an independent label (multi-label classification).

    Notes
    -----
    ``call(y_true, y_pred)`` receives NumPy arrays of float64: the targets y_true (M, ...) and the model's outputs
    y_pred (M, C). There is one row per sample, or for outputs at each step one row per valid step. `call` returns
    either of the following:

    - The loss of each row, (M,). If it has the shape (M, C), its mean over the last axis is the loss. fastgru computes
      the gradient by central differences, with a relative error of about 1e-9. This calls `call` 2 C + 2 times per
      batch. If the last layer has a softmax or sigmoid, differences are taken in its logits, so that probabilities
      stay between 0 and 1.
    - The pair ``(losses, gradient)``: the loss of each row (M,) and its derivative with respect to
      y_pred (M, C). The gradient is then exact, and `call` is called once per batch.

    The loss of a row must not depend on other rows. A function of y_true and y_pred, passed as
    ``model.compile(loss=function)``, follows the same rules.

    A model with a custom loss can only be saved without it: call ``model.save(path, include_optimizer=False)``, and
    after `load_model` call ``compile``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgru import Sequential, layers, losses
    >>> class Underestimates(losses.Loss):  # squared error, weighted by `factor` if the output is too low
    ...     def __init__(self, factor=3.0, name="underestimates"):
    ...         super().__init__(name=name)
    ...         self.factor = factor
    ...
    ...     def call(self, y_true, y_pred):
    ...         error = y_pred - y_true
    ...         weight = np.where(error < 0, self.factor, 1.0)
    ...         losses = np.mean(weight * error**2, axis=-1)
    ...         gradient = 2 * weight * error / error.shape[-1]
    ...         return losses, gradient  # or only the losses
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
        if "call" in vars(cls) and "compute" not in vars(cls):  # otherwise the compute of a built-in loss would be used
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
            raise ValueError(
                f"dtype: expected None because losses have the dtype of the model, got {dtype!r}; pass it to Sequential"
            )

    @property
    def kind(self) -> str:
        """The kind of targets: "classes", "questions" or "numbers".

        "classes" are one class per row. "questions" are a label 0 or 1 for each output, as for binary cross-entropy.
        """
        return "classes" if self.classifies else "questions" if self.asks else "numbers"

    def __repr__(self) -> str:
        return as_call(self)

    def call(self, y_true: Array, y_pred: Array) -> Any:
        """Return the loss of each row, or the pair (losses, gradient); see the notes of the class."""
        if type(self).compute is Loss.compute:
            raise NotImplementedError(
                f"{type(self).__name__}: expected a method call(y_true, y_pred), got none; define it"
            )
        return self._values(y_true, y_pred)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
        """Return the mean loss of a batch, as in Keras.

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
        """Return the losses of `scores` (M, C) for targets that `check_targets` returned.

        Parameters
        ----------
        scores : ndarray (M, C)
        targets : ndarray (M, ...)
        activation : {"softmax", "sigmoid"}, optional
            The activation that computes the outputs from the scores. None: the scores are the outputs.
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
        """Raise if the losses of some rows depend on other rows, because the differences would be wrong."""
        half = len(y_pred) // 2
        if half == 0:
            return
        alone = _check_values(self.name, self.call(y_true[:half], y_pred[:half]), y_pred[:half], differences=False)
        if not np.allclose(alone, values[:half], rtol=1e-7, atol=1e-12, equal_nan=True):
            raise ValueError(
                f"{self.name}: expected a loss of each row that depends on that row only, got different losses of the "
                f"first {half} rows without the rows after them; reduce over the last axis only, or return "
                f"(losses, gradient)"
            )

    def _differences(self, scores: Array, y_true: Array, activation: str | None) -> Array:
        """Return the derivative of each row's loss by its scores, by central differences, one output at a time."""
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
        """Check targets for outputs of shape (N, ..., C), and return them in the form that `compute` expects.

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
        """Return the arguments of the constructor, from which `from_config` creates the same loss."""
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create a loss of this class from a configuration that `get_config` returned."""
        return cls(**config)


class LossFunctionWrapper(Loss):
    """A function as a loss. ``compile(loss=function)`` creates one.

    Parameters
    ----------
    fn : callable (y_true, y_pred)
        Receives and returns the same as `Loss.call`.
    name : str, optional
        The name of the loss. By default the name of the function.
    """

    def __init__(self, fn: Callable[[Array, Array], Any], name: str | None = None) -> None:
        if not callable(fn):
            raise TypeError(f"fn: expected a function of y_true and y_pred, got {fn!r}")
        super().__init__(name=function_name(fn) if name is None else name)
        self.fn = fn

    def call(self, y_true: Array, y_pred: Array) -> Any:  # noqa: D102
        return self.fn(y_true, y_pred)


def function_name(fn: Any) -> str:
    """Return the name of a function, of the function in a functools.partial, or of a callable object's class."""
    fn = getattr(fn, "func", fn)
    return str(getattr(fn, "__name__", type(fn).__name__))


def row_values(name: str, values: Any, rows: int, what: str) -> Array:
    """Return the result of a function as one value per row (M,), the mean of several values per row."""
    array = np.asarray(values)
    if array.dtype.kind not in "iufb":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}; return a NumPy array")
    if array.ndim == 0:
        raise ValueError(
            f"{name}: expected a {what} of each row, shape ({rows},), because fastgru averages over the rows, got a "
            f"single number; reduce over the last axis only: axis=-1"
        )
    if len(array) != rows or (array.size == 0 and rows):
        raise ValueError(
            f"{name}: expected a {what} of each row, shape ({rows},), got shape {array.shape}; reduce over the last "
            f"axis only: axis=-1"
        )
    return array if array.ndim == 1 else array.mean(axis=tuple(range(1, array.ndim)))


def _check_values(name: str, values: Any, y_pred: Array, *, differences: bool) -> Array:
    """Return losses (M,), which must be float64 for differences, because they differ by about 1e-6."""
    array = row_values(name, values, len(y_pred), "loss")
    if differences and array.dtype != np.float64:
        raise TypeError(
            f"{name}: expected float64 because the gradient is computed from differences of losses, got {array.dtype}; "
            f"compute with NumPy in float64, the dtype of y_true and y_pred, or return (losses, gradient)"
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
    """Return the outputs for scores, as a copy that a custom function may modify."""
    if activation == "sigmoid":
        return functional.activate(scores, "sigmoid")
    if activation == "softmax":
        raised = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
    return scores.copy()


def _scores(outputs: Array, activation: str | None) -> Array:
    """Return the scores before a softmax or sigmoid, given its outputs, which are clipped as in Keras."""
    if activation is None:
        return outputs
    if activation == "softmax":
        outputs = outputs / outputs.sum(axis=-1, keepdims=True)
    clipped = np.clip(outputs, EPSILON, 1 - EPSILON)
    return np.asarray(np.log(clipped) if activation == "softmax" else np.log(clipped) - np.log1p(-clipped))


def _before(slopes: Array, y_pred: Array, activation: str | None) -> Array:
    """Return the derivatives by the scores, given the derivatives by the outputs."""
    if activation == "sigmoid":
        return np.asarray(slopes * y_pred * (1 - y_pred))
    if activation == "softmax":
        return np.asarray(y_pred * (slopes - (slopes * y_pred).sum(axis=-1, keepdims=True)))
    return slopes


def check_axis(axis: int) -> int:
    """Check Keras' argument `axis`, which must be the last axis."""
    if axis != -1:
        raise ValueError(
            f"axis: expected -1 because the classes must be the last axis, got {axis!r}; use Permute to move them"
        )
    return -1


def focal_slope(rest: Array, gamma: float) -> Array:
    """Return the derivative of ``rest ** gamma``; 0 where rest is 0."""
    return np.asarray(gamma * np.where(rest > 0, rest, 1) ** (gamma - 1) * (rest > 0))
