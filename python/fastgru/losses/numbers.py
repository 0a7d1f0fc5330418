"""Losses that are the mean over the numbers of a row."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import functional
from fastgru._support import checks, sequences
from fastgru._support.samples import convert
from fastgru.losses.base import EPSILON, REDUCTION, Loss, LossResult, check_axis, focal_slope

Array = NDArray[Any]


class _Pointwise(Loss, ABC):
    """A loss that is the mean over the C numbers of a row."""

    head: str | None = None

    def check_targets(self, name: str, y: Any, output_shape: tuple[int, ...], lengths: Array | None) -> Array:
        del lengths  # values are not checked: NaN or infinity raises in training, with the sample's index
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
                f"{name}: expected shape {checks.dims((None, *output_shape[1:]))}, that of the model's output, "
                f"got {array.shape}"
            )
        return array

    def compute(
        self, scores: Array, targets: Array, *, activation: str | None = None, gradient: bool = True
    ) -> LossResult:
        del activation
        if targets.dtype != scores.dtype:
            targets = convert("y", targets, np.empty(targets.shape, scores.dtype))
        values, slopes = self.terms(scores, targets)
        d_scores = slopes * scores.dtype.type(1 / max(scores.size, 1)) if gradient else None
        return LossResult(values.mean(axis=-1, dtype=np.float64), d_scores, None)

    @abstractmethod
    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:
        """Return the loss of each number and its derivative by the score."""


class BinaryCrossentropy(_Pointwise):
    """Cross-entropy of sigmoids for C independent labels, averaged over the labels, as in Keras.

    Parameters
    ----------
    from_logits : bool
        Whether the model's outputs are logits. If True, the last layer must have no activation. If False, its
        activation must be sigmoid. The loss is computed from the logits in both cases.
    label_smoothing : float
        A fraction from 0 to below 1 by which targets are moved towards one half.
    axis : {-1}
        The axis to average over. Other axes are not supported.
    reduction, name, dtype
        As in `Loss`.
    """

    name = "binary_crossentropy"
    asks = True

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = REDUCTION,
        name: str = "binary_crossentropy",
        dtype: None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = check_axis(axis)
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
        # log(1 + exp(s)) - t s, without overflow for large positive or negative s.
        values = np.maximum(scores, 0) - scores * targets + np.log1p(np.exp(-np.abs(scores)))
        return values, functional.activate(scores, "sigmoid") - targets


class BinaryFocalCrossentropy(BinaryCrossentropy):
    """Focal loss of sigmoids (Lin et al. 2017, arXiv:1708.02002).

    Parameters
    ----------
    apply_class_balancing : bool
        Whether to weight labels of 1 by `alpha`, and labels of 0 by ``1 - alpha``.
    alpha : float
        The weight of labels 1, from 0 to 1.
    gamma : float
        The focusing parameter, at least 0. Larger values reduce the loss of nearly correct outputs more.
    from_logits, label_smoothing, axis, reduction, name, dtype
        As in `BinaryCrossentropy`.
    """

    name = "binary_focal_crossentropy"

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str = REDUCTION,
        name: str = "binary_focal_crossentropy",
        dtype: None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.apply_class_balancing = checks.flag("apply_class_balancing", apply_class_balancing)
        self.alpha = checks.number("alpha", alpha, least=0)
        self.gamma = checks.number("gamma", gamma, least=0)
        if self.alpha > 1:
            raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha!r}")

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        own = {"apply_class_balancing": self.apply_class_balancing, "alpha": self.alpha, "gamma": self.gamma}
        return {**own, **super().get_config()}

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        kind = scores.dtype.type
        entropy, slopes = super().terms(scores, targets)
        if self.label_smoothing:
            targets = targets * kind(1 - self.label_smoothing) + kind(self.label_smoothing / 2)
        p, q = functional.activate(scores, "sigmoid"), functional.activate(-scores, "sigmoid")
        rest = targets * q + (1 - targets) * p  # 1 - p_t
        focal = rest ** kind(self.gamma)
        by_score = focal_slope(rest, kind(self.gamma)) * (1 - 2 * targets) * p * q
        values, slopes = focal * entropy, focal * slopes + by_score * entropy
        if self.apply_class_balancing:
            balance = targets * kind(self.alpha) + (1 - targets) * kind(1 - self.alpha)
            values, slopes = values * balance, slopes * balance
        return values, slopes


class _Plain(_Pointwise):
    """A loss with the common options only."""

    def __init__(self, reduction: str = REDUCTION, name: str | None = None, dtype: None = None) -> None:
        super().__init__(name, reduction, dtype)


class MeanSquaredError(_Plain):
    """Mean squared error: the mean of ``(target - output)**2``.

    Parameters
    ----------
    reduction, name, dtype
        As in `Loss`.
    """

    name = "mean_squared_error"

    def __init__(self, reduction: str = REDUCTION, name: str = "mean_squared_error", dtype: None = None) -> None:
        super().__init__(reduction, name, dtype)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        difference = scores - targets
        return difference * difference, difference + difference


class MeanAbsoluteError(_Plain):
    """Mean absolute error: the mean of ``|target - output|``.

    Parameters
    ----------
    reduction, name, dtype
        As in `Loss`.
    """

    name = "mean_absolute_error"

    def __init__(self, reduction: str = REDUCTION, name: str = "mean_absolute_error", dtype: None = None) -> None:
        super().__init__(reduction, name, dtype)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        difference = scores - targets
        return np.abs(difference), np.sign(difference)


class MeanAbsolutePercentageError(_Plain):
    """Mean absolute percentage error: the mean of ``100 |target - output| / max(|target|, 1e-7)``.

    Parameters
    ----------
    reduction, name, dtype
        As in `Loss`.
    """

    name = "mean_absolute_percentage_error"

    def __init__(
        self, reduction: str = REDUCTION, name: str = "mean_absolute_percentage_error", dtype: None = None
    ) -> None:
        super().__init__(reduction, name, dtype)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        kind = scores.dtype.type
        difference, size = scores - targets, np.maximum(np.abs(targets), kind(EPSILON))
        return kind(100) * np.abs(difference) / size, kind(100) * np.sign(difference) / size


class MeanSquaredLogarithmicError(_Plain):
    """Mean squared error of ``log(1 + y)``. Targets and outputs below 1e-7 are replaced by 1e-7.

    Parameters
    ----------
    reduction, name, dtype
        As in `Loss`.
    """

    name = "mean_squared_logarithmic_error"

    def __init__(
        self, reduction: str = REDUCTION, name: str = "mean_squared_logarithmic_error", dtype: None = None
    ) -> None:
        super().__init__(reduction, name, dtype)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        least = scores.dtype.type(EPSILON)
        difference = np.log1p(np.maximum(scores, least)) - np.log1p(np.maximum(targets, least))
        above = (scores >= least) | np.isnan(scores)
        return difference * difference, 2 * difference / (1 + np.where(above, scores, 0)) * above


class LogCosh(_Plain):
    """Mean of ``log(cosh(output - target))``.

    It is about half the square of small differences, and about the absolute value of large differences.

    Parameters
    ----------
    reduction, name, dtype
        As in `Loss`.
    """

    name = "log_cosh"

    def __init__(self, reduction: str = REDUCTION, name: str = "log_cosh", dtype: None = None) -> None:
        super().__init__(reduction, name, dtype)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        difference = scores - targets
        size = np.abs(difference)
        return size + np.log1p(np.exp(-2 * size)) - scores.dtype.type(math.log(2)), np.tanh(difference)


class Poisson(_Plain):
    """Poisson loss: the mean of ``output - target * log(output + 1e-7)``, where the outputs are rates.

    Parameters
    ----------
    reduction, name, dtype
        As in `Loss`.
    """

    name = "poisson"

    def __init__(self, reduction: str = REDUCTION, name: str = "poisson", dtype: None = None) -> None:
        super().__init__(reduction, name, dtype)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        moved = scores + scores.dtype.type(EPSILON)
        with np.errstate(invalid="ignore", divide="ignore"):  # training raises an error with the sample's index
            return scores - targets * np.log(moved), 1 - targets / moved


class KLDivergence(_Plain):
    """Kullback-Leibler divergence: the sum of ``target * log(target / output)``, both clipped to 1e-7..1.

    Parameters
    ----------
    reduction, name, dtype
        As in `Loss`.
    """

    name = "kl_divergence"

    def __init__(self, reduction: str = REDUCTION, name: str = "kl_divergence", dtype: None = None) -> None:
        super().__init__(reduction, name, dtype)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        least, classes = scores.dtype.type(EPSILON), scores.dtype.type(scores.shape[-1])  # a sum, not a mean
        targets, clipped = np.clip(targets, least, 1), np.clip(scores, least, 1)
        inside = (clipped == scores) | np.isnan(scores)
        return classes * targets * np.log(targets / clipped), -classes * targets / clipped * inside


class Hinge(_Plain):
    """Hinge loss: the mean of ``max(1 - target * output, 0)``.

    Targets are -1 and 1. Targets 0 and 1 are converted to these.

    Parameters
    ----------
    reduction, name, dtype
        As in `Loss`.
    """

    name = "hinge"

    def __init__(self, reduction: str = REDUCTION, name: str = "hinge", dtype: None = None) -> None:
        super().__init__(reduction, name, dtype)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        targets = _signs(targets)
        margin = 1 - targets * scores
        return np.maximum(margin, 0), -targets * (margin > 0)


class SquaredHinge(_Plain):
    """Squared hinge loss: the mean of ``max(1 - target * output, 0)**2``.

    Targets are -1 and 1. Targets 0 and 1 are converted to these.

    Parameters
    ----------
    reduction, name, dtype
        As in `Loss`.
    """

    name = "squared_hinge"

    def __init__(self, reduction: str = REDUCTION, name: str = "squared_hinge", dtype: None = None) -> None:
        super().__init__(reduction, name, dtype)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        targets = _signs(targets)
        margin = np.maximum(1 - targets * scores, 0)
        return margin * margin, -2 * targets * margin


def _signs(targets: Array) -> Array:
    """Return targets -1 and 1; converts 0 and 1."""
    return 2 * targets - 1 if ((targets == 0) | (targets == 1)).all() else targets


class Huber(_Pointwise):
    """Huber loss of the difference d: ``d**2 / 2`` if ``|d| <= delta``, otherwise ``delta * (|d| - delta / 2)``.

    Parameters
    ----------
    delta : float
        The largest absolute difference with a quadratic loss, above 0.
    reduction, name, dtype
        As in `Loss`.
    """

    name = "huber_loss"

    def __init__(
        self, delta: float = 1.0, reduction: str = REDUCTION, name: str = "huber_loss", dtype: None = None
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.delta = checks.number("delta", delta, above=0)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"delta": self.delta}

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        difference = scores - targets
        delta = scores.dtype.type(self.delta)
        inside = np.clip(difference, -delta, delta)
        return inside * (difference - inside / 2), inside


class Quantile(_Pointwise):
    """Quantile loss, also called pinball loss (Koenker and Bassett 1978): outputs estimate quantiles of the target.

    The loss of an output is ``q * d`` if the target is larger by d, and ``(1 - q) * d`` if it is smaller by d.

    Parameters
    ----------
    q : float or sequence of float
        The quantile, between 0 and 1, for all outputs; 0.5 is the median. Or a quantile for each output, such as
        ``Quantile([0.1, 0.5, 0.9])`` with ``layers.Dense(3)``.
    reduction, name, dtype
        As in `Loss`.

    Notes
    -----
    With several quantiles, targets may be single numbers, (N,) or (N, T). All outputs are compared with the same
    target.
    """

    name = "quantile"

    def __init__(
        self,
        q: float | Sequence[float] = 0.5,
        reduction: str = REDUCTION,
        name: str = "quantile",
        dtype: None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        if isinstance(q, np.ndarray):
            q = q.tolist()
        if isinstance(q, (list, tuple)):
            if not q:
                raise ValueError("q: expected at least one quantile, got none")
            self.q: float | list[float] = [checks.number("q", each, above=0, below=1) for each in q]
        else:
            self.q = checks.number("q", q, above=0, below=1)

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {"q": self.q}

    def check_targets(self, name: str, y: Any, output_shape: tuple[int, ...], lengths: Array | None) -> Array:  # noqa: D102
        if isinstance(self.q, list):
            if output_shape[-1] != len(self.q):
                raise ValueError(
                    f"loss: expected {len(self.q)} outputs because the loss has {len(self.q)} quantiles, got "
                    f"{output_shape[-1]}; make the last layer Dense({len(self.q)})"
                )
            y = checks.array(name, y)
            if y.shape == output_shape[:-1]:
                y = y[..., None]
            if y.shape == (*output_shape[:-1], 1):
                y = np.broadcast_to(y, output_shape)
        return super().check_targets(name, y, output_shape, lengths)

    def terms(self, scores: Array, targets: Array) -> tuple[Array, Array]:  # noqa: D102
        q = np.asarray(self.q, scores.dtype)
        difference = targets - scores
        slope = np.where(difference > 0, -q, np.where(difference < 0, 1 - q, 0)).astype(scores.dtype, copy=False)
        return np.maximum(q * difference, (q - 1) * difference), slope
