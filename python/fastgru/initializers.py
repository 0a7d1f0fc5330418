"""Initializers with Keras' names, arguments, defaults and distributions.

An initializer is called with a shape and returns an array of float64. As in Keras, fan_in is the size of the first axis
and fan_out that of the last axis: 3H for the kernel (F, 3H) of a GRU. Layers accept an initializer, its name, or a
function ``(shape, dtype) -> array``.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.elsewhere import missing
from fastgru._support.representation import as_call

Array = NDArray[Any]
Shape = tuple[int, ...]

#: Standard deviation of a standard normal truncated at +-2. Keras divides by it.
TRUNCATED_STDDEV = 0.87962566103423978


class Initializer(ABC):
    """Base class of all initializers. For a custom initializer, derive from it and implement ``__call__``.

    Examples
    --------
    >>> import numpy as np
    >>> from fastgru import initializers, layers
    >>> class Alternating(initializers.Initializer):
    ...     def __call__(self, shape, dtype=None):
    ...         return np.where(np.indices(shape).sum(axis=0) % 2, -0.1, 0.1)
    >>> layer = layers.GRU(4, kernel_initializer=Alternating())
    """

    #: Names of the arguments that `get_config` returns.
    arguments: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        return as_call(self)

    @abstractmethod
    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Return weights of `shape`."""

    def draw(self, rng: np.random.Generator, shape: Shape) -> Array:
        """Return weights for a layer of a model with the random generator `rng`."""
        del rng
        return np.asarray(self(shape, dtype=None))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, from which `from_config` creates the same initializer."""
        return {name: getattr(self, name) for name in self.arguments}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Create an initializer of this class from a configuration that `get_config` returned."""
        return cls(**config)


class _Fixed(Initializer):
    """An initializer without random numbers."""

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        values = self.values(tuple(shape))
        return values if dtype is None else values.astype(dtype)

    @abstractmethod
    def values(self, shape: Shape) -> Array:
        """Return weights of `shape`."""


class _Random(Initializer):
    """A random initializer: with a seed it returns the same weights each time, else it uses the model's generator."""

    seed: int | None = None

    def _set_seed(self, seed: Any) -> None:
        self.seed = None if seed is None else checks.integer("seed", seed, least=0)

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        values = self.sample(np.random.default_rng(self.seed), tuple(shape))
        return values if dtype is None else values.astype(dtype)

    def draw(self, rng: np.random.Generator, shape: Shape) -> Array:
        return self.sample(rng if self.seed is None else np.random.default_rng(self.seed), shape)

    @abstractmethod
    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:
        """Return weights of `shape`, drawn from `rng`."""


class Zeros(_Fixed):
    """Zeros."""

    def values(self, shape: Shape) -> Array:  # noqa: D102
        return np.zeros(shape)


class Ones(_Fixed):
    """Ones."""

    def values(self, shape: Shape) -> Array:  # noqa: D102
        return np.ones(shape)


class Constant(_Fixed):
    """A constant.

    Parameters
    ----------
    value : float, default 0.0
        The value of all elements.
    """

    arguments = ("value",)

    def __init__(self, value: float = 0.0) -> None:
        self.value = checks.number("value", value)

    def values(self, shape: Shape) -> Array:  # noqa: D102
        return np.full(shape, self.value)


class Identity(_Fixed):
    """The identity matrix times `gain`.

    Parameters
    ----------
    gain : float, default 1.0
        The value of the diagonal.
    """

    arguments = ("gain",)

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = checks.number("gain", gain)

    def values(self, shape: Shape) -> Array:  # noqa: D102
        rows, columns = _matrix("identity", shape)
        return np.asarray(self.gain * np.eye(rows, columns))


class RandomUniform(_Random):
    """Uniform distribution.

    Parameters
    ----------
    minval, maxval : float, default -0.05 and 0.05
        The bounds.
    seed : int, optional
        As in `VarianceScaling`.
    """

    arguments = ("minval", "maxval", "seed")

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        self.minval, self.maxval = checks.number("minval", minval), checks.number("maxval", maxval)
        self._set_seed(seed)
        if self.maxval < self.minval:
            raise ValueError(f"maxval: expected at least minval, {self.minval:g}, got {self.maxval:g}")

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:  # noqa: D102
        return rng.uniform(self.minval, self.maxval, shape)


class _Normal(_Random):
    """Base class of normal distributions."""

    arguments = ("mean", "stddev", "seed")

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean, self.stddev = checks.number("mean", mean), checks.number("stddev", stddev, least=0)
        self._set_seed(seed)


class RandomNormal(_Normal):
    """Normal distribution.

    Parameters
    ----------
    mean, stddev : float, default 0.0 and 0.05
        The mean and the standard deviation.
    seed : int, optional
        As in `VarianceScaling`.
    """

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:  # noqa: D102
        return rng.standard_normal(shape) * self.stddev + self.mean


class TruncatedNormal(_Normal):
    """Truncated normal distribution: numbers more than two standard deviations from the mean are drawn again.

    Parameters
    ----------
    mean, stddev : float, default 0.0 and 0.05
        The mean and the standard deviation, before truncation.
    seed : int, optional
        As in `VarianceScaling`.
    """

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:  # noqa: D102
        return _truncated(rng, shape) * self.stddev + self.mean


class VarianceScaling(_Random):
    """A distribution with the variance ``scale / n``, where n is the number of inputs or outputs of the weight.

    Parameters
    ----------
    scale : float, default 1.0
        The scale of the variance, above 0.
    mode : {"fan_in", "fan_out", "fan_avg"}
        Whether n is the number of inputs, the number of outputs, or their mean.
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
        The distribution.
    seed : int, optional
        With a seed, each call returns the same array. Otherwise the model's generator is used, which
        `fastgru.utils.set_random_seed` seeds.
    input_axes, output_axes
        Not supported: must be None.
    """

    arguments: ClassVar[tuple[str, ...]] = ("scale", "mode", "distribution", "seed")

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: None = None,
        output_axes: None = None,
    ) -> None:
        self.scale = checks.number("scale", scale, above=0)
        self.mode = checks.choice("mode", mode, ("fan_in", "fan_out", "fan_avg"))
        distribution = "truncated_normal" if distribution == "normal" else distribution
        self.distribution = checks.choice(
            "distribution", distribution, ("truncated_normal", "untruncated_normal", "uniform")
        )
        self._set_seed(seed)
        for name, axes in (("input_axes", input_axes), ("output_axes", output_axes)):
            if axes is not None:
                raise ValueError(f"{name}: expected None because weights are matrices, got {axes!r}; leave it out")
        self.input_axes, self.output_axes = input_axes, output_axes

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:  # noqa: D102
        inputs, outputs = shape[0], shape[-1]
        fan = {"fan_in": inputs, "fan_out": outputs, "fan_avg": (inputs + outputs) / 2}[self.mode]
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * self.scale / fan)
            return rng.uniform(-limit, limit, shape)
        deviation = math.sqrt(self.scale / fan)
        if self.distribution == "truncated_normal":
            return _truncated(rng, shape) * (deviation / TRUNCATED_STDDEV)
        return rng.standard_normal(shape) * deviation


class _Scaled(VarianceScaling):
    """Base class of `VarianceScaling` with fixed options."""

    arguments = ("seed",)
    _SCALING: ClassVar[tuple[float, str, str]]

    def __init__(self, seed: int | None = None, input_axes: None = None, output_axes: None = None) -> None:
        super().__init__(*self._SCALING, seed, input_axes, output_axes)


class GlorotUniform(_Scaled):
    """Uniform distribution from -a to a, with ``a = sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio 2010).

    Parameters
    ----------
    seed, input_axes, output_axes
        As in `VarianceScaling`.
    """

    _SCALING = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal distribution of variance ``2 / (fan_in + fan_out)`` (Glorot and Bengio 2010).

    Parameters
    ----------
    seed, input_axes, output_axes
        As in `VarianceScaling`.
    """

    _SCALING = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Scaled):
    """Uniform distribution from -a to a, with ``a = sqrt(6 / fan_in)`` (He et al. 2015).

    Parameters
    ----------
    seed, input_axes, output_axes
        As in `VarianceScaling`.
    """

    _SCALING = (2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """Truncated normal distribution of variance ``2 / fan_in`` (He et al. 2015).

    Parameters
    ----------
    seed, input_axes, output_axes
        As in `VarianceScaling`.
    """

    _SCALING = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """Uniform distribution from -a to a, with ``a = sqrt(3 / fan_in)`` (LeCun et al. 1998).

    Parameters
    ----------
    seed, input_axes, output_axes
        As in `VarianceScaling`.
    """

    _SCALING = (1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """Truncated normal distribution of variance ``1 / fan_in`` (LeCun et al. 1998).

    Parameters
    ----------
    seed, input_axes, output_axes
        As in `VarianceScaling`.
    """

    _SCALING = (1.0, "fan_in", "truncated_normal")


class Orthogonal(_Random):
    """A matrix with orthonormal rows or columns, whichever are fewer, times `gain` (Saxe et al. 2014).

    Parameters
    ----------
    gain : float, default 1.0
        The factor of the matrix.
    seed : int, optional
        As in `VarianceScaling`.
    """

    arguments = ("gain", "seed")

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain = checks.number("gain", gain)
        self._set_seed(seed)

    def sample(self, rng: np.random.Generator, shape: Shape) -> Array:  # noqa: D102
        rows, columns = _matrix("orthogonal", shape)
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.sign(np.diag(r))  # makes the decomposition unique, and so the distribution uniform
        q = q.T if rows < columns else q
        return q if self.gain == 1 else self.gain * q


class FunctionInitializer(Initializer):
    """A function as an initializer. A layer creates one if its argument is a function.

    Parameters
    ----------
    fn : callable (shape, dtype)
        Returns an array of that shape.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, shape: Shape, dtype: Any = None) -> Array:
        """Return weights of `shape` from the function."""
        name = getattr(self.fn, "__name__", type(self.fn).__name__)
        array = np.asarray(self.fn(tuple(shape), np.float64 if dtype is None else dtype))
        if array.shape != tuple(shape) or array.dtype.kind not in "iuf":
            raise ValueError(
                f"initializer: expected numbers of shape {tuple(shape)} from {name}, got {array.dtype} of shape "
                f"{array.shape}"
            )
        return array


def _truncated(rng: np.random.Generator, shape: Shape) -> Array:
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


def _matrix(name: str, shape: Shape) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"initializer: expected a matrix for {name!r}, got a weight of shape {shape}")
    return shape[0], shape[1]


#: Name -> class.
INITIALIZERS: dict[str, type[Initializer]] = {
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "orthogonal": Orthogonal,
    "zeros": Zeros,
    "ones": Ones,
    "identity": Identity,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "random_uniform": RandomUniform,
    "random_normal": RandomNormal,
    "truncated_normal": TruncatedNormal,
    "uniform": RandomUniform,
    "normal": RandomNormal,
    "constant": Constant,
    "variance_scaling": VarianceScaling,
}
_WITHOUT_NAME = ("constant", "variance_scaling")  # written as class and options in layers and files
CLASSES: dict[str, type[Initializer]] = {cls.__name__: cls for cls in INITIALIZERS.values()}

# Keras' lower-case names, which are classes in Keras too.
glorot_uniform, glorot_normal, orthogonal = GlorotUniform, GlorotNormal, Orthogonal
zeros, ones, identity, constant = Zeros, Ones, Identity, Constant
he_uniform, he_normal, lecun_uniform, lecun_normal = HeUniform, HeNormal, LecunUniform, LecunNormal
random_uniform, random_normal, truncated_normal = RandomUniform, RandomNormal, TruncatedNormal
variance_scaling, OrthogonalInitializer, IdentityInitializer = VarianceScaling, Orthogonal, Identity


def get(identifier: Any) -> Initializer | None:
    """Return the initializer for an identifier.

    Parameters
    ----------
    identifier : str, dict, callable, Initializer or None
        A name ("glorot_uniform", "GlorotUniform") of an initializer with default options; a dict with ``class_name``
        and ``config``; a function of shape and dtype; or an Initializer or None, which are returned.

    Returns
    -------
    Initializer or None

    Raises
    ------
    ValueError
        No initializer has that name.
    """
    if identifier is None:
        return None
    found = of_argument("initializer", identifier)
    return INITIALIZERS[found]() if isinstance(found, str) else found


def of_argument(name: str, value: Any) -> str | Initializer:
    """Return the initializer in the argument `name` of a layer, as its name if all options have their defaults."""
    if inspect.isclass(value) and issubclass(value, Initializer):
        value = value()
    if isinstance(value, Initializer):
        return _by_name(value)
    if isinstance(value, Mapping):
        given = value.get("class_name")
        cls = CLASSES.get(given) if isinstance(given, str) else None
        if cls is None:
            cls = INITIALIZERS[checks.choice(name, given, (*CLASSES, *INITIALIZERS))]
        return _by_name(cls.from_config(value.get("config") or {}))
    if isinstance(value, str) and value in CLASSES:
        return _by_name(CLASSES[value]())
    if callable(value):
        return FunctionInitializer(value)
    found = checks.choice(name, value, INITIALIZERS)
    return INITIALIZERS[found]() if found in _WITHOUT_NAME else found


def _by_name(initializer: Initializer) -> str | Initializer:
    """Return the name of an initializer with default options, or the initializer itself."""
    for name, cls in INITIALIZERS.items():
        if type(initializer) is cls and name not in _WITHOUT_NAME and initializer.get_config() == cls().get_config():
            return name
    return initializer


def initialize(initializer: str | Initializer, rng: np.random.Generator, shape: Shape) -> Array:
    """Return weights of `shape` from an initializer or its name."""
    if isinstance(initializer, str):
        initializer = INITIALIZERS[checks.choice("initializer", initializer, INITIALIZERS)]()
    return initializer.draw(rng, shape)


_TORCH = "use initializers.{}, or layer.set_weights"
#: Names in Keras and PyTorch that this module does not have -> what to use instead.
_ELSEWHERE = {
    **dict.fromkeys(("STFT", "STFTInitializer", "stft"), "write it as a function of shape and dtype"),
    "xavier_uniform_": _TORCH.format("GlorotUniform"),
    "xavier_normal_": _TORCH.format("GlorotNormal"),
    "kaiming_uniform_": _TORCH.format("HeUniform"),
    "kaiming_normal_": _TORCH.format("HeNormal"),
    "orthogonal_": _TORCH.format("Orthogonal"),
    "uniform_": _TORCH.format("RandomUniform"),
    "normal_": _TORCH.format("RandomNormal"),
    "serialize": "use initializer.get_config()",
    "deserialize": "use initializers.get({'class_name': ..., 'config': ...})",
}


def __getattr__(name: str) -> Any:
    raise missing(__name__, name, _ELSEWHERE)
