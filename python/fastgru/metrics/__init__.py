"""Metrics with Keras' names, arguments and defaults.

Each metric is exact over the whole data set and does not depend on the batch size. A metric is computed from rows: one
row per sample, or for outputs at each step one row per valid step. Metrics are not weighted. See `Metric` for custom
metrics, as functions or as classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from fastgru._support.elsewhere import missing
from fastgru.losses import Loss
from fastgru.metrics.base import MeanMetricWrapper, Metric
from fastgru.metrics.classes import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    F1Score,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKAccuracy,
    TopKCategoricalAccuracy,
)
from fastgru.metrics.confusion import (
    AUC,
    FalseNegatives,
    FalsePositives,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from fastgru.metrics.numbers import (
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    R2Score,
    RootMeanSquaredError,
)

__all__ = [
    "AUC",
    "CLASSES",
    "METRICS",
    "SHORT_NAMES",
    "Accuracy",
    "BinaryAccuracy",
    "CategoricalAccuracy",
    "F1Score",
    "FalseNegatives",
    "FalsePositives",
    "KLDivergence",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Poisson",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "TopKAccuracy",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
    "get",
]

_ALL: tuple[type[Metric], ...] = (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    F1Score,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKAccuracy,
    TopKCategoricalAccuracy,
    AUC,
    FalseNegatives,
    FalsePositives,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    R2Score,
    RootMeanSquaredError,
)
METRICS: dict[str, type[Metric]] = {cls.name: cls for cls in _ALL}
#: Name in a saved configuration -> class.
CLASSES: dict[str, type[Metric]] = {cls.__name__: cls for cls in _ALL}
SHORT_NAMES = {
    "acc": "accuracy",
    "kld": "kl_divergence",
    "log_cosh_error": "logcosh",
    "macro_f1": "f1_score",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
}


def get(identifier: Any) -> Metric:
    """Return the metric for an identifier.

    Parameters
    ----------
    identifier : str, dict, callable or Metric
        A name ("auc", "AUC") of a metric with default options; a dict with ``class_name`` and ``config``; a function of
        y_true and y_pred, see `MeanMetricWrapper`; or a Metric, which is returned without copying.

    Returns
    -------
    Metric

    Raises
    ------
    ValueError
        No metric has that name.
    TypeError
        The identifier has another type.
    """
    if isinstance(identifier, Metric):
        return identifier
    if inspect.isclass(identifier) and issubclass(identifier, Metric):
        return identifier()
    if callable(identifier):
        return MeanMetricWrapper(identifier)
    if isinstance(identifier, Mapping) and isinstance(identifier.get("config"), Mapping):
        return _class_of(identifier.get("class_name")).from_config(identifier["config"])
    metric = _class_of(identifier)()
    if identifier not in CLASSES:
        metric.name = identifier  # as in Keras, the history contains the name that was passed
    return metric


def _class_of(name: Any) -> type[Metric]:
    if not isinstance(name, str):
        raise TypeError(f"metrics: expected names, functions, or some of fastgru.metrics, got {name!r}")
    if name in CLASSES:
        return CLASSES[name]
    lower = name.lower() if name.isupper() else name
    if (found := SHORT_NAMES.get(lower, lower)) in METRICS:
        return METRICS[found]
    hint = f"; {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
    raise ValueError(f"metrics: expected some of {', '.join(map(repr, (*METRICS, *SHORT_NAMES)))}, got {name!r}{hint}")


def for_loss(identifier: Any, loss: Loss, kind: str) -> Metric:
    """Return a metric for a model that is compiled with `loss`, whose targets are of kind `kind`.

    "accuracy" is `Accuracy` or `BinaryAccuracy`, depending on `kind`.

    Raises
    ------
    ValueError
        No metric has that name, or it does not support such targets.
    """
    metric = get(identifier)
    if isinstance(identifier, str) and type(metric) is Accuracy and kind == "questions":
        metric = BinaryAccuracy(name=metric.name)
    if kind not in metric.accepts:
        raise ValueError(
            f"metrics: {metric.name} does not support the loss {loss.name}, whose targets are {kind}; it supports "
            f"{' and '.join(metric.accepts)}"
        )
    metric.kind = kind
    metric.set_loss(loss)
    return metric


_AS_FUNCTION = "write it as a function of y_true and y_pred, or derive a class from metrics.Metric"
#: Names in Keras and PyTorch that this module does not have -> what to use instead.
_ELSEWHERE = {
    **dict.fromkeys(
        (
            *("BinaryIoU", "IoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU", "ConcordanceCorrelation", "FBetaScore"),
            *("PearsonCorrelation", "CosineSimilarity", "CategoricalHinge", "Hinge", "SquaredHinge", "Mean", "Sum"),
            *("PrecisionAtRecall", "RecallAtPrecision", "SensitivityAtSpecificity", "SpecificityAtSensitivity"),
        ),
        _AS_FUNCTION,
    ),
    **dict.fromkeys(
        ("BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"),
        "use the loss in the history, or a function of y_true and y_pred",
    ),
    **{name: f"use metrics.{cls.__name__}() or the name {name!r}" for name, cls in METRICS.items()},
    "MulticlassAccuracy": "use metrics.Accuracy",
    "AUROC": "use metrics.AUC",
    "serialize": "use metric.get_config()",
    "deserialize": "use metrics.get({'class_name': ..., 'config': ...})",
}


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, _ELSEWHERE)
