"""Regression metrics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import losses
from fastgru._support import checks
from fastgru.losses import LossResult
from fastgru.metrics.base import MeanOfRows, Metric

Array = NDArray[Any]


class _OfLoss(MeanOfRows):
    """The mean of a loss over rows."""

    accepts = ("questions", "numbers")
    mode = "min"
    _LOSS: type[losses.Loss]

    def __init__(self, name: str | None = None, dtype: None = None) -> None:
        super().__init__(dtype, name)

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:
        del result
        return float(self._LOSS().compute(outputs, targets, gradient=False).values.sum())


class MeanAbsoluteError(_OfLoss):
    """Mean absolute error: the mean of ``|target - output|``.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "mean_absolute_error"
    _LOSS = losses.MeanAbsoluteError

    def __init__(self, name: str = "mean_absolute_error", dtype: None = None) -> None:
        super().__init__(name, dtype)


class MeanSquaredError(_OfLoss):
    """Mean squared error: the mean of ``(target - output)**2``.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "mean_squared_error"
    _LOSS = losses.MeanSquaredError

    def __init__(self, name: str = "mean_squared_error", dtype: None = None) -> None:
        super().__init__(name, dtype)


class MeanAbsolutePercentageError(_OfLoss):
    """`fastgru.losses.MeanAbsolutePercentageError` as a metric.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "mean_absolute_percentage_error"
    _LOSS = losses.MeanAbsolutePercentageError

    def __init__(self, name: str = "mean_absolute_percentage_error", dtype: None = None) -> None:
        super().__init__(name, dtype)


class MeanSquaredLogarithmicError(_OfLoss):
    """`fastgru.losses.MeanSquaredLogarithmicError` as a metric.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "mean_squared_logarithmic_error"
    _LOSS = losses.MeanSquaredLogarithmicError

    def __init__(self, name: str = "mean_squared_logarithmic_error", dtype: None = None) -> None:
        super().__init__(name, dtype)


class LogCoshError(_OfLoss):
    """`fastgru.losses.LogCosh` as a metric.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "logcosh"
    _LOSS = losses.LogCosh

    def __init__(self, name: str = "logcosh", dtype: None = None) -> None:
        super().__init__(name, dtype)


class Poisson(_OfLoss):
    """`fastgru.losses.Poisson` as a metric.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "poisson"
    _LOSS = losses.Poisson

    def __init__(self, name: str = "poisson", dtype: None = None) -> None:
        super().__init__(name, dtype)


class KLDivergence(_OfLoss):
    """`fastgru.losses.KLDivergence` as a metric.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "kl_divergence"
    _LOSS = losses.KLDivergence

    def __init__(self, name: str = "kl_divergence", dtype: None = None) -> None:
        super().__init__(name, dtype)


class RootMeanSquaredError(MeanSquaredError):
    """Root mean squared error: the square root of the mean of ``(target - output)**2`` over all rows.

    Parameters
    ----------
    name, dtype
        As in `Metric`.
    """

    name = "root_mean_squared_error"

    def __init__(self, name: str = "root_mean_squared_error", dtype: None = None) -> None:
        super().__init__(name, dtype)

    def result(self) -> float:  # noqa: D102
        return math.sqrt(super().result())


class R2Score(Metric):
    """Coefficient of determination, averaged over the outputs.

    For each output, it is 1 minus the sum of squared errors divided by the sum of squared deviations from the mean
    target. It is 0 for an output whose targets are all equal, as in Keras.

    Parameters
    ----------
    class_aggregation : {"uniform_average"}
        The mean over the outputs. Other values are not supported.
    num_regressors : {0}
        Other values are not supported.
    name, dtype
        As in `Metric`.
    """

    name = "r2_score"
    accepts = ("numbers",)

    def __init__(
        self,
        class_aggregation: str = "uniform_average",
        num_regressors: int = 0,
        name: str = "r2_score",
        dtype: None = None,
    ) -> None:
        super().__init__(dtype, name)
        self.class_aggregation = checks.choice("class_aggregation", class_aggregation, ("uniform_average",))
        self.num_regressors = checks.integer("num_regressors", num_regressors, least=0, most=0)

    def reset_state(self) -> None:  # noqa: D102
        self._rows = 0
        self._mean = self._deviations = self._errors = np.zeros(0)

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:  # noqa: D102
        del result
        if not len(outputs):
            return
        wide, y = outputs.astype(np.float64), targets.astype(np.float64)
        if not self._rows:
            self._mean = self._deviations = self._errors = np.zeros(wide.shape[1])
        # Combines the sums of squares of two parts without cancellation (Chan, Golub and LeVeque 1983).
        mean, rows = y.mean(axis=0), self._rows + len(y)
        moved = mean - self._mean
        self._deviations = (
            self._deviations + np.square(y - mean).sum(axis=0) + moved * moved * (self._rows * len(y) / rows)
        )
        self._mean = self._mean + moved * (len(y) / rows)
        self._errors = self._errors + np.square(y - wide).sum(axis=0)
        self._rows = rows

    def result(self) -> float:  # noqa: D102
        if not self._rows:
            return float("nan")
        flat = self._deviations == 0
        scores = 1 - self._errors / np.where(flat, 1, self._deviations)
        return float(np.where(flat, 0, scores).mean())
