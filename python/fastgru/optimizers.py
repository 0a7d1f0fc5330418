"""Optimizers with Keras' arguments and defaults. An update changes a model's flat parameter buffer in one pass."""

from __future__ import annotations

import re
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fastgru import functional, schedules
from fastgru._support import checks, memory
from fastgru._support.elsewhere import missing
from fastgru._support.representation import as_call
from fastgru.schedules import Schedule

Array = NDArray[Any]

_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
#: Keras' arguments that are not supported -> (accepted values, remedy for all others).
_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_ema": ((False,), "average the weights in a callback, with get_weights()"),
    "loss_scale_factor": ((None,), "leave it out, because float32 gradients need no scaling"),
    "gradient_accumulation_steps": ((None, 1), "pass a larger batch_size to fit, which splits large batches itself"),
}
ADAM_FORMS = ("keras", "tfjs", "pytorch")
FORMS = ("keras", "pytorch")


class Optimizer(ABC):
    """Base class of all optimizers. The parameters have Keras' names, order and defaults.

    Parameters
    ----------
    learning_rate : float or Schedule
        The learning rate, above 0. A number can be assigned to the attribute at any time.
    weight_decay : float, optional
        Decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101): each update first subtracts
        ``learning_rate * weight_decay * parameter`` from every parameter. See `exclude_from_weight_decay`.
    clipnorm : float, optional
        The maximum norm of the gradient of each weight. A gradient with a larger norm is scaled to this norm.
    clipvalue : float, optional
        The maximum absolute value of each element of the gradient. Other elements are clipped to it.
    global_clipnorm : float, optional
        The maximum norm of the gradient of all weights together. At most one of `clipnorm`, `clipvalue` and
        `global_clipnorm` can be given.
    use_ema, ema_momentum, ema_overwrite_frequency, loss_scale_factor, gradient_accumulation_steps
        Not supported: must have their default values.
    name : str, optional
        Ignored.

    Attributes
    ----------
    step : int
        The number of updates so far; Keras' `iterations`.
    states : dict of str to ndarray
        The optimizer state, such as moments, in arrays with the shape of the parameters. Empty before the first update.
    """

    #: Names of the arrays in `states`.
    state_names: tuple[str, ...] = ()
    #: Names of the arguments that only this class has, for `get_config`.
    arguments: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        learning_rate: float | Schedule,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.weight_decay: float | None = None
        if weight_decay is not None:
            self.weight_decay = checks.number("weight_decay", weight_decay, least=0) or None  # 0 has no effect
        self.clipnorm = _positive("clipnorm", clipnorm)
        self.clipvalue = _positive("clipvalue", clipvalue)
        self.global_clipnorm = _positive("global_clipnorm", global_clipnorm)
        given = [name for name in _CLIPS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[1]}: expected None because {given[0]} is given, got both; pass one of them")
        self.use_ema, self.ema_momentum = use_ema, ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor, self.gradient_accumulation_steps = loss_scale_factor, gradient_accumulation_steps
        for option, (neutral, remedy) in _UNSUPPORTED.items():
            if getattr(self, option) not in neutral:
                raise ValueError(
                    f"{option}: expected {neutral[0]!r} because fastgru does not support it, got "
                    f"{getattr(self, option)!r}; {remedy}"
                )
        self.name = name
        self.step = 0
        self.states: dict[str, Array] = {}
        self._not_decayed: list[str] = []
        self._owner: weakref.ref[Any] | None = None

    def __repr__(self) -> str:
        return as_call(self)

    def belong_to(self, model: Any) -> None:
        """Assign the optimizer to `model`.

        Raises
        ------
        ValueError
            The optimizer belongs to another model, or contains the optimizer state of another model.
        """
        owner = None if self._owner is None else self._owner()
        if owner is not model and (self.step or owner is not None):
            raise ValueError(
                "optimizer: expected an optimizer of no other model because it stores the moments of one model, got "
                "one that another model is compiled with or was trained with; create a new one"
            )
        self._owner = weakref.ref(model)

    def leave(self) -> None:
        """Release the optimizer from its model."""
        self._owner = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which belongs to no model."""
        return {**self.__dict__, "_owner": None}

    @property
    def learning_rate(self) -> float | Schedule:
        """The learning rate, or its schedule."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._learning_rate = schedules.get("learning_rate", value)

    @property
    def rate(self) -> float:
        """The learning rate of the next update, a number."""
        rate = self._learning_rate
        return rate if isinstance(rate, float) else rate(self.step)

    @property
    def iterations(self) -> int:
        """The number of updates so far. The same as `step`; Keras' name."""
        return self.step

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Iterable[str] | None = None) -> None:
        """Exclude weights from weight decay.

        Parameters
        ----------
        var_list
            Not supported: must be None. Pass `var_names`.
        var_names : iterable of str
            Regular expressions, as in Keras. A weight is excluded if one of them matches a part of its name, such as
            ``recurrent_kernel``, or of its path, such as ``gru/recurrent_kernel``. ``["bias"]`` excludes all biases.
        """
        if var_list:
            raise TypeError("var_list: expected None because weights are selected by name; pass var_names=['bias']")
        if self.step:
            raise ValueError(
                f"exclude_from_weight_decay: expected a call before the first update, got one after {self.step} "
                f"updates; call it before fit"
            )
        if isinstance(var_names, str):
            raise TypeError(f"var_names: expected a list of names, got {var_names!r}; pass [{var_names!r}]")
        names = list(var_names or ())
        if not all(isinstance(name, str) and name for name in names):
            raise TypeError(f"var_names: expected a list of names, got {names!r}")
        for name in names:
            try:
                re.compile(name)
            except re.error as error:
                raise ValueError(
                    f"var_names: expected regular expressions, got {name!r}: {error}; escape it with re.escape"
                ) from None
        self._not_decayed = names

    def update(
        self,
        parameters: Array,
        gradient: Array,
        *,
        ranges: Sequence[slice] | None = None,
        views: Callable[[Array], Mapping[str, Array]] | None = None,
    ) -> None:
        """Update `parameters` (P,) in place from `gradient` (P,). Clipping changes `gradient` in place.

        Parameters
        ----------
        parameters, gradient : ndarray (P,)
        ranges : sequence of slice, optional
            The parts of the arrays to update; all if not given. The gradient must be 0 elsewhere.
        views : callable, optional
            Called with an array (P,), returns the views of the trainable weights by name. `clipnorm` and
            `exclude_from_weight_decay` need it. If not given, the array is treated as one weight.

        Raises
        ------
        FloatingPointError
            The gradient is not finite, or parameters or states would not be finite after the update. Parameters and
            states do not change.
        """
        views = views or (lambda flat: {"parameters": flat})
        scale = 1.0
        if self.clipnorm is not None:
            for part in views(gradient).values():
                _shorten(part, self.clipnorm)
        elif self.global_clipnorm is not None:
            length = functional.norm(gradient)
            if length > self.global_clipnorm:
                scale = self.global_clipnorm / length
        if (
            type(self) not in _KNOWN and not np.isfinite(gradient).all()
        ):  # the kernels of built-in optimizers check this themselves
            raise FloatingPointError("the gradient is not finite")
        first = not self.states
        if first:
            self.states = {name: memory.zeros(parameters.size, parameters.dtype) for name in self.state_names}
        decay, before = self.weight_decay or 0.0, None
        try:
            if decay and self._not_decayed:
                before = parameters.copy()
                self._decay(views(parameters), decay)
                decay = 0.0
            prepare = {"scale": scale, "clip": self.clipvalue, "weight_decay": decay}
            if ranges is None:
                self._update(parameters, gradient, **prepare)
            else:
                self._update_ranges(parameters, gradient, ranges, **prepare)
        except Exception as error:
            if before is not None:
                parameters[...] = before
            if first:
                self.states = {}
            if isinstance(error, FloatingPointError):
                raise FloatingPointError(_describe_failure(gradient)) from None
            raise
        self.step += 1

    def _decay(self, parts: Mapping[str, Array], decay: float) -> None:
        """Apply weight decay to weights that are not excluded. Without exclusions, the kernel applies it."""
        for name, part in parts.items():
            own_name = name.rpartition("/")[2]
            if not any(re.search(word, own_name) or re.search(word, name) for word in self._not_decayed):
                part *= part.dtype.type(1 - self.rate * decay)

    def _update_ranges(self, parameters: Array, gradient: Array, ranges: Sequence[slice], **prepare: Any) -> None:
        """Call `_update` for each range. After an error, restore the previous ranges."""
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
        """Do one update, or raise FloatingPointError before any change.

        `prepare` contains the options ``scale``, ``clip`` and ``weight_decay`` of the functions in
        `fastgru.functional`.
        """

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, from which `from_config` creates the same optimizer."""
        config = {name: getattr(self, name) for name in (*self.arguments, "weight_decay", *_CLIPS)}
        rate = self._learning_rate
        config = {"learning_rate": rate.get_config() if isinstance(rate, Schedule) else rate, **config}
        return config | ({"exclude_from_weight_decay": list(self._not_decayed)} if self._not_decayed else {})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create an optimizer of this class from a configuration that `get_config` returned."""
        options = dict(config)
        excluded = options.pop("exclude_from_weight_decay", [])
        optimizer = cls(**options)
        optimizer.exclude_from_weight_decay(var_names=excluded)
        return optimizer

    def get_state(self) -> tuple[int, dict[str, Array]]:
        """Return the number of updates, and the states by name. The arrays are not copied."""
        return self.step, dict(self.states)

    def set_state(self, step: int, states: dict[str, Array]) -> None:
        """Restore the state that `get_state` returned. The arrays are copied."""
        if states and set(states) != set(self.state_names):
            raise ValueError(f"states: expected {', '.join(self.state_names)}, got {', '.join(states)}")
        self.step = checks.integer("step", step, least=0)
        self.states = {name: checks.unmasked(name, states[name]).copy() for name in self.state_names if name in states}


def _describe_failure(gradient: Array) -> str:
    """Return why an update failed."""
    if not np.isfinite(gradient).all():
        return "the gradient is not finite"
    return f"the update would make weights or moments overflow in {gradient.dtype}"


def _shorten(gradient: Array, length: float) -> None:
    """Scale a gradient in place to norm `length` if its norm is larger."""
    norm = functional.norm(np.ravel(gradient))
    if norm > length:
        gradient *= gradient.dtype.type(length / norm)


def _positive(name: str, value: float | None) -> float | None:
    return None if value is None else checks.number(name, value, above=0)


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980).

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.001
        The learning rate, above 0.
    beta_1, beta_2 : float, default 0.9 and 0.999
        The decay rates of the first and the second moment, from 0 to below 1.
    epsilon : float, default 1e-7
        A number added to the denominator, at least 0.
    amsgrad : bool, default False
        Whether to use AMSGrad, which divides by the largest second moment so far (Reddi et al. 2018,
        arXiv:1904.09237).
    weight_decay, clipnorm, clipvalue, global_clipnorm, ...
        As in `Optimizer`.
    form : {"keras", "tfjs", "pytorch"}
        The framework whose formula is computed; see `fastgru.functional.adam_update`. PyTorch's default epsilon is
        1e-8.

    Examples
    --------
    >>> model.compile(optimizers.Adam(learning_rate=0.003, clipnorm=1.0), loss="mse")
    """

    arguments: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2", "epsilon", "amsgrad", "form")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        form: str = "keras",
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            use_ema,
            ema_momentum,
            ema_overwrite_frequency,
            loss_scale_factor,
            gradient_accumulation_steps,
            name,
        )
        self.beta_1 = checks.number("beta_1", beta_1, least=0, below=1)
        self.beta_2 = checks.number("beta_2", beta_2, least=0, below=1)
        self.epsilon = checks.number("epsilon", epsilon, least=0)
        self.amsgrad = checks.flag("amsgrad", amsgrad)
        self.form = checks.choice("form", form, ADAM_FORMS)
        if self.amsgrad and self.form == "tfjs":
            raise ValueError("amsgrad: expected False because form='tfjs' has no AMSGrad, got True; pass form='keras'")
        self.state_names = ("m", "v", "v_max") if self.amsgrad else ("m", "v")

    def _update(self, parameters: Array, gradient: Array, **prepare: Any) -> None:
        functional.adam_update(
            parameters,
            gradient,
            self.states["m"],
            self.states["v"],
            self.states.get("v_max"),
            step=self.step + 1,
            learning_rate=self.rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            amsgrad=self.amsgrad,
            form=self.form,
            **prepare,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101).

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.001
        The learning rate, above 0.
    weight_decay : float, default 0.004
        As in `Optimizer`. It applies to all weights that `exclude_from_weight_decay` does not exclude.
    beta_1, beta_2, epsilon, amsgrad, form
        As in `Adam`.
    clipnorm, clipvalue, global_clipnorm, ...
        As in `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        form: str = "keras",
    ) -> None:
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            use_ema,
            ema_momentum,
            ema_overwrite_frequency,
            loss_scale_factor,
            gradient_accumulation_steps,
            name,
            form=form,
        )
        self.weight_decay = checks.number("weight_decay", weight_decay, least=0)


class SGD(Optimizer):
    """Stochastic gradient descent.

    Parameters
    ----------
    learning_rate : float or Schedule, default 0.01
        The learning rate, above 0.
    momentum : float, default 0.0
        The momentum, from 0 to below 1.
    nesterov : bool, default False
        Whether to use Nesterov momentum.
    weight_decay, clipnorm, clipvalue, global_clipnorm, ...
        As in `Optimizer`.
    form : {"keras", "pytorch"}
        The framework whose formula is computed; see `fastgru.functional.sgd_update`. Weight decay is that of Keras in
        both.
    """

    arguments = ("momentum", "nesterov", "form")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        form: str = "keras",
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            use_ema,
            ema_momentum,
            ema_overwrite_frequency,
            loss_scale_factor,
            gradient_accumulation_steps,
            name,
        )
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
    learning_rate : float or Schedule, default 0.001
        The learning rate, above 0.
    rho : float, default 0.9
        The decay rate of the mean of squared gradients.
    momentum : float, default 0.0
        The momentum, from 0 to below 1.
    epsilon : float, default 1e-7
        A number added to the denominator.
    centered : bool, default False
        Whether to divide by the estimated variance of the gradient instead of its mean square.
    weight_decay, clipnorm, clipvalue, global_clipnorm, ...
        As in `Optimizer`.
    form : {"keras", "pytorch"}
        The framework whose formula is computed; see `fastgru.functional.rmsprop_update`. PyTorch's default of rho,
        which it calls alpha, is 0.99. Weight decay is that of Keras in both.
    """

    arguments = ("rho", "momentum", "epsilon", "centered", "form")

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        *,
        form: str = "keras",
    ) -> None:
        super().__init__(
            learning_rate,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            use_ema,
            ema_momentum,
            ema_overwrite_frequency,
            loss_scale_factor,
            gradient_accumulation_steps,
            name,
        )
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
OPTIMIZERS: dict[str, type[Optimizer]] = {cls.__name__: cls for cls in (Adam, AdamW, SGD, RMSprop)}
NAMES = {name.lower(): cls for name, cls in OPTIMIZERS.items()}
_KNOWN = frozenset(OPTIMIZERS.values())


def get(identifier: Any) -> Optimizer:
    """Return the optimizer for an identifier.

    Parameters
    ----------
    identifier : str, dict or Optimizer
        A name ("adam" or "Adam", in any case) of an optimizer with default options; a dict with ``class_name`` and
        ``config``; or an Optimizer, which is returned without copying.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        No optimizer has that name.
    """
    if isinstance(identifier, Optimizer):
        return identifier
    name, config = identifier, {}
    if isinstance(identifier, Mapping) and isinstance(identifier.get("config"), Mapping):
        name, config = identifier.get("class_name"), identifier["config"]
    if isinstance(name, str) and name.lower() in NAMES:
        return NAMES[name.lower()].from_config(config)
    hint = f"; {_ELSEWHERE[name]}" if isinstance(name, str) and name in _ELSEWHERE else ""
    names = ", ".join(map(repr, NAMES))
    raise ValueError(f"optimizer: expected one of {names}, or one of fastgru.optimizers, got {identifier!r}{hint}")


def from_config(class_name: str, config: dict[str, Any]) -> Optimizer:
    """Create an optimizer of the class named `class_name` from a configuration that `get_config` returned."""
    return OPTIMIZERS[class_name].from_config(config)


_ADAM_LIKE = "use optimizers.Adam or optimizers.AdamW"
#: Names in Keras and PyTorch that this module does not have -> what to use instead.
_ELSEWHERE = {
    **dict.fromkeys(("Adamax", "Nadam", "NAdam", "RAdam", "Lamb", "Lion", "Muon", "ScheduleFreeAdamW"), _ADAM_LIKE),
    **dict.fromkeys(("Adagrad", "Adadelta", "Adafactor", "Ftrl"), "use optimizers.RMSprop or optimizers.Adam"),
    **dict.fromkeys(("LBFGS", "ASGD", "Rprop"), "use optimizers.Adam or optimizers.SGD"),
    "LossScaleOptimizer": "use the optimizer itself, because float32 gradients need no scaling",
    "MultiOptimizer": "use one optimizer for all layers",
    "RMSProp": "use optimizers.RMSprop",
    "legacy": "use the optimizers themselves",
    "lr_scheduler": "use optimizers.schedules, or the callbacks LearningRateScheduler and ReduceLROnPlateau",
    "serialize": "use optimizer.get_config()",
    "deserialize": "use optimizers.get({'class_name': ..., 'config': ...})",
}


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, _ELSEWHERE)
