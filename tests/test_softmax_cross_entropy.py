from __future__ import annotations

import numpy as np
import pytest
from fastgru import functional, reference

#: Softmax is an exponential of a few ULP, a sum over C and a division.
RELATIVE = {np.float32: 2e-6, np.float64: 1e-14}

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def one_hot(labels, classes, dtype):
    return np.eye(classes, dtype=dtype)[labels]


@dtypes
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (32, 10), (17, 16), (9, 33), (600, 40), (0, 4)], ids=str)
def test_matches_the_reference(shape, dtype):
    rng = np.random.default_rng(shape[1])
    logits = (4 * rng.normal(size=shape)).astype(dtype)
    labels = rng.integers(0, shape[1], shape[0])
    targets = rng.random(shape).astype(dtype)
    tolerance = {"rtol": RELATIVE[dtype], "atol": RELATIVE[dtype]}
    np.testing.assert_allclose(functional.softmax(logits), reference.softmax(logits), **tolerance)
    for given, wanted in ((labels, one_hot(labels, shape[1], dtype)), (targets, targets)):
        result = functional.softmax_cross_entropy(logits, given)
        losses, d_logits = reference.softmax_cross_entropy(logits, wanted)
        np.testing.assert_allclose(result.losses, losses, **tolerance)
        np.testing.assert_allclose(result.d_logits, d_logits, **tolerance)
        np.testing.assert_array_equal(result.correct, logits.argmax(axis=1) == wanted.argmax(axis=1))
        assert result.d_logits.dtype == dtype
        assert functional.softmax_cross_entropy(logits, given, gradient=False).d_logits is None


@dtypes
def test_extreme_logits_are_stable(dtype):
    huge = np.finfo(dtype).max / 4
    logits = np.array([[huge, -huge, 0], [-huge, -huge, -huge], [1000, 999, 0]], dtype)
    with np.errstate(all="raise"):
        result = functional.softmax_cross_entropy(logits, np.array([0, 1, 1]))
    np.testing.assert_allclose(result.losses, [0, np.log(3), 1 + np.log1p(np.exp(-1.0))], rtol=1e-6, atol=1e-30)
    assert np.isfinite(result.d_logits).all()
    np.testing.assert_allclose(functional.softmax(logits).sum(axis=1), 1, rtol=1e-6)


@dtypes
@pytest.mark.parametrize("place", [0, 4])
def test_a_nan_stays_in_its_own_row(place, dtype):
    logits = np.zeros((6, 5), dtype)
    logits[2, place] = np.nan
    result = functional.softmax_cross_entropy(logits, np.arange(6) % 5)
    assert np.isnan(result.losses[2])
    assert np.isnan(result.d_logits[2]).all()
    others = np.arange(6) != 2
    assert np.isfinite(result.losses[others]).all()
    assert np.isfinite(result.d_logits[others]).all()
    assert np.isnan(functional.softmax(logits)[2]).all()


def test_a_row_has_the_same_bits_in_any_batch():
    logits = np.random.default_rng(0).normal(size=(50, 13)).astype(np.float32)
    probabilities = functional.softmax(logits)
    np.testing.assert_array_equal(functional.softmax(logits[17:18])[0], probabilities[17])
