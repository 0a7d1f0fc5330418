"""Initial weights, as Keras 3 draws them.

An initializer is a function of a generator and a shape that returns float64. Fans are those of Keras: the first axis
in, the last axis out, so a GRU's kernel (F, 3H) counts its three gates as one output.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgru import checks

Array = NDArray[Any]

#: Standard deviation of a unit normal truncated at +-2, which Keras divides out.
TRUNCATED_STDDEV = 0.87962566103423978


def zeros(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """All zeros."""
    del rng
    return np.zeros(shape)


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Uniform within ``sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio 2010)."""
    limit = math.sqrt(6.0 / (shape[0] + shape[-1]))
    return rng.uniform(-limit, limit, shape)


def glorot_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal of variance ``2 / (fan_in + fan_out)``, truncated at two standard deviations of what is drawn."""
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values * (math.sqrt(2.0 / (shape[0] + shape[-1])) / TRUNCATED_STDDEV)


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """A matrix with orthonormal rows or columns, whichever are fewer, uniform among those (Saxe et al. 2014)."""
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # makes the decomposition unique, and so the distribution uniform
    return q.T if rows < columns else q


INITIALIZERS = {
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "orthogonal": orthogonal,
    "zeros": zeros,
}


def initialize(name: str, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Weights of `shape` from the initializer called `name`."""
    return INITIALIZERS[checks.choice("initializer", name, INITIALIZERS)](rng, shape)
