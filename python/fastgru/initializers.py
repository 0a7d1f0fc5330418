"""Initial weights, as Keras 3 draws them.

An initializer is a function of a generator and a shape that returns float64. Fans are those of Keras: the first axis
in, the last axis out, so a GRU's kernel (F, 3H) counts its three gates as one output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru._support import checks
from fastgru._support.representation import as_call

Array = NDArray[Any]

#: Standard deviation of a unit normal truncated at +-2, which Keras divides out.
TRUNCATED_STDDEV = 0.87962566103423978


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """All zeros."""
    del rng
    return np.zeros(shape)


def ones(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """All ones."""
    del rng
    return np.ones(shape)


def identity(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Ones on the diagonal of a matrix."""
    del rng
    if len(shape) != 2:
        raise ValueError(f"initializer: expected a matrix for 'identity', got a weight of shape {shape}")
    return np.eye(*shape)


def _truncated(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[-1]


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform within ``sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio 2010)."""
    limit = math.sqrt(6.0 / sum(_fans(shape)))
    return rng.uniform(-limit, limit, shape)


def glorot_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal of variance ``2 / (fan_in + fan_out)``, truncated at two standard deviations of what is drawn."""
    return _truncated(rng, shape) * (math.sqrt(2.0 / sum(_fans(shape))) / TRUNCATED_STDDEV)


def he_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform within ``sqrt(6 / fan_in)`` (He et al. 2015)."""
    limit = math.sqrt(6.0 / _fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


def he_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal of variance ``2 / fan_in``, truncated at two standard deviations of what is drawn."""
    return _truncated(rng, shape) * (math.sqrt(2.0 / _fans(shape)[0]) / TRUNCATED_STDDEV)


def lecun_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform within ``sqrt(3 / fan_in)`` (LeCun et al. 1998)."""
    limit = math.sqrt(3.0 / _fans(shape)[0])
    return rng.uniform(-limit, limit, shape)


def lecun_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal of variance ``1 / fan_in``, truncated at two standard deviations of what is drawn."""
    return _truncated(rng, shape) * (math.sqrt(1.0 / _fans(shape)[0]) / TRUNCATED_STDDEV)


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A matrix with orthonormal rows or columns, whichever are fewer, uniform among those (Saxe et al. 2014)."""
    if len(shape) != 2:
        raise ValueError(f"initializer: expected a matrix for 'orthogonal', got a weight of shape {shape}")
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # makes the decomposition unique, and so the distribution uniform
    return q.T if rows < columns else q


class Initializer:
    """An initializer with arguments."""

    def __init__(self, **config: float) -> None:
        self._config = {name: checks.number(name, value) for name, value in config.items()}
        for name, value in self._config.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        return as_call(self)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Weights of `shape`."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """What `get` makes the same initializer from."""
        return {"class_name": type(self).__name__, "config": dict(self._config)}


class Constant(Initializer):
    """All `value`."""

    value: float

    def __init__(self, value: float = 0.0) -> None:
        super().__init__(value=value)

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:  # noqa: D102
        del rng
        return np.full(shape, self.value)


class RandomUniform(Initializer):
    """Uniform from `minval` to `maxval`."""

    minval: float
    maxval: float

    def __init__(self, minval: float = -0.05, maxval: float = 0.05) -> None:
        super().__init__(minval=minval, maxval=maxval)
        if self.maxval < self.minval:
            raise ValueError(f"maxval: expected at least minval, {self.minval:g}, got {self.maxval:g}")

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:  # noqa: D102
        return rng.uniform(self.minval, self.maxval, shape)


class RandomNormal(Initializer):
    """Normal."""

    mean: float
    stddev: float

    def __init__(self, mean: float = 0.0, stddev: float = 0.05) -> None:
        super().__init__(mean=mean, stddev=checks.number("stddev", stddev, least=0))

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:  # noqa: D102
        return rng.standard_normal(shape) * self.stddev + self.mean


class TruncatedNormal(Initializer):
    """Normal, drawn again where it is more than two standard deviations from the mean."""

    mean: float
    stddev: float

    def __init__(self, mean: float = 0.0, stddev: float = 0.05) -> None:
        super().__init__(mean=mean, stddev=checks.number("stddev", stddev, least=0))

    def __call__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:  # noqa: D102
        return _truncated(rng, shape) * self.stddev + self.mean


Function = Callable[[np.random.Generator, tuple[int, ...]], Array]

INITIALIZERS: dict[str, Function] = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "orthogonal": orthogonal,
    "zeros": zeros,
    "ones": ones,
    "identity": identity,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_normal": lecun_normal,
    "random_uniform": RandomUniform(),
    "random_normal": RandomNormal(),
    "truncated_normal": TruncatedNormal(),
    "uniform": RandomUniform(),
    "normal": RandomNormal(),
}
CLASSES: dict[str, Callable[..., Initializer]] = {
    cls.__name__: cls for cls in (Constant, RandomUniform, RandomNormal, TruncatedNormal)
}


def get(name: str, value: Any) -> str | Initializer:
    """The initializer that an argument called `name` says, checked: a name, a configuration, or one itself."""
    if isinstance(value, Initializer):
        return value
    if isinstance(value, Mapping):
        return CLASSES[checks.choice(name, value.get("class_name"), CLASSES)](**value.get("config", {}))
    return checks.choice(name, value, INITIALIZERS)


def initialize(initializer: str | Initializer, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Weights of `shape` from an initializer or the one of that name."""
    if isinstance(initializer, Initializer):
        return initializer(rng, shape)
    return INITIALIZERS[checks.choice("initializer", initializer, INITIALIZERS)](rng, shape)
