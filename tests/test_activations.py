"""The errors documented in cpp/simd/activations.hpp, measured over the whole range."""

from __future__ import annotations

import math

import numpy as np
import pytest
from error_bounds import ACTIVATION_ULP
from fastgru import reference
from fastgru._native import kernels

RNG = np.random.default_rng(3)


def sweep(dtype, bound):
    """Every exponent, dense around zero and the bounds, both signs."""
    tiny = np.finfo(dtype).tiny
    magnitudes = np.concatenate(
        [
            np.exp(RNG.uniform(np.log(float(tiny)), np.log(bound * 2), 200_000)),
            RNG.uniform(0, bound * 1.1, 200_000),
            RNG.uniform(0, 1, 100_000),
        ]
    ).astype(dtype)
    return np.concatenate([magnitudes, -magnitudes])


def exact(name, x):
    """Compute in the next wider format, so that the reference's error is far below one ULP of the result."""
    wide = np.asarray(x, np.float64 if x.dtype == np.float32 else np.longdouble)
    if name == "sigmoid":
        e = np.exp(-np.abs(wide))
        return np.where(wide < 0, e, 1) / (1 + e)
    if name == "tanh":
        return np.tanh(wide)
    return reference.ACTIVATIONS[name][0](wide)


def ulp_error(actual, expected):
    spacing = np.spacing(np.abs(expected).astype(actual.dtype)).astype(expected.dtype)
    return np.abs(actual.astype(expected.dtype) - expected) / spacing


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "bound"), [("tanh", {4: 20.0, 8: 40.0}), ("sigmoid", {4: 87.0, 8: 708.0})], ids=["tanh", "sigmoid"]
)
def test_error_stays_below_the_stated_ulp(name, bound, dtype):
    if dtype == np.float64 and np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        pytest.skip("longdouble is no wider than float64 on this platform")
    limit = bound[np.dtype(dtype).itemsize]
    x = sweep(dtype, limit)
    x = x[np.abs(x) < limit]
    error = ulp_error(kernels.activate(x, name), exact(name, x))
    worst = int(error.argmax())
    assert error[worst] <= ACTIVATION_ULP[name], f"{error[worst]:.2f} ULP at x = {x[worst]!r}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["hard_sigmoid", "hard_sigmoid_tfjs", "relu", "linear"])
def test_piecewise_linear_activations_match_to_a_rounding_of_the_sum(name, dtype):
    x = sweep(dtype, 10.0)
    x = x[np.abs(x) < 20]
    # slope * x + 1/2 can cancel: the error is one rounding of the terms, not of the result.
    tolerance = 2 * np.finfo(dtype).eps
    np.testing.assert_allclose(kernels.activate(x, name), exact(name, x), rtol=0, atol=tolerance * 20)
    inside = np.abs(x) < 2
    np.testing.assert_allclose(
        kernels.activate(x[inside], name), exact(name, x[inside]), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "hard_sigmoid", "hard_sigmoid_tfjs", "relu", "linear"])
def test_limits_nan_and_signs(name, dtype):
    values = np.array([np.nan, np.inf, -np.inf, 0.0, 1e4, -1e4], dtype)
    for shift in range(17):  # every lane of a register
        x = np.concatenate([np.ones(shift, dtype), values])
        y = kernels.activate(x, name)[shift:]
        assert np.isnan(y[0])
        assert not np.isnan(y[1:]).any()
        if name == "tanh":
            assert list(y[1:4]) == [1, -1, 0]
        elif "sigmoid" in name:
            assert y[1] == 1
            assert y[3] == 0.5
            assert 0 <= y[2] <= {4: 1.7e-38, 8: 3.4e-308}[x.itemsize]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_stay_in_range(dtype):
    x = np.linspace(-100, 100, 1_000_001).astype(dtype)
    tanh, sigmoid = kernels.activate(x, "tanh"), kernels.activate(x, "sigmoid")
    assert np.abs(tanh).max() == 1
    assert sigmoid.max() == 1
    assert sigmoid.min() > 0
    np.testing.assert_array_equal(kernels.activate(-x, "tanh"), -tanh)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_of_softmax_range(dtype):
    x = -sweep(dtype, 80.0)
    x = x[(x <= 0) & (x > -80)]
    wide = np.exp(np.asarray(x, np.float64 if dtype == np.float32 else np.longdouble))
    assert ulp_error(kernels.activate(x, "exp"), wide).max() <= 4
    assert math.isnan(kernels.activate(np.array([np.nan], dtype), "exp")[0])
