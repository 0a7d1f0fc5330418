"""Metrics from a confusion matrix: precision, recall, counts, and the area under a curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru.losses import Loss, LossResult
from fastgru.losses.base import activated
from fastgru.metrics.base import Metric

Array = NDArray[Any]


#: The distance of the outer thresholds from 0 and 1, as in Keras.
_OUTSIDE = 1e-7


class _OfProbabilities(Metric):
    """A metric that compares probabilities with labels 0 and 1, for all outputs of a row, as in Keras."""

    _activation: str | None = None  # the activation that converts outputs to probabilities

    def set_loss(self, loss: Loss) -> None:
        self._activation = None
        if loss.from_logits:
            self._activation = "softmax" if self.kind == "classes" else "sigmoid"

    def get_state(self) -> dict[str, Any]:
        state = super().get_state()
        state.pop("_activation", None)
        return state

    def _pairs(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Return bool labels (M, C) and probabilities (M, C) in float32, the dtype in which Keras compares."""
        if self._activation is not None:
            outputs = activated(outputs.astype(np.float64), self._activation)
        if targets.ndim == 2 and targets.shape[1] == 1 != outputs.shape[1]:
            targets = targets[:, 0]
        classes = np.arange(outputs.shape[1])
        labels = targets != 0 if targets.ndim == 2 else targets.astype(np.int64)[:, None] == classes
        return labels, outputs.astype(np.float32)


class _Counts(_OfProbabilities):
    """The counts of true and false positives and negatives."""

    _COUNTED: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        thresholds: float | Sequence[float] | None,
        top_k: int | None,
        class_id: int | None,
        name: str | None,
        dtype: None,
    ) -> None:
        super().__init__(dtype, name)
        if isinstance(thresholds, (list, tuple)):
            if len(thresholds) != 1:
                raise ValueError(
                    f"thresholds: expected one number because a metric is one number, got {thresholds!r}; pass one "
                    f"metric per threshold"
                )
            thresholds = thresholds[0]
        self.thresholds = None if thresholds is None else _threshold("thresholds", thresholds)
        self.top_k = None if top_k is None else checks.integer("top_k", top_k, least=1)
        self.class_id = None if class_id is None else checks.integer("class_id", class_id, least=0)

    def get_config(self) -> dict[str, Any]:
        return {"thresholds": self.thresholds, "top_k": self.top_k, "class_id": self.class_id}

    def reset_state(self) -> None:
        self._true_positives = self._false_positives = self._false_negatives = self._true_negatives = 0
        self._rows = 0

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:
        del result
        labels, p = self._pairs(outputs, targets)
        if self.class_id is not None and self.class_id >= p.shape[1]:
            raise ValueError(
                f"class_id: expected a class below {p.shape[1]}, the number of outputs, got {self.class_id}"
            )
        threshold = self.thresholds
        if self.top_k is not None:
            least = -np.partition(-p, min(self.top_k, p.shape[1]) - 1, axis=1)[:, min(self.top_k, p.shape[1]) - 1]
            p = np.where(p >= least[:, None], p, -np.inf)
            threshold = -np.inf if threshold is None else threshold
        answers = p > np.float32(0.5 if threshold is None else threshold)
        if self.class_id is not None:
            labels, answers = labels[:, self.class_id], answers[:, self.class_id]
        hits = int(np.count_nonzero(labels & answers))
        yes, true = int(np.count_nonzero(answers)), int(np.count_nonzero(labels))
        self._true_positives += hits
        self._false_positives += yes - hits
        self._false_negatives += true - hits
        self._true_negatives += labels.size - yes - true + hits
        self._rows += len(outputs)


class _Count(_Counts):
    """One of the four counts."""

    def __init__(self, thresholds: float | None = None, name: str | None = None, dtype: None = None) -> None:
        super().__init__(thresholds, None, None, name, dtype)

    def get_config(self) -> dict[str, Any]:
        return {"thresholds": self.thresholds}

    def result(self) -> float:
        return float(getattr(self, f"_{type(self).name}")) if self._rows else float("nan")


class TruePositives(_Count):
    """Number of true positives: labels 1 with an output above the threshold.

    Parameters
    ----------
    thresholds : float, optional
        The threshold, from 0 to 1; 0.5 if not given.
    name, dtype
        As in `Metric`.
    """

    name = "true_positives"
    mode = "max"


class TrueNegatives(_Count):
    """Number of true negatives: labels 0 with an output not above the threshold.

    Parameters
    ----------
    thresholds : float, optional
        The threshold, from 0 to 1; 0.5 if not given.
    name, dtype
        As in `Metric`.
    """

    name = "true_negatives"
    mode = "max"


class FalsePositives(_Count):
    """Number of false positives: labels 0 with an output above the threshold.

    Parameters
    ----------
    thresholds : float, optional
        The threshold, from 0 to 1; 0.5 if not given.
    name, dtype
        As in `Metric`.
    """

    name = "false_positives"
    mode = "min"


class FalseNegatives(_Count):
    """Number of false negatives: labels 1 with an output not above the threshold.

    Parameters
    ----------
    thresholds : float, optional
        The threshold, from 0 to 1; 0.5 if not given.
    name, dtype
        As in `Metric`.
    """

    name = "false_negatives"
    mode = "min"


class Precision(_Counts):
    """Fraction of the outputs above the threshold whose label is 1. It is 0 if no output is above the threshold.

    As in Keras, all outputs of a row are counted. Integer classes are converted to one-hot labels.

    Parameters
    ----------
    thresholds : float, optional
        The threshold, from 0 to 1; 0.5 if not given.
    top_k : int, optional
        Count only the k largest outputs of each row as predictions. Without `thresholds`, all k of them are.
    class_id : int, optional
        Count only this class; all classes if not given.
    name, dtype
        As in `Metric`.
    """

    name = "precision"

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: None = None,
    ) -> None:
        super().__init__(thresholds, top_k, class_id, name, dtype)

    def result(self) -> float:  # noqa: D102
        every = self._true_positives + self._false_positives
        return self._true_positives / every if every else 0.0 if self._rows else float("nan")


class Recall(_Counts):
    """Fraction of the labels 1 whose output is above the threshold. It is 0 if there are no such labels.

    As in Keras, all outputs of a row are counted. Integer classes are converted to one-hot labels.

    Parameters
    ----------
    thresholds : float, optional
        The threshold, from 0 to 1; 0.5 if not given.
    top_k : int, optional
        Count only the k largest outputs of each row as predictions. Without `thresholds`, all k of them are.
    class_id : int, optional
        Count only this class; all classes if not given.
    name, dtype
        As in `Metric`.
    """

    name = "recall"

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: None = None,
    ) -> None:
        super().__init__(thresholds, top_k, class_id, name, dtype)

    def result(self) -> float:  # noqa: D102
        every = self._true_positives + self._false_negatives
        return self._true_positives / every if every else 0.0 if self._rows else float("nan")


class AUC(_OfProbabilities):
    """Area under the ROC curve or the precision-recall curve, approximated with Keras' thresholds.

    All outputs of a row are counted together. Integer classes are converted to one-hot labels. With a loss that has
    ``from_logits=True``, outputs are converted to probabilities.

    Parameters
    ----------
    num_thresholds : int, default 200
        The number of thresholds, evenly spaced from 0 to 1. Outputs between two adjacent thresholds count as equal.
    curve : {"ROC", "PR"}
        "ROC" for the ROC curve, "PR" for the precision-recall curve.
    summation_method : {"interpolation", "minoring", "majoring"}
        The method for the area between two points of the curve. "interpolation" with "PR" follows Davis and Goadrich
        (2006).
    name, dtype
        As in `Metric`.
    thresholds : sequence of float, optional
        Thresholds between 0 and 1, used instead of `num_thresholds`.
    multi_label, num_labels, label_weights
        Not supported.
    from_logits : bool
        Whether outputs are logits. Needed only if the loss has no ``from_logits=True``.
    """

    name = "auc"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: None = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ) -> None:
        for option, value in (
            ("multi_label", multi_label),
            ("num_labels", num_labels),
            ("label_weights", label_weights),
        ):
            if value not in (False, None):
                raise ValueError(
                    f"{option}: expected {False if option == 'multi_label' else None} because it is not supported, got "
                    f"{value!r}; leave it out to count all labels together"
                )
        self.multi_label, self.num_labels, self.label_weights = multi_label, num_labels, label_weights
        self.curve = checks.choice("curve", curve, ("ROC", "PR"))
        self.summation_method = checks.choice(
            "summation_method", summation_method, ("interpolation", "minoring", "majoring")
        )
        self.from_logits = checks.flag("from_logits", from_logits)
        self.thresholds = None if thresholds is None else sorted(_threshold("thresholds", each) for each in thresholds)
        self.num_thresholds = checks.integer("num_thresholds", num_thresholds, least=2)
        if self.thresholds is not None:
            self.num_thresholds = len(self.thresholds) + 2
        super().__init__(dtype, name)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        names = ("num_thresholds", "curve", "summation_method", "thresholds", "from_logits")
        return {name: getattr(self, name) for name in names}

    def reset_state(self) -> None:  # noqa: D102
        self._positives = np.zeros(self.num_thresholds, np.int64)  # labels 1, by the interval of thresholds
        self._negatives = np.zeros(self.num_thresholds, np.int64)

    def set_loss(self, loss: Loss) -> None:  # noqa: D102
        super().set_loss(loss)
        if self.from_logits and self._activation is None:
            self._activation = "sigmoid"

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:  # noqa: D102
        del result
        labels, p = self._pairs(outputs, targets)
        if not ((p >= 0) & (p <= 1) | np.isnan(p)).all():
            raise ValueError(
                f"{self.name}: expected probabilities from 0 to 1, got {p[~((p >= 0) & (p <= 1))][0]}; make the last "
                f"activation sigmoid or softmax, or pass from_logits=True"
            )
        p = np.where(np.isnan(p), np.float32(0), p)
        if self.thresholds is None:
            bins = np.ceil(p * np.float32(self.num_thresholds - 1)).astype(np.int64) - 1
        else:
            bins = np.searchsorted(np.asarray(self.thresholds, np.float32), p, side="left")
        bins = np.maximum(bins, 0)
        self._positives = self._positives + np.bincount(bins[labels], minlength=self.num_thresholds)
        self._negatives = self._negatives + np.bincount(bins[~labels], minlength=self.num_thresholds)

    def result(self) -> float:  # noqa: D102
        tp, fp = (np.cumsum(counts[::-1])[::-1].astype(np.float64) for counts in (self._positives, self._negatives))
        if tp[0] + fp[0] == 0:
            return float("nan")
        fn, tn = tp[0] - tp, fp[0] - fp
        recall = _ratio(tp, tp + fn)
        if self.curve == "PR" and self.summation_method == "interpolation":
            return _interpolated_pr_area(tp, fp, fn)
        x, y = (_ratio(fp, fp + tn), recall) if self.curve == "ROC" else (recall, _ratio(tp, tp + fp))
        heights = {
            "interpolation": (y[:-1] + y[1:]) / 2,
            "minoring": np.minimum(y[:-1], y[1:]),
            "majoring": np.maximum(y[:-1], y[1:]),
        }[self.summation_method]
        return float(((x[:-1] - x[1:]) * heights).sum())


def _interpolated_pr_area(tp: Array, fp: Array, fn: Array) -> float:
    """Return the area under the precision-recall curve, with true positives interpolated between thresholds."""
    yes = tp + fp
    slope = _ratio(tp[:-1] - tp[1:], yes[:-1] - yes[1:])
    intercept = tp[1:] - slope * yes[1:]
    growth = np.where((yes[:-1] > 0) & (yes[1:] > 0), yes[:-1] / np.maximum(yes[1:], 1), 1.0)
    parts = slope * (tp[:-1] - tp[1:] + intercept * np.log(growth))
    return float(_ratio(parts, tp[1:] + fn[1:]).sum())


def _ratio(above: Array, below: Array) -> Array:
    """Return the quotient; 0 where the divisor is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below != 0)


def _threshold(name: str, value: Any) -> float:
    number = checks.number(name, value, least=0)
    if number > 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {value!r}")
    return number
