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
    """The model that a metric belongs to. A copy of the metric belongs to no model."""

    def __init__(self, metric: Metric | None = None, model: Any = None) -> None:
        self._metric = None if metric is None else weakref.ref(metric)
        self._model = None if model is None else weakref.ref(model)

    def of(self, metric: Metric) -> Any:
        """Return the model that the metric belongs to, or None."""
        if self._model is None or self._metric is None or self._metric() is not metric:
            return None
        return self._model()

    def __reduce__(self) -> tuple[Any, ...]:
        """Weak references cannot be pickled."""
        return _Owner, ()


class Metric(ABC):
    """Base class of all metrics. For a custom metric, derive from it, as in Keras.

    Parameters
    ----------
    dtype : None
        Not supported. Metrics are computed in float64.
    name : str, optional
        The name in histories. By default the class name in lower case with underscores.

    Attributes
    ----------
    name : str
        The name in a history; for validation with the prefix ``val_``.
    mode : {"max", "min"}
        Whether larger or smaller values are better.
    accepts : tuple of str
        The kinds of targets (`fastgru.losses.Loss.kind`) that the metric supports: "classes", "questions" (each output
        is the probability of an independent label) and "numbers". By default all of them. `compile` raises ValueError
        if the loss has another kind.
    kind : str
        The kind of targets of the loss that the model is compiled with.
    on_scores : bool
        Whether the metric also accepts logits, because it depends only on the order of the outputs.

    Notes
    -----
    A custom metric implements `reset_state`, `update_state` and `result`. ``update_state(y_true, y_pred)`` is called
    for each batch: y_true has the shape (M,) for integer classes, otherwise (M, C), and y_pred contains the model's
    outputs (M, C). There is one row per sample, or for outputs at each step one row per valid step. Metrics are not
    weighted, so ``sample_weight`` is None.

    A model with a custom metric can only be saved without it: call ``model.save(path, include_optimizer=False)``, and
    after `load_model` call ``compile``.

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
    _owner = _Owner()  # a class attribute, because a custom class need not call __init__ of this class

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls) and not any("name" in vars(base) for base in cls.__mro__[1:] if base is not Metric):
            cls.name = snake_case(cls.__name__)
        if "update_state" in vars(cls) and "update" not in vars(
            cls
        ):  # otherwise the update of a built-in metric would be used
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
        # The class attribute is the default, also if the signature has the default None, as in Keras.
        given = inspect.signature(type(self)).parameters.get("name")
        default = given is not None and given.default is None and self.name == type(self).name
        return as_call(self, lambda: {"name": None} if default else {})

    def require_free(self, model: Any) -> None:
        """Raise ValueError if another model is compiled with this object."""
        owner = self._owner.of(self)
        if owner is not None and owner is not model and any(each is self for each in owner.metrics):
            raise ValueError(
                f"metrics: expected a metric of no other model because it stores the counts of one model, got "
                f"{self.name}, which another model is compiled with; pass copy.deepcopy(metric)"
            )

    def belong_to(self, model: Any) -> None:
        """Assign the metric to `model`."""
        self._owner = _Owner(self, model)

    def set_loss(self, loss: Loss) -> None:  # noqa: B027
        """Prepare for the outputs of a model that is compiled with `loss`. `kind` is already set."""

    @abstractmethod
    def reset_state(self) -> None:
        """Reset the state: the metric then contains no data."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: None = None) -> None:
        """Add the rows of a batch.

        Parameters
        ----------
        y_true : array_like (N,), (N, C), (N, T) or (N, T, C)
        y_pred : array_like (N, C) or (N, T, C)
            Outputs of a model.
        sample_weight : None
            Not supported.
        """
        if sample_weight is not None:
            raise ValueError("sample_weight: expected None because metrics are not weighted, got weights; leave it out")
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
        for cls in type(self).__mro__:  # the update of a built-in metric
            counting = vars(cls).get("update")
            if counting is not None and counting is not Metric.update:
                counting(self, outputs, targets, LossResult(np.zeros(len(outputs)), None, None))
                return
        raise NotImplementedError(
            f"{type(self).__name__}: expected a method update_state(y_true, y_pred, sample_weight=None), got none; "
            f"define it"
        )

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: None = None) -> float:
        """Call `update_state` for a batch, and return the `result` over all batches so far, as in Keras."""
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def add_variable(self, *arguments: Any, **options: Any) -> NoReturn:
        """Raise an error. A metric stores its state in ordinary attributes."""
        raise NotImplementedError(
            f"add_variable: {type(self).__name__} needs no variables; set an attribute to a number or an array in "
            f"reset_state, and change it in update_state"
        )

    add_weight = add_variable  # Keras' earlier name

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:
        """Add M rows of a batch. Training and evaluation call it.

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
        """Return the metric over all rows since `reset_state`; NaN if there are none."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create a metric of this class from a configuration that `get_config` returned."""
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, from which `from_config` creates the same metric."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """Return the state, as values that JSON supports."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(self).items()
            if name.startswith("_") and name != "_owner"
        }

    def require_sound(self, state: dict[str, Any]) -> None:
        """Raise ValueError or TypeError if `state` is not a valid state of this metric."""
        own = self.get_state()
        if own.keys() != state.keys():
            raise ValueError(f"{self.name}: expected {', '.join(own)}, got {', '.join(state)}")
        for name, value in state.items():
            if isinstance(value, list) != isinstance(own[name], list):
                raise TypeError(f"{self.name}: expected {name} to be like {own[name]!r:.100}, got {value!r:.100}")
            for number in value if isinstance(value, list) else [value]:
                checks.real(f"{self.name}: {name}", number)
        if len({len(value) for value in state.values() if isinstance(value, list)}) > 1:
            raise ValueError(f"{self.name}: expected lists of the same length, got different lengths")

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the state that `get_state` returned."""
        for name, value in state.items():
            setattr(self, name, np.array(value) if isinstance(value, list) else value)


class MeanOfRows(Metric):
    """A metric that is the mean over rows."""

    def reset_state(self) -> None:  # noqa: D102
        self._sum: float = 0.0
        self._count = 0

    def update(self, outputs: Array, targets: Array, result: LossResult) -> None:  # noqa: D102
        self._sum += self.total(outputs, targets, result)
        self._count += len(outputs)

    @abstractmethod
    def total(self, outputs: Array, targets: Array, result: LossResult) -> float:
        """Return the sum over these rows."""

    def result(self) -> float:  # noqa: D102
        return self._sum / self._count if self._count else float("nan")


class MeanMetricWrapper(MeanOfRows):
    """A function as a metric: the mean of its values over all rows. ``compile(metrics=[function])`` creates one.

    Parameters
    ----------
    fn : callable (y_true, y_pred)
        Receives y_true (M, ...) and y_pred (M, C) of float64, with one row per sample, or for outputs at each step one
        row per valid step. Returns one value per row (M,), or several values per row (M, ...), which are averaged.
    name : str, optional
        The name of the metric. By default the name of the function.
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
    """Return classes (M,): integer targets unchanged, otherwise the index of the largest target."""
    if targets.ndim == 2 and targets.shape[1] == 1 != outputs.shape[1]:
        targets = targets[:, 0]
    return targets.astype(np.int64, copy=False) if targets.ndim == 1 else targets.argmax(axis=1)
