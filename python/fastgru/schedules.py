"""Learning rate schedules: functions of the number of updates done so far."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from fastgru._support import checks
from fastgru._support.representation import as_call


class Schedule(ABC):
    """A learning rate schedule."""

    def __init__(self, **config: Any) -> None:
        self._config = config
        for name, value in config.items():
            setattr(self, name, value)

    @abstractmethod
    def __call__(self, step: int) -> float:
        """Return the learning rate of the next update, after `step` updates."""

    def get_config(self) -> dict[str, Any]:
        """Return the configuration from which `get` makes the same schedule."""
        return {"class_name": type(self).__name__, "config": dict(self._config)}

    def __repr__(self) -> str:
        return as_call(self)


class Constant(Schedule):
    """A constant learning rate."""

    learning_rate: float

    def __init__(self, learning_rate: float) -> None:
        super().__init__(learning_rate=checks.number("learning_rate", learning_rate, above=0))

    def __call__(self, step: int) -> float:  # noqa: D102
        del step
        return self.learning_rate


class CosineDecay(Schedule):
    """Decay along half a cosine (Loshchilov and Hutter 2017, arXiv:1608.03983), like Keras' ``CosineDecay``.

    Parameters
    ----------
    initial_learning_rate : float
        Learning rate at the start: of the decay, or of the warm-up if `warmup_target` is given.
    decay_steps : int
        Number of updates of the decay.
    alpha : float
        Final learning rate, as a fraction of the rate at the start of the decay.
    warmup_target : float, optional
        Learning rate at the end of a linear warm-up, where the decay starts.
    warmup_steps : int
        Number of updates of the warm-up.
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

    def __call__(self, step: int) -> float:  # noqa: D102
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return (self.warmup_target - top) * step / self.warmup_steps + top
            step -= self.warmup_steps
            top = self.warmup_target
        done = min(step / self.decay_steps, 1.0)
        return top * ((1 - self.alpha) * 0.5 * (1 + math.cos(math.pi * done)) + self.alpha)


class OneCycle(Schedule):
    """Increase the rate to a maximum, then decrease it far below its start (Smith and Topin 2018, arXiv:1708.07120).

    Both parts follow half a cosine, like PyTorch's ``OneCycleLR`` by default. The momentum is not changed.

    Parameters
    ----------
    max_learning_rate : float
    total_steps : int
        Number of updates of the cycle; the final rate is used after it.
    pct_start : float
        Fraction of the updates in which the rate increases.
    div_factor : float
        The initial rate is ``max_learning_rate / div_factor``.
    final_div_factor : float
        The final rate is the initial rate divided by this factor.
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


class ExponentialDecay(Schedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``, like Keras' ``ExponentialDecay``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
    decay_rate : float
    staircase : bool
        Whether to round ``step / decay_steps`` down.
    """

    initial_learning_rate: float
    decay_steps: int
    decay_rate: float
    staircase: bool

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
    ) -> None:
        super().__init__(
            initial_learning_rate=checks.number("initial_learning_rate", initial_learning_rate, above=0),
            decay_steps=checks.integer("decay_steps", decay_steps, least=1),
            decay_rate=checks.number("decay_rate", decay_rate, above=0),
            staircase=checks.flag("staircase", staircase),
        )

    def __call__(self, step: int) -> float:  # noqa: D102
        done = step // self.decay_steps if self.staircase else step / self.decay_steps
        return self.initial_learning_rate * float(self.decay_rate**done)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    cls.__name__: cls for cls in (Constant, CosineDecay, OneCycle, ExponentialDecay)
}


def get(name: str, value: Any) -> float | Schedule:
    """Return the learning rate of an argument: a number, a schedule, or a schedule's configuration."""
    if isinstance(value, Schedule):
        return value
    if isinstance(value, Mapping):
        return SCHEDULES[checks.choice(name, value.get("class_name"), SCHEDULES)](**value.get("config", {}))
    return checks.number(name, value, above=0)
