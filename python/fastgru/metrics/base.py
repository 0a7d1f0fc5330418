"""The base class of metrics, and functions as metrics."""

from __future__ import annotations

import inspect
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.representation import as_call
from fastgru.losses import KINDS, Loss, LossResult
from fastgru.losses.base import function_name, row_values, snake_case

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
    """Base class of the metrics. Derive from it for a metric of your own, as in Keras.

    Parameters
    ----------
    dtype : None
        Metrics compute in float64.
    name : str, optional
        The name in histories; by default that of the class, in lower case with underscores.

    Attributes
    ----------
    name : str
        The name in a history; ``val_`` before it for validation.
    mode : {"max", "min"}
        Which direction is better.
    accepts : tuple of str
        The targets (`fastgru.losses.Loss.kind`) that the metric supports: "classes"; "questions", where each output is
        the probability of an independent label; "numbers". All of them, unless a class declares others; `compile`
        refuses a metric with a loss of another kind.
    kind : str
        The kind of the loss that the model is compiled with.
    on_scores : bool
        Whether it takes the scores before the last activation, where the loss does: their order is the same.

    Notes
    -----
    A class of your own implements `reset_state`, `update_state` and `result`. `update_state` is called for each batch
    with a row for each sample, or for each step that counts: y_true (M,) of integer classes, or (M, C); y_pred, the
    model's outputs, (M, C). Metrics are not weighted, so sample_weight is None.

    Models with a metric of a class of your own, or with a function, cannot be saved with their training:
    ``model.save(path, include_optimizer=False)`` saves them without, for `load_model` and `compile`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgru import Sequential, layers, metrics
    >>> class LargestError(metrics.Metric):
    ...     mode = "min"
    ...     accepts = ("numbers",)
    ...
    ...     def reset_state(self):
    ...         self.largest = 0.0
    ...
    ...     def update_state(self, y_true, y_pred, sample_weight=None):
    ...         self.largest = max(self.largest, float(np.abs(y_true - y_pred).max(initial=0)))
    ...
    ...     def result(self):
    ...         return self.largest
    >>> model = Sequential([layers.GRU(4, input_shape=(5, 2)), layers.Dense(1)])
    >>> model.compile("adam", loss="mse", metrics=[LargestError()])
    """

    name: str = "metric"
    dtype: None = None
    accepts: ClassVar[tuple[str, ...]] = KINDS
    mode: ClassVar[str] = "max"
    on_scores: ClassVar[bool] = False
    kind: str = "classes"
    _owner = _Owner()  # of the class: a class of one's own need not call __init__ of this one

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls) and not any("name" in vars(base) for base in cls.__mro__[1:] if base is not Metric):
            cls.name = snake_case(cls.__name__)
        if "update_state" in vars(cls) and "update" not in vars(cls):  # else a built-in metric's own would be used
            cls.update = Metric.update  # type: ignore[method-assign]
            cls.on_scores = False

    def __init__(self, dtype: None = None, name: str | None = None) -> None:
        if dtype is not None:
            raise ValueError(f"dtype: expected None because metrics compute in float64, got {dtype!r}; leave it out")
        if name is not None:
            if not isinstance(name, str):
                raise TypeError(f"name: expected a string, got {name!r}; pass the other arguments by keyword")
            if name != self.name:
                self.name = name
        self.reset_state()

    def __repr__(self) -> str:
        # A class' own name is the default, also where the signature has None for it, as in Keras.
        given = inspect.signature(type(self)).parameters.get("name")
        default = given is not None and given.default is None and self.name == type(self).name
        return as_call(self, lambda: {"name": None} if default else {})

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
        """Prepare for the outputs of a model that is compiled with `loss`; `kind` is set before."""

    @abstractmethod
    def reset_state(self) -> None:
        """Forget everything that was counted."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: None = None) -> None:
        """Count a batch.

        Parameters
        ----------
        y_true : array_like (N,), (N, C), (N, T) or (N, T, C)
        y_pred : array_like (N, C) or (N, T, C)
            Outputs of a model.
        sample_weight : None
            Not supported.
        """
        if sample_weight is not None:
            raise ValueError("sample_weight: expected None because metrics are not weighted, got some; leave it out")
        outputs, targets = checks.array("y_pred", y_pred), checks.array("y_true", y_true)
        if outputs.ndim < 2:
            outputs = outputs[..., None]
        rows = outputs.shape[:-1]
        if targets.shape[: len(rows)] != rows:
            raise ValueError(
                f"y_true: expected a shape that begins with {rows} because y_pred has the shape {outputs.shape}, got "
                f"{targets.shape}"
            )
        targets = targets.reshape(-1, *targets.shape[len(rows) :])
        if targets.ndim == 1 and outputs.shape[-1] == 1:
            targets = targets[:, None]
        outputs = outputs.reshape(-1, outputs.shape[-1])
        for cls in type(self).__mro__:  # the method of a metric of the package, which counts rows
            counting = vars(cls).get("update")
            if counting is not None and counting is not Metric.update:
                counting(self, outputs, targets, LossResult(np.zeros(len(outputs)), None, None))
                return
        raise NotImplementedError(
            f"{type(self).__name__}: expected a method update_state(y_true, y_pred, sample_weight=None), got none; "
            f"define it"
        )

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: None = None) -> float:
        """Count a batch as `update_state` does, and return the `result` of everything that was counted, as in Keras."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def add_variable(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raise an error: attributes hold what a metric counts."""
        raise NotImplementedError(
            f"add_variable: {type(self).__name__} needs no variables; set an attribute to a number or an array in "
            f"reset_state, and change it in update_state"
        )

    add_weight = add_variable  # Keras' earlier name

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:
        """Count M rows of a batch; training calls it.

        Parameters
        ----------
        outputs : ndarray (M, C)
        targets : ndarray (M,) of int64, or (M, C)
        result : LossResult
            The losses of the same rows.
        """
        del result
        self.update_state(targets, outputs)

    @abstractmethod
    def result(self) -> float:
        """The metric of everything that was counted; NaN if there was nothing."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The metric of this class with the configuration that `get_config` returned."""
        return cls(**config)

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


class MeanOfRows(Metric):
    """A mean over rows."""

    def reset_state(self) -> None:  # noqa: D102
        self._sum: float = 0.0
        self._count = 0

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:  # noqa: D102
        self._sum += self.total(outputs, targets, result)
        self._count += len(outputs)

    @abstractmethod
    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:
        """The sum over these rows."""

    def result(self) -> float:  # noqa: D102
        return self._sum / self._count if self._count else float("nan")


class MeanMetricWrapper(MeanOfRows):
    """A function as a metric: the mean of what it returns for each row; ``compile(metrics=[function])`` makes one.

    Parameters
    ----------
    fn : callable
        Takes y_true (M, ...) and y_pred (M, C) of float64, a row for each sample, or for each step that counts, and
        returns a number for each row, (M,), or several, (M, ...), whose mean is taken.
    name : str, optional
        The function's, if not given.
    dtype : None
        As in `Metric`.
    """

    def __init__(self, fn: Callable[[Array, Array], Any], name: str | None = None, dtype: None = None) -> None:
        if not callable(fn):
            raise TypeError(f"fn: expected a function of y_true and y_pred, got {fn!r}")
        super().__init__(dtype, function_name(fn) if name is None else name)
        self.fn = fn

    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:  # noqa: D102
        del result
        values = self.fn(targets.astype(np.float64), outputs.astype(np.float64))
        return float(row_values(self.name, values, len(outputs), "value").sum(dtype=np.float64))


def classes_of(targets: Array, outputs: Array) -> Array:
    """Classes (M,): integers as they are, else where the largest target stands."""
    if targets.ndim == 2 and targets.shape[1] == 1 != outputs.shape[1]:
        targets = targets[:, 0]
    return targets.astype(np.int64, copy=False) if targets.ndim == 1 else targets.argmax(axis=1)
