"""Learning rate schedules: functions of the number of updates."""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from fastgru._support import checks
from fastgru._support.elsewhere import missing
from fastgru._support.representation import as_call


class Schedule(ABC):
    """Base class of all learning rate schedules.

    For a custom schedule, derive from it and implement ``__call__(step)``, which returns the learning rate of the next
    update after `step` updates. A model compiled with a custom schedule can only be saved with
    ``include_optimizer=False``.

    Examples
    --------
    >>> class Halved(schedules.Schedule):
    ...     def __call__(self, step):
    ...         return 0.01 * 0.5 ** (step // 1000)
    >>> model.compile(optimizers.Adam(Halved()), loss="mse")
    """

    def __init__(self, **config: Any) -> None:
        self._config = config
        for name, value in config.items():
            setattr(self, name, value)

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate of the next update, after `step` updates."""

    def get_config(self) -> dict[str, Any]:
        """Return a configuration from which `get` creates the same schedule."""
        return {"class_name": type(self).__name__, "config": dict(self._config)}

    def __repr__(self) -> str:
        return as_call(self)


class Constant(Schedule):
    """A constant learning rate.

    Parameters
    ----------
    learning_rate : float
        The learning rate, above 0.
    """

    learning_rate: float

    def __init__(self, learning_rate: float) -> None:
        super().__init__(learning_rate=checks.number("learning_rate", learning_rate, above=0))

    def __call__(self, step: int) -> float:  # noqa: D102
        del step
        return self.learning_rate


class CosineDecay(Schedule):
    """Decay along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983), as Keras' ``CosineDecay``.

    Parameters
    ----------
    initial_learning_rate : float
        The learning rate of the first update. With `warmup_target` the warm-up starts from it, otherwise the decay.
    decay_steps : int
        The number of updates of the decay.
    alpha : float, default 0.0
        The final learning rate, as a fraction of the learning rate at the start of the decay.
    name : str
        Ignored.
    warmup_target : float, optional
        The learning rate at the end of a linear warm-up, where the decay starts.
    warmup_steps : int, default 0
        The number of updates of the warm-up.

    Examples
    --------
    >>> rate = schedules.CosineDecay(0.0, 10_000, warmup_target=0.003, warmup_steps=500)
    >>> model.compile(optimizers.Adam(rate), loss="mse")
    """

    initial_learning_rate: float
    decay_steps: int
    alpha: float
    warmup_target: float | None
    warmup_steps: int

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__(
            initial_learning_rate=checks.number("initial_learning_rate", initial_learning_rate, least=0),
            decay_steps=checks.integer("decay_steps", decay_steps, least=1),
            alpha=checks.number("alpha", alpha, least=0),
            warmup_target=None if warmup_target is None else checks.number("warmup_target", warmup_target, above=0),
            warmup_steps=checks.integer("warmup_steps", warmup_steps, least=0),
        )
        self.name = _name(name)

    def __call__(self, step: int) -> float:  # noqa: D102
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return (self.warmup_target - top) * step / self.warmup_steps + top
            step -= self.warmup_steps
            top = self.warmup_target
        done = min(step / self.decay_steps, 1.0)
        return top * ((1 - self.alpha) * 0.5 * (1 + math.cos(math.pi * done)) + self.alpha)


class CosineDecayRestarts(Schedule):
    """Cosine decay with restarts (Loshchilov and Hutter 2017, arXiv:1608.03983), as Keras' ``CosineDecayRestarts``.

    Parameters
    ----------
    initial_learning_rate : float
        The learning rate of the first update.
    first_decay_steps : int
        The number of updates before the first restart.
    t_mul : float, default 2.0
        The factor by which each period is longer than the previous one, at least 1.
    m_mul : float, default 1.0
        The factor of the initial learning rate of each period, relative to the previous period.
    alpha : float, default 0.0
        The minimum learning rate, as a fraction of the initial learning rate.
    name : str
        Ignored.
    """

    initial_learning_rate: float
    first_decay_steps: int
    t_mul: float
    m_mul: float
    alpha: float

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        super().__init__(
            initial_learning_rate=checks.number("initial_learning_rate", initial_learning_rate, above=0),
            first_decay_steps=checks.integer("first_decay_steps", first_decay_steps, least=1),
            t_mul=checks.number("t_mul", t_mul, least=1),
            m_mul=checks.number("m_mul", m_mul, above=0),
            alpha=checks.number("alpha", alpha, least=0),
        )
        self.name = _name(name)

    def __call__(self, step: int) -> float:  # noqa: D102
        done = step / self.first_decay_steps
        if self.t_mul == 1:
            restarts = math.floor(done)
            done -= restarts
        else:
            restarts = math.floor(math.log(1 - done * (1 - self.t_mul)) / math.log(self.t_mul))
            before = (1 - self.t_mul**restarts) / (1 - self.t_mul)
            done = (done - before) / self.t_mul**restarts
        cosine = 0.5 * self.m_mul**restarts * (1 + math.cos(math.pi * done))
        return float(self.initial_learning_rate * ((1 - self.alpha) * cosine + self.alpha))


class OneCycle(Schedule):
    """One cycle: increase the learning rate to a maximum, then decrease it to a small value.

    See Smith and Topin 2018, arXiv:1708.07120. Both parts follow half a cosine, as PyTorch's ``OneCycleLR`` does by
    default. The momentum does not change.

    Parameters
    ----------
    max_learning_rate : float
        The maximum learning rate.
    total_steps : int
        The number of updates of the cycle. After it, the learning rate is constant.
    pct_start : float, default 0.3
        The fraction of the updates in which the learning rate increases.
    div_factor : float, default 25.0
        The initial learning rate is ``max_learning_rate / div_factor``.
    final_div_factor : float, default 1e4
        The final learning rate is the initial one divided by `final_div_factor`.
    """

    max_learning_rate: float
    total_steps: int
    pct_start: float
    div_factor: float
    final_div_factor: float

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        super().__init__(
            max_learning_rate=checks.number("max_learning_rate", max_learning_rate, above=0),
            total_steps=checks.integer("total_steps", total_steps, least=1),
            pct_start=checks.number("pct_start", pct_start, least=0),
            div_factor=checks.number("div_factor", div_factor, above=0),
            final_div_factor=checks.number("final_div_factor", final_div_factor, above=0),
        )
        if self.pct_start > 1:
            raise ValueError(f"pct_start: expected a number from 0 to 1, got {pct_start!r}")

    def __call__(self, step: int) -> float:  # noqa: D102
        first = self.max_learning_rate / self.div_factor
        last = first / self.final_div_factor
        step = min(step, self.total_steps - 1)
        top = self.pct_start * self.total_steps - 1
        if step <= top:
            return _cosine(first, self.max_learning_rate, step / top if top > 0 else 1.0)
        return _cosine(self.max_learning_rate, last, (step - top) / (self.total_steps - 1 - top))


def _cosine(begin: float, end: float, done: float) -> float:
    return end + (begin - end) / 2 * (1 + math.cos(math.pi * done))


class _Staircase(Schedule):
    """A decay that depends on ``step / decay_steps``, optionally rounded down."""

    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool, name: str
    ) -> None:
        super().__init__(
            initial_learning_rate=checks.number("initial_learning_rate", initial_learning_rate, above=0),
            decay_steps=checks.integer("decay_steps", decay_steps, least=1),
            decay_rate=checks.number("decay_rate", decay_rate, above=0),
            staircase=checks.flag("staircase", staircase),
        )
        self.name = _name(name)

    def _done(self, step: int) -> float:
        return step // self.decay_steps if self.staircase else step / self.decay_steps


class ExponentialDecay(_Staircase):
    """Exponential decay: ``initial_learning_rate * decay_rate ** (step / decay_steps)``, as in Keras.

    Parameters
    ----------
    initial_learning_rate : float
        The learning rate of the first update.
    decay_steps : int
        The number of updates in which the learning rate is multiplied by `decay_rate` once.
    decay_rate : float
        The factor of the learning rate.
    staircase : bool, default False
        Whether to round ``step / decay_steps`` down.
    name : str
        Ignored.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, decay_rate, staircase, name)

    def __call__(self, step: int) -> float:  # noqa: D102
        return self.initial_learning_rate * float(self.decay_rate ** self._done(step))


class InverseTimeDecay(_Staircase):
    """Inverse time decay: ``initial_learning_rate / (1 + decay_rate * step / decay_steps)``, as in Keras.

    Parameters
    ----------
    initial_learning_rate, decay_steps, decay_rate, staircase, name
        As in `ExponentialDecay`.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, decay_rate, staircase, name)

    def __call__(self, step: int) -> float:  # noqa: D102
        return self.initial_learning_rate / (1 + self.decay_rate * self._done(step))


class PiecewiseConstantDecay(Schedule):
    """Constant learning rates between boundaries, as Keras' ``PiecewiseConstantDecay``.

    Parameters
    ----------
    boundaries : list of int
        Numbers of updates, in increasing order. ``values[i]`` is used up to and including step ``boundaries[i]``.
    values : list of float
        The learning rates, one more than `boundaries`.
    name : str
        Ignored.
    """

    boundaries: list[float]
    values: list[float]

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        for argument, given in (("boundaries", boundaries), ("values", values)):
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise TypeError(f"{argument}: expected a list of numbers, got {given!r}")
        super().__init__(
            boundaries=[checks.number("boundaries", boundary, least=0) for boundary in boundaries],
            values=[checks.number("values", value, above=0) for value in values],
        )
        self.name = _name(name)
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"values: expected {len(boundaries) + 1} rates because there are {len(boundaries)} boundaries, got "
                f"{len(values)}"
            )
        if any(high <= low for low, high in pairwise(self.boundaries)):
            raise ValueError(f"boundaries: expected increasing numbers, got {list(boundaries)}")

    def __call__(self, step: int) -> float:  # noqa: D102
        return self.values[bisect.bisect_left(self.boundaries, step)]


class PolynomialDecay(Schedule):
    """Polynomial decay to `end_learning_rate`, as Keras' ``PolynomialDecay``.

    Parameters
    ----------
    initial_learning_rate : float
        The learning rate of the first update.
    decay_steps : int
        The number of updates of the decay.
    end_learning_rate : float, default 0.0001
        The final learning rate.
    power : float, default 1.0
        The exponent; 1 is a linear decay.
    cycle : bool, default False
        Whether to extend the decay to the next multiple of `decay_steps` each time it ends, instead of keeping the
        final learning rate.
    name : str
        Ignored.
    """

    initial_learning_rate: float
    decay_steps: int
    end_learning_rate: float
    power: float
    cycle: bool

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        super().__init__(
            initial_learning_rate=checks.number("initial_learning_rate", initial_learning_rate, above=0),
            decay_steps=checks.integer("decay_steps", decay_steps, least=1),
            end_learning_rate=checks.number("end_learning_rate", end_learning_rate, least=0),
            power=checks.number("power", power, above=0),
            cycle=checks.flag("cycle", cycle),
        )
        self.name = _name(name)

    def __call__(self, step: int) -> float:  # noqa: D102
        steps = self.decay_steps
        if self.cycle:
            steps *= max(math.ceil(step / self.decay_steps), 1)
        left = 1 - min(step / steps, 1.0)
        return float((self.initial_learning_rate - self.end_learning_rate) * left**self.power + self.end_learning_rate)


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {name!r}; pass the arguments after it by keyword")
    return name


#: Keras' name for the base class.
LearningRateSchedule = Schedule

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    cls.__name__: cls
    for cls in (
        Constant,
        CosineDecay,
        CosineDecayRestarts,
        OneCycle,
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
    )
}


def get(name: str, value: Any) -> float | Schedule:
    """Check a learning rate: return a number or a schedule, which is created if `value` is a configuration."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, Mapping):
        return SCHEDULES[checks.choice(name, value.get("class_name"), SCHEDULES)](**value.get("config", {}))
    return checks.number(name, value, above=0)


#: Names in Keras and PyTorch that this module does not have -> what to use instead.
_ELSEWHERE = {
    "CosineAnnealingLR": "use schedules.CosineDecay",
    "CosineAnnealingWarmRestarts": "use schedules.CosineDecayRestarts",
    "ExponentialLR": "use schedules.ExponentialDecay",
    "LambdaLR": "derive a class from schedules.Schedule",
    "LinearLR": "use schedules.PolynomialDecay",
    "MultiStepLR": "use schedules.PiecewiseConstantDecay",
    "OneCycleLR": "use schedules.OneCycle",
    "ReduceLROnPlateau": "use callbacks.ReduceLROnPlateau",
    "StepLR": "use schedules.ExponentialDecay with staircase=True",
    "serialize": "use schedule.get_config()",
    "deserialize": "pass the configuration as learning_rate",
}


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, _ELSEWHERE)
