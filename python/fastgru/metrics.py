"""Metrics: each counts elements as they pass and is exact over the whole set, however that was batched.

An element is a sample, or with a sequence of outputs a step that counts. Metrics are not weighted.
"""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.representation import as_call
from fastgru.losses import KINDS, Loss, LossResult

Array = NDArray[Any]


class _Owner:
    """Which model a metric counts for. A copy of the metric counts for none."""

    def __init__(self, metric: Metric | None = None, model: Any = None) -> None:
        self._metric = None if metric is None else weakref.ref(metric)
        self._model = None if model is None else weakref.ref(model)

    def of(self, metric: Metric) -> Any:
        """The model that the metric counts for, or None."""
        if self._model is None or self._metric is None or self._metric() is not metric:
            return None
        return self._model()

    def __reduce__(self) -> tuple[Any, ...]:
        """Weak references cannot be pickled."""
        return _Owner, ()


class Metric(ABC):
    """Something counted over the elements of a set.

    Attributes
    ----------
    name : str
        Under which it stands in a history; ``val_`` before it for validation.
    mode : {"max", "min"}
        Which way is better.
    on_scores : bool
        Whether it looks at the outputs before the last activation, where the loss does: an order is the same there.
    accepts : tuple of str
        Which kinds of loss it goes with (`fastgru.losses.Loss.kind`): "classes"; "questions", where each output answers
        a yes-or-no question; "numbers". All of them, unless a class says otherwise.
    """

    name: str
    accepts: ClassVar[tuple[str, ...]] = KINDS
    mode: ClassVar[str] = "max"
    on_scores: ClassVar[bool] = True
    _owner = _Owner()  # of the class: a class of one's own need not call __init__ of this one

    def __repr__(self) -> str:
        return as_call(self)

    def require_free(self, model: Any) -> None:
        """Raise if another model is compiled with this object.

        Raises
        ------
        ValueError
        """
        owner = self._owner.of(self)
        if owner is not None and owner is not model and any(each is self for each in owner.metrics):
            raise ValueError(
                f"metrics: expected one of the model's own, because it keeps what it has counted for a model, got "
                f"{self.name}, which another model is compiled with; give each model its own, such as "
                f"copy.deepcopy(metric)"
            )

    def belong_to(self, model: Any) -> None:
        """Count for that model from now on."""
        self._owner = _Owner(self, model)

    def set_loss(self, loss: Loss) -> None:  # noqa: B027
        """Take what the outputs mean from the loss that they are trained on; `compile` calls it."""

    @abstractmethod
    def reset(self) -> None:
        """Begin anew."""

    @abstractmethod
    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:
        """Count M elements.

        Parameters
        ----------
        outputs : ndarray (M, C)
        targets : ndarray (M,) of int64, or (M, C)
        result : LossResult
            What the loss found on the same elements.
        """

    @abstractmethod
    def value(self) -> float:
        """The metric of all elements counted; NaN if there were none."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same metric again."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """What it has counted so far, as JSON can hold it."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
            if name.startswith("_") and name != "_owner"
        }

    def require_sound(self, state: dict[str, Any]) -> None:
        """Raise unless `get_state` could have returned that, sooner or later."""
        own = self.get_state()
        if own.keys() != state.keys():
            raise ValueError(f"{self.name}: expected {', '.join(own)}, got {', '.join(state)}")
        for name, value in state.items():
            if isinstance(value, list) != isinstance(own[name], list):
                raise TypeError(f"{self.name}: expected {name} to be like {own[name]!r:.100}, got {value!r:.100}")
            for number in value if isinstance(value, list) else [value]:
                checks.real(f"{self.name}: {name}", number)
        if len({len(value) for value in state.values() if isinstance(value, list)}) > 1:
            raise ValueError(f"{self.name}: expected lists of one length, got others")

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        for name, value in state.items():
            setattr(self, name, np.array(value) if isinstance(value, list) else value)


class _Mean(Metric):
    """A mean over elements."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._sum: float = 0.0
        self._count = 0

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:
        self._sum += self.total(outputs, targets, result)
        self._count += len(outputs)

    @abstractmethod
    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:
        """The sum over these elements."""

    def value(self) -> float:
        return self._sum / self._count if self._count else float("nan")


def classes_of(targets: Array) -> Array:
    """Classes (M,): integers as they are, else where the largest target stands."""
    return targets if targets.ndim == 1 else targets.argmax(axis=1)


class Accuracy(_Mean):
    """How often the largest output stands at the label, the first of equal ones."""

    name = "accuracy"
    accepts = ("classes",)

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:  # noqa: D102
        correct = result.correct
        if correct is None:
            correct = outputs.argmax(axis=1) == classes_of(targets)
        return int(np.count_nonzero(correct))


class TopKAccuracy(_Mean):
    """How often the label is among the k largest outputs; of outputs equal to the label's, all count as smaller.

    Parameters
    ----------
    k : int
    """

    name = "top_k_accuracy"
    accepts = ("classes",)

    def __init__(self, k: int = 5) -> None:
        super().__init__()
        self.k = checks.integer("k", k, least=1)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"k": self.k}

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:  # noqa: D102
        del result
        at_label = np.take_along_axis(outputs, classes_of(targets)[:, None], axis=1)
        return int(np.count_nonzero((outputs > at_label).sum(axis=1) < self.k))


class BinaryAccuracy(_Mean):
    """How many of the yes-or-no answers are right, the mean over an element's C.

    Parameters
    ----------
    threshold : float
        Probabilities above it say yes; so do outputs above its logit where the loss takes logits.
    """

    name = "binary_accuracy"
    accepts = ("questions", "numbers")
    on_scores = False

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = checks.number("threshold", threshold, least=0, below=1)
        self.boundary = self.threshold

    def set_loss(self, loss: Loss) -> None:  # noqa: D102
        self.boundary = _boundary(self.threshold, loss)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"threshold": self.threshold}

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:  # noqa: D102
        del result
        right = (outputs > self.boundary) == (targets > 0.5)
        return float(np.count_nonzero(right) / right.shape[1])


class MeanAbsoluteError(_Mean):
    """Mean of absolute differences."""

    name = "mean_absolute_error"
    accepts = ("questions", "numbers")
    mode = "min"
    on_scores = False

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:  # noqa: D102
        del result
        return float(np.abs(outputs - targets).mean(axis=1, dtype=np.float64).sum())


class MeanSquaredError(_Mean):
    """Mean of squared differences."""

    name = "mean_squared_error"
    accepts = ("questions", "numbers")
    mode = "min"
    on_scores = False

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:  # noqa: D102
        del result
        return float(np.square(outputs - targets).mean(axis=1, dtype=np.float64).sum())


class F1Score(Metric):
    """Macro F1: each class' harmonic mean of precision and recall, averaged over the classes that occur.

    A class occurs if it is some element's label or some element's answer. Where the loss asks yes-or-no questions, as
    `fastgru.losses.BinaryCrossentropy` does, each output is a class of its own, to which an element belongs if its
    probability is above 0.5: an element may have several labels, or none. If no element has any, F1 is 0.
    """

    name = "f1_score"
    accepts = ("classes", "questions")
    on_scores = False

    def __init__(self) -> None:
        self.boundary: float | None = None  # of a yes, where outputs are questions of their own
        self.reset()

    def set_loss(self, loss: Loss) -> None:  # noqa: D102
        self.boundary = _boundary(0.5, loss) if loss.asks else None

    def reset(self) -> None:  # noqa: D102
        self._elements = 0
        self._hits = self._answers = self._labels = np.zeros(0, np.int64)

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:  # noqa: D102
        del result
        if self.boundary is None:
            bins = outputs.shape[1]
            answers, labels = outputs.argmax(axis=1), classes_of(targets)
            counts = [np.bincount(values, minlength=bins) for values in (labels[answers == labels], answers, labels)]
        else:
            yes, true = outputs > self.boundary, targets > 0.5
            counts = [np.count_nonzero(values, axis=0) for values in (yes & true, yes, true)]
        if len(self._hits) != len(counts[0]):
            self._hits, self._answers, self._labels = counts
        else:
            self._hits, self._answers, self._labels = (
                old + new for old, new in zip((self._hits, self._answers, self._labels), counts, strict=True)
            )
        self._elements += len(outputs)

    def value(self) -> float:  # noqa: D102
        if not self._elements:
            return float("nan")
        either = self._answers + self._labels
        scores = 2 * self._hits / np.maximum(either, 1)
        return float(scores[either > 0].mean()) if either.any() else 0.0


def _boundary(threshold: float, loss: Loss) -> float:
    """What an output has to be above to say yes with a probability above `threshold`."""
    if not loss.from_logits:
        return threshold
    return math.log(threshold / (1 - threshold)) if threshold else -math.inf


_ALL: tuple[type[Metric], ...] = (
    Accuracy,
    TopKAccuracy,
    BinaryAccuracy,
    MeanAbsoluteError,
    MeanSquaredError,
    F1Score,
)
METRICS: dict[str, Callable[..., Metric]] = {cls.name: cls for cls in _ALL}
#: Name in a saved configuration -> class.
CLASSES: dict[str, Callable[..., Metric]] = {cls.__name__: cls for cls in _ALL}
SHORT_NAMES = {
    "acc": "accuracy",
    "mae": "mean_absolute_error",
    "mse": "mean_squared_error",
    "macro_f1": "f1_score",
    "sparse_categorical_accuracy": "accuracy",
    "categorical_accuracy": "accuracy",
}


def get(metric: str | Metric, loss: Loss) -> Metric:
    """A metric of its own for that name, or the one given; "accuracy" is what it means for `loss`.

    Raises
    ------
    ValueError
        No metric has that name, or it does not go with the loss.
    """
    if not isinstance(metric, Metric):
        name = SHORT_NAMES.get(metric, metric) if isinstance(metric, str) else metric
        checks.choice("metrics", name, (*METRICS, *SHORT_NAMES))
        binary = name == "accuracy" and loss.asks
        given, metric = metric, BinaryAccuracy() if binary else METRICS[name]()
        metric.name = given  # as in Keras, what was asked for is what history calls it
    if loss.kind not in metric.accepts:
        raise ValueError(
            f"metrics: {metric.name} does not go with the loss {loss.name}, whose targets are {loss.kind}; it accepts "
            f"{' and '.join(metric.accepts)}"
        )
    metric.set_loss(loss)
    return metric
