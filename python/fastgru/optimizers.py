"""Optimizers: each updates a model's flat buffer of parameters in one pass, in Keras' words."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastgru import functional, schedules
from fastgru._support import checks, memory
from fastgru._support.representation import as_call
from fastgru.schedules import Schedule

Array = NDArray[Any]

ADAM_FORMS = ("keras", "tfjs", "pytorch")
FORMS = ("keras", "pytorch")


class Optimizer(ABC):
    """Moves parameters against their gradient.

    Parameters
    ----------
    learning_rate : float or Schedule
        Above 0. A number may be assigned at any time.
    global_clipnorm : float, optional
        Where the gradient of all parameters together is longer than this, it is shortened to it.
    clipvalue : float, optional
        Larger numbers of the gradient are cut to this size. Only one of the two may be given.

    Attributes
    ----------
    step : int
        Updates so far.
    states : dict of str to ndarray
        What is kept from update to update, as flat as the parameters; empty before the first.
    """

    #: Names of the states that are kept.
    state_names: tuple[str, ...] = ()
    #: Names of the arguments that `get_config` returns.
    arguments: ClassVar[tuple[str, ...]]

    def __init__(self, learning_rate: float | Schedule, global_clipnorm: float | None, clipvalue: float | None) -> None:
        self.learning_rate = learning_rate
        self.global_clipnorm = _positive("global_clipnorm", global_clipnorm)
        self.clipvalue = _positive("clipvalue", clipvalue)
        if self.global_clipnorm is not None and self.clipvalue is not None:
            raise ValueError("clipvalue: expected None because global_clipnorm is given, got both")
        self.step = 0
        self.states: dict[str, Array] = {}
        self._owner: weakref.ref[Any] | None = None

    def __repr__(self) -> str:
        return as_call(self)

    def belong_to(self, model: Any) -> None:
        """Serve that model from now on.

        Raises
        ------
        ValueError
            It serves another one, or has trained it: its moments are that one's.
        """
        owner = None if self._owner is None else self._owner()
        if owner is not model and (self.step or owner is not None):
            raise ValueError(
                "optimizer: expected one of the model's own, because it keeps a model's moments, got one that another "
                "model is compiled with or was trained by"
            )
        self._owner = weakref.ref(model)

    def leave(self) -> None:
        """Serve no model any more."""
        self._owner = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy is no model's."""
        return {**self.__dict__, "_owner": None}

    @property
    def learning_rate(self) -> float | Schedule:
        """The rate, or the schedule that it follows."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._learning_rate = schedules.get("learning_rate", value)

    @property
    def rate(self) -> float:
        """The rate of the next update."""
        rate = self._learning_rate
        return rate if isinstance(rate, float) else rate(self.step)

    def update(self, parameters: Array, gradient: Array, *, ranges: Sequence[slice] | None = None) -> None:
        """Move `parameters` (P,), in place, against `gradient` (P,).

        Parameters
        ----------
        parameters, gradient : ndarray (P,)
        ranges : sequence of slice, optional
            The parts of the arrays to update. The gradient must be 0 elsewhere. All parts if not given.

        Raises
        ------
        FloatingPointError
            The gradient is not finite, or parameters or states would not be finite after the update. Nothing has
            changed then.
        """
        scale = 1.0
        if self.global_clipnorm is not None:
            length = functional.norm(gradient)
            if length > self.global_clipnorm:
                scale = self.global_clipnorm / length
        if type(self) not in _KNOWN and not np.isfinite(gradient).all():  # the kernels look for themselves
            raise FloatingPointError("the gradient is not finite")
        first = not self.states
        if first:
            self.states = {name: memory.zeros(parameters.size, parameters.dtype) for name in self.state_names}
        try:
            if ranges is None:
                self._update(parameters, gradient, scale=scale, clip=self.clipvalue)
            else:
                self._update_ranges(parameters, gradient, ranges, scale=scale, clip=self.clipvalue)
        except Exception as error:
            if first:
                self.states = {}
            if isinstance(error, FloatingPointError):
                raise FloatingPointError(_describe_failure(gradient)) from None
            raise
        self.step += 1

    def _update_ranges(self, parameters: Array, gradient: Array, ranges: Sequence[slice], **prepare: Any) -> None:
        """Call `_update` for each range; after an error in one, the ranges before it are restored."""
        states = self.states
        arrays = (parameters, *states.values())
        done: list[tuple[Array, Array]] = []
        try:
            for place in ranges:
                if place is not ranges[-1]:
                    done += [(array[place], array[place].copy()) for array in arrays]
                self.states = {name: state[place] for name, state in states.items()}
                self._update(parameters[place], gradient[place], **prepare)
        except Exception:
            for array, before in done:
                array[...] = before
            raise
        finally:
            self.states = states

    @abstractmethod
    def _update(self, parameters: Array, gradient: Array, **prepare: Any) -> None:
        """One update, or a FloatingPointError before anything changes; `prepare` says how to scale and clip."""

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same optimizer again."""
        config = {name: getattr(self, name) for name in (*self.arguments, "global_clipnorm", "clipvalue")}
        rate = self._learning_rate
        return {"learning_rate": rate.get_config() if isinstance(rate, Schedule) else rate, **config}

    def get_state(self) -> tuple[int, dict[str, Array]]:
        """The number of updates, and the states by name."""
        return self.step, dict(self.states)

    def set_state(self, step: int, states: dict[str, Array]) -> None:
        """Go on from what `get_state` returned; the arrays are copied."""
        if states and set(states) != set(self.state_names):
            raise ValueError(f"states: expected {', '.join(self.state_names)}, got {', '.join(states)}")
        self.step = checks.integer("step", step, least=0)
        self.states = {name: checks.unmasked(name, states[name]).copy() for name in self.state_names if name in states}


def _describe_failure(gradient: Array) -> str:
    """Why an update was refused."""
    if not np.isfinite(gradient).all():
        return "the gradient is not finite"
    return f"the update would make weights or moments overflow {gradient.dtype}"


def _positive(name: str, value: float | None) -> float | None:
    return None if value is None else checks.number(name, value, above=0)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980).

    Parameters
    ----------
    learning_rate : float or Schedule
        Above 0.
    beta_1, beta_2 : float
        Decay of the moments, from 0 to below 1.
    epsilon : float
        At least 0.
    form : {"keras", "tfjs", "pytorch"}
        Whose arithmetic to follow; see `fastgru.functional.adam_update`. PyTorch's own epsilon is 1e-8.
    global_clipnorm, clipvalue : float, optional
        See `Optimizer`.
    """

    state_names = ("m", "v")
    arguments: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2", "epsilon", "form")
    weight_decay = 0.0

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        *,
        form: str = "keras",
        global_clipnorm: float | None = None,
        clipvalue: float | None = None,
    ) -> None:
        super().__init__(learning_rate, global_clipnorm, clipvalue)
        self.beta_1 = checks.number("beta_1", beta_1, least=0, below=1)
        self.beta_2 = checks.number("beta_2", beta_2, least=0, below=1)
        self.epsilon = checks.number("epsilon", epsilon, least=0)
        self.form = checks.choice("form", form, ADAM_FORMS)

    def _update(self, parameters: Array, gradient: Array, **prepare: Any) -> None:
        functional.adam_update(
            parameters,
            gradient,
            self.states["m"],
            self.states["v"],
            step=self.step + 1,
            learning_rate=self.rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            weight_decay=self.weight_decay,
            form=self.form,
            **prepare,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101), on all parameters.

    Parameters
    ----------
    learning_rate : float or Schedule
    weight_decay : float
        Before each update parameters lose this times the learning rate.
    beta_1, beta_2, epsilon, form, global_clipnorm, clipvalue
        As in `Adam`.
    """

    arguments: ClassVar[tuple[str, ...]] = ("weight_decay", *Adam.arguments)

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **more: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **more)
        self.weight_decay = checks.number("weight_decay", weight_decay, least=0)


class SGD(Optimizer):
    """Stochastic gradient descent.

    Parameters
    ----------
    learning_rate : float or Schedule
    momentum : float
        From 0 to below 1.
    nesterov : bool
        Whether to look ahead along the momentum.
    form : {"keras", "pytorch"}
        Whose arithmetic to follow; see `fastgru.functional.sgd_update`.
    global_clipnorm, clipvalue : float, optional
        See `Optimizer`.
    """

    arguments = ("momentum", "nesterov", "form")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        *,
        form: str = "keras",
        global_clipnorm: float | None = None,
        clipvalue: float | None = None,
    ) -> None:
        super().__init__(learning_rate, global_clipnorm, clipvalue)
        self.momentum = checks.number("momentum", momentum, least=0, below=1)
        self.nesterov = checks.flag("nesterov", nesterov)
        self.form = checks.choice("form", form, FORMS)
        self.state_names = ("m",) if self.momentum else ()

    def _update(self, parameters: Array, gradient: Array, **prepare: Any) -> None:
        functional.sgd_update(
            parameters,
            gradient,
            self.states.get("m"),
            learning_rate=self.rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            form=self.form,
            **prepare,
        )


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012).

    Parameters
    ----------
    learning_rate : float or Schedule
    rho : float
        Decay of the mean of squared gradients.
    momentum : float
        From 0 to below 1.
    epsilon : float
    centered : bool
        Divide by the variance instead of the mean square.
    form : {"keras", "pytorch"}
        Whose arithmetic to follow; see `fastgru.functional.rmsprop_update`. PyTorch's own rho ("alpha") is 0.99.
    global_clipnorm, clipvalue : float, optional
        See `Optimizer`.
    """

    arguments = ("rho", "momentum", "epsilon", "centered", "form")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        *,
        form: str = "keras",
        global_clipnorm: float | None = None,
        clipvalue: float | None = None,
    ) -> None:
        super().__init__(learning_rate, global_clipnorm, clipvalue)
        self.rho = checks.number("rho", rho, least=0, below=1)
        self.momentum = checks.number("momentum", momentum, least=0, below=1)
        self.epsilon = checks.number("epsilon", epsilon, least=0)
        self.centered = checks.flag("centered", centered)
        self.form = checks.choice("form", form, FORMS)
        self.state_names = ("v", *(("m",) if self.momentum else ()), *(("a",) if self.centered else ()))

    def _update(self, parameters: Array, gradient: Array, **prepare: Any) -> None:
        functional.rmsprop_update(
            parameters,
            gradient,
            self.states["v"],
            self.states.get("m"),
            self.states.get("a"),
            learning_rate=self.rate,
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
            centered=self.centered,
            form=self.form,
            **prepare,
        )


#: Name in a saved configuration -> class.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {cls.__name__: cls for cls in (Adam, AdamW, SGD, RMSprop)}
NAMES = {name.lower(): cls for name, cls in OPTIMIZERS.items()}
_KNOWN = frozenset(OPTIMIZERS.values())


def get(optimizer: str | Optimizer) -> Optimizer:
    """The optimizer of that name with its defaults, or the one given."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str) and optimizer.lower() in NAMES:
        return NAMES[optimizer.lower()]()
    names = ", ".join(map(repr, NAMES))
    raise ValueError(f"optimizer: expected one of {names}, or one of fastgru.optimizers, got {optimizer!r}")


def from_config(class_name: str, config: dict[str, Any]) -> Optimizer:
    """The optimizer of that class, made from what its ``get_config`` returned."""
    return OPTIMIZERS[class_name](**config)
