"""Classification metrics: accuracies and F1."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru.losses import Loss, LossResult
from fastgru.metrics.base import MeanOfRows, Metric, classes_of

Array = NDArray[Any]


class Accuracy(MeanOfRows):
    """Fraction of rows whose largest output is that of the label. Of equal outputs, the first counts as the largest.

    If `update_state` gets one number for each row, these are labels, which are compared as in Keras.

    The name ``"accuracy"`` means `BinaryAccuracy` if the loss has independent labels, such as binary cross-entropy.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "accuracy"
    accepts = ("classes",)
    on_scores = True
    _compares_labels: ClassVar[bool] = True

    def __init__(self, name: str = "accuracy", dtype: None = None) -> None:
        super().__init__(dtype, name)

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:  # noqa: D102
        correct = result.correct
        if correct is None and outputs.shape[1] == 1 and self._compares_labels:
            correct = outputs[:, 0] == targets.reshape(len(outputs))
        elif correct is None:
            correct = outputs.argmax(axis=1) == classes_of(targets, outputs)
        return int(np.count_nonzero(correct))


class CategoricalAccuracy(Accuracy):
    """`Accuracy` under Keras' name for one-hot labels. Integer labels are also supported.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "categorical_accuracy"
    _compares_labels = False

    def __init__(self, name: str = "categorical_accuracy", dtype: None = None) -> None:
        super().__init__(name, dtype)


class SparseCategoricalAccuracy(Accuracy):
    """`Accuracy` under Keras' name for integer labels. One-hot labels are also supported.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "sparse_categorical_accuracy"
    _compares_labels = False

    def __init__(self, name: str = "sparse_categorical_accuracy", dtype: None = None) -> None:
        super().__init__(name, dtype)


class TopKAccuracy(MeanOfRows):
    """Fraction of rows whose label is among the k largest outputs. Outputs equal to the label's count as smaller.

    Parameters
    ----------
    k : int, default 5
        The number of largest outputs.
    name, dtype
        As in `Metric`.
    """

    name = "top_k_accuracy"
    accepts = ("classes",)
    on_scores = True

    def __init__(self, k: int = 5, name: str = "top_k_accuracy", dtype: None = None) -> None:
        super().__init__(dtype, name)
        self.k = checks.integer("k", k, least=1)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"k": self.k}

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:  # noqa: D102
        del result
        at_label = np.take_along_axis(outputs, classes_of(targets, outputs)[:, None], axis=1)
        return int(np.count_nonzero((outputs > at_label).sum(axis=1) < self.k))


class TopKCategoricalAccuracy(TopKAccuracy):
    """`TopKAccuracy` under Keras' name for one-hot labels. Integer labels are also supported.

    Parameters
    ----------
    k, name, dtype
        As in `TopKAccuracy`.
    """

    name = "top_k_categorical_accuracy"

    def __init__(self, k: int = 5, name: str = "top_k_categorical_accuracy", dtype: None = None) -> None:
        super().__init__(k, name, dtype)


class SparseTopKCategoricalAccuracy(TopKAccuracy):
    """`TopKAccuracy` under Keras' name for integer labels. One-hot labels are also supported.

    Parameters
    ----------
    k, name, dtype
        As in `TopKAccuracy`.
    from_sorted_ids : bool
        Not supported: must be False.
    """

    name = "sparse_top_k_categorical_accuracy"

    def __init__(
        self,
        k: int = 5,
        name: str = "sparse_top_k_categorical_accuracy",
        dtype: None = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(k, name, dtype)
        if from_sorted_ids is not False:
            raise ValueError(f"from_sorted_ids: expected False because outputs are scores, got {from_sorted_ids!r}")
        self.from_sorted_ids = from_sorted_ids


class BinaryAccuracy(MeanOfRows):
    """Fraction of correct predictions of independent labels 0 and 1, averaged over the C labels and the rows.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    threshold : float
        Probabilities above the threshold predict the label 1. With a loss that has ``from_logits=True``, outputs are
        compared with the logit of the threshold.
    """

    name = "binary_accuracy"
    accepts = ("questions", "numbers")

    def __init__(self, name: str = "binary_accuracy", dtype: None = None, threshold: float = 0.5) -> None:
        super().__init__(dtype, name)
        self.threshold = checks.number("threshold", threshold, least=0, below=1)
        self.boundary = self.threshold

    def set_loss(self, loss: Loss) -> None:  # noqa: D102
        self.boundary = boundary(self.threshold, loss)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"threshold": self.threshold}

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:  # noqa: D102
        del result
        right = (outputs > self.boundary) == (targets > 0.5)
        return float(np.count_nonzero(right) / right.shape[1])


class F1Score(Metric):
    """F1 score: the harmonic mean of precision and recall of each class, averaged over the classes.

    Classes that are neither the label nor the prediction of any row are ignored. With a loss of independent labels,
    such as `fastgru.losses.BinaryCrossentropy`, each output is a class, which is predicted if its probability is above
    the threshold. A row may then have several labels or none. If no row has a label or a prediction, F1 is 0.

    Parameters
    ----------
    average : {"macro", "micro", "weighted"}
        "macro": the mean over the classes. "micro": F1 of all predictions together. "weighted": the mean weighted by
        the number of labels of each class. None, Keras' default, returns an array and is not supported.
    threshold : float, optional
        The threshold for independent labels; 0.5 if not given.
    name, dtype
        As in `Metric`.
    """

    name = "f1_score"
    accepts = ("classes", "questions")

    def __init__(
        self, average: str = "macro", threshold: float | None = None, name: str = "f1_score", dtype: None = None
    ) -> None:
        if average is None:
            raise ValueError(
                "average: expected 'macro', 'micro' or 'weighted' because a metric is one number, got None"
            )
        super().__init__(dtype, name)
        self.average = checks.choice("average", average, ("macro", "micro", "weighted"))
        self.threshold = None if threshold is None else checks.number("threshold", threshold, least=0, below=1)
        self.boundary: float | None = None  # the threshold of outputs, with independent labels

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"average": self.average, "threshold": self.threshold}

    def set_loss(self, loss: Loss) -> None:  # noqa: D102
        threshold = 0.5 if self.threshold is None else self.threshold
        self.boundary = boundary(threshold, loss) if self.kind == "questions" else None

    def reset_state(self) -> None:  # noqa: D102
        self._elements = 0
        self._hits = self._answers = self._labels = np.zeros(0, np.int64)

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:  # noqa: D102
        del result
        if self.boundary is None:
            bins = outputs.shape[1]
            answers, labels = outputs.argmax(axis=1), classes_of(targets, outputs)
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

    def result(self) -> float:  # noqa: D102
        if not self._elements:
            return float("nan")
        either = self._answers + self._labels
        if not either.any():
            return 0.0
        if self.average == "micro":
            return float(2 * self._hits.sum() / either.sum())
        scores = 2 * self._hits / np.maximum(either, 1)
        if self.average == "macro":
            return float(scores[either > 0].mean())
        labels = self._labels.sum()
        return float((scores * self._labels).sum() / labels) if labels else 0.0


def boundary(threshold: float, loss: Loss) -> float:
    """Return the output whose probability is `threshold`."""
    if not loss.from_logits:
        return threshold
    return math.log(threshold / (1 - threshold)) if threshold else -math.inf
